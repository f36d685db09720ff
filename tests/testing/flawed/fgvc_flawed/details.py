"""The rest of what a check may find: its words say that it is this which was found, and not another flaw."""

from fgvc_flawed.table import Flaw


def flaws(kind, check, *rows):
    """Make rows of one check: (name, class, words of the reason, what the spec says otherwise)."""
    for name, made_by, says, *spec in rows:
        yield Flaw(kind, name, check, made_by, spec[0] if spec else {}, says, "_details")


DETAILS = [
    # heads
    *flaws(
        "head", "it scores every class",
        ("infinite", "Infinite", "finite scores; some are not"),
        ("refusing", "Refusing", "it refuses both of the kit's backbones"),
        ("unlike-a-head", "no_head", "fgvc_flawed.head_details:no_head makes a Linear"),
    ),
    *flaws("head", "a saved head is the head", ("extra-state", "ExtraState", "head._extra_state is none")),
    *flaws("head", "evaluation changes nothing", ("tallying", "Tallying", "predict changes head.tally")),
    *flaws(
        "head", "it reads what it says",
        ("reading-beyond", "ReadingBeyond", "reads() names [9]"),
        ("reading-nothing", "ReadingNothing", "reads() names no map and no embedding"),
    ),
    *flaws(
        "head", "its attention lies in [0, 1]",
        ("small-attention", "SmallAttention", "attention maps of shape (4, 64, 64), float32"),
        ("bound-attention", "BoundAttention", "attention without gradient; it carries one"),
    ),
    *flaws(
        "head", "it says what to minimize",
        ("yielding-images", "YieldingImages", "an Objective; Tensor is yielded"),
        ("cropping", "Cropping", "they have shape (4, 3, 32, 32)"),
        ("idling", "Idling", "missing_grad to be 'skip' or 'zero'; it is 'sleep'"),
        ("namesakes", "Namesakes", "they are called ['same', 'same']"),
        ("bare-loss", "BareLoss", "a Loss from an objective's loss function; Tensor"),
        ("infinite-loss", "InfiniteLoss", "a finite loss; it is inf"),
        ("detached-loss", "DetachedLoss", "a loss with a gradient; it has none"),
        ("short-scores", "ShortScores", "scores of shape (4, 5) in the Loss"),
        ("bound-parts", "BoundParts", "part are not"),
    ),
    *flaws(
        "head", "gradients reach every parameter", ("rooted", "Rooted", "finite gradients; those of"),
    ),
    *flaws("head", "a micro-batch goes with others", ("spreading", "Spreading", "losses of two micro-batches")),
    *flaws("head", "it trains in bf16", ("coarse", "Coarse", "finite losses, weights and scores under bf16 autocast")),
    *flaws("head", "it trains by sgd", ("spare", "Spare", "a gradient for every parameter; head.spare")),
    *flaws("head", "it trains by adamw", ("one-less", "OneLess", "predict gives (4, 4)")),
    # backbones
    *flaws(
        "backbone", "it says who it is",
        ("wordless", "Wordless", "a BackboneInfo as info; it is a dict"),
        ("recurrent", "Recurrent", "it is 'recurrent'"),
        ("gray", "Gray", "three numbers as info.std"),
    ),
    *flaws(
        "backbone", "its maps are as it says",
        ("tuple", "Tupled", "Features from forward; a tuple"),
        ("without-embedding", "WithoutEmbedding", "an embedding of shape (2, 10), as info says; it is missing"),
        ("infinite", "Infinite", "finite features; the embedding are not"),
    ),
    *flaws(
        "backbone", "its strides are those of the spec",
        ("deep-first", "DeepFirst", "maps from shallow to deep", {"strides": ()}),
        ("boasting-strides", "BoastingStrides", "a grid of about", {"strides": ()}),
    ),
    *flaws("backbone", "a saved backbone is the backbone", ("extra-state", "ExtraState", "_extra_state is none")),
    *flaws("backbone", "an image's features are its own", ("tallying", "Tallying", "evaluation changes tally")),
    *flaws("backbone", "it takes a size or refuses it", ("brittle", "Brittle", "it raised ZeroDivisionError")),
    *flaws(
        "backbone", "its published weights are as the spec says",
        ("nameless-weights", "NamelessWeights", "PretrainedWeights; ", {"pretrained": "x"}),
        ("swallowing", "Swallowing", "weights of which nothing matches; they are loaded", {"pretrained": "x"}),
    ),
    *flaws(
        "backbone", "gradients reach every parameter that is left",
        ("rooted", "Rooted", "finite gradients; "),
        ("sizeless", "Sizeless", "images of some size from 32 to 512 px"),
    ),
    *flaws("backbone", "it is built where gradients are off", ("asking", "Asking", "are left, and")),
    *flaws(
        "backbone", "it names the modules that Grad-CAM hooks",
        ("bare-module", "BareModule", "a CamLayer from cam_layer for map 0"),
        ("strange-module", "StrangeModule", "it is none of them"),
        ("unused-module", "UnusedModule", "the module of cam_layer for map 0 to be run; it is not"),
        ("side-module", "SideModule", "the features do not depend on its output"),
        ("pair-module", "PairModule", "it gives a tuple"),
    ),
    # optimizers
    *flaws(
        "optimizer", "it has a rate for each part",
        ("rateless", "Sound", "head_lr is missing", {"options": "fgvc_flawed.options:OneRate"}),
        ("doubling", "Doubling", "as its options say"),
    ),
    *flaws("optimizer", "the schedule sets its rates", ("restless", "Restless", "nothing to move at a rate of 0")),
    *flaws("optimizer", "each part moves by its own rate", ("headless", "Headless", "the head to move")),
    *flaws(
        "optimizer", "a bad gradient moves nothing",
        ("poisoned", "Poisoned", "finite parameters in the step after a bad one"),
        ("giving-up", "GivingUp", "nothing moves any more"),
    ),
    *flaws(
        "optimizer", "it evaluates as its spec says",
        ("looking-around", "LookingAround", "a call of closure() in a step; it has none"),
        ("returning-nothing", "ReturningNothing", "the first evaluation to be returned; another thing is"),
    ),
    *flaws("optimizer", "it says whether it coasts", ("undecided", "Undecided", "coasts to be True or False")),
    *flaws(
        "optimizer", "it is built over any base of one pass", ("uphill", "Uphill", "a lower loss over", {"base": "sgd"})
    ),
    *flaws(
        "optimizer", "a base that looks twice is refused",
        ("home-made", "HomeMade", "a ComposedOptimizer; a HomeMade", {"base": "sgd"}),
    ),
    *flaws(
        "optimizer", "it trains linear",
        ("late", "Late", "finite weights after two updates"),
        ("lazy", "Lazy", "two updates move nothing"),
    ),
    # datasets
    *flaws(
        "dataset", "it has splits",
        ("listed", "Listed", "a tuple of different names from splits()"),
        ("no-split", "NoSplit", "a Split for 'train'; a list"),
        ("misnamed-split", "MisnamedSplit", "a split called 'train'; it is called 'all'"),
        ("empty-split", "EmptySplit", "images in 'val'; it is empty"),
    ),
    *flaws(
        "dataset", "its classes have names",
        ("numbered", "Numbered", "a tuple of names as class_names"),
        ("single", "Single", "two classes or more; there are 1"),
    ),
    *flaws("dataset", "its labels are classes", ("one-hot", "OneHot", "integers as labels of 'train'")),
    *flaws("dataset", "its keys tell images apart", ("number-keys", "NumberKeys", "texts as keys of 'train'; 0, 1, 2")),
    *flaws(
        "dataset", "its images can be read",
        ("text-paths", "TextPaths", "a Path (or an array) as an image; 'photo.png'"),
        ("gone-files", "GoneFiles", "images of 'train' that can be read"),
    ),
    *flaws(
        "dataset", "it is the same each time",
        ("other-classes", "OtherClasses", "the same class_names again"),
        ("other-split", "OtherSplit", "split() gives another one again"),
    ),
    *flaws(
        "dataset", "its parts lie in its images",
        ("parts-of-none", "PartsOfNone", "deciding parts by class name; 'dog' is none"),
        ("unseen-part", "UnseenPart", "parts that images have for 'ant'; tail is on none"),
    ),
    *flaws(
        "dataset", "it says where its images are from",
        ("anonymous", "Anonymous", "identity() to give a name"),
        ("other-name", "OtherName", "name to be 'other-name'; 'sound'"),
    ),
    *flaws(
        "dataset", "it says how its files are had",
        ("no-provision", "NoProvision", "a Provision (or None); a str"),
        ("elsewhere", "Elsewhere", "a folder below"),
        ("unobtainable", "Unobtainable", "a link, or words on what to do; neither is given"),
        ("half-link", "HalfLink", "a link; list.txt has 'flawed.example/list.txt'"),
    ),
    *flaws(
        "dataset", "what is not there is said",
        ("content", "Content", "it opens without them"),
        ("wordy", "Wordy", "one line; "),
    ),
    # explainers
    *flaws(
        "explainer", "it gives a map an image", ("bound", "Bound", "maps without gradient; they carry one"),
    ),
    *flaws(
        "explainer", "it leaves no trace",
        ("writing", "Writing", "the images as they were given; explain changes them"),
        ("switching", "Switching", "gradients as they were; they are switched"),
        ("moving", "Moving", "weights and buffers as they were; explain changes"),
        ("sleeping", "Sleeping", "modes (train, eval) as they were"),
    ),
    *flaws("explainer", "it explains pim", ("spilling", "Spilling", "no .grad of a parameter; explain leaves some")),
    # trackers
    *flaws("tracker", "it hears a training", ("one-note", "OneNote", "a list of lines from notes()")),
    *flaws("tracker", "it keeps to its own folder", ("editing", "Editing", "config.toml as it was; it is changed")),
    # what every spec says
    *flaws(
        "head", "it has a summary",
        ("long-winded", "Infinite", "it has 130 characters", {"summary": "x" * 130}),
        ("red", "Infinite", "without control characters; it has 8 characters", {"summary": "\x1b[31mred"}),
        ("two-sources", "Infinite", "a source of one line", {"source": "one\ntwo"}),
    ),
    *flaws(
        "head", "its defaults are values that `--set` takes",
        ("unequal", "Infinite", "width was 3 and became '3'", {"options": "fgvc_flawed.options:Unequal"}),
    ),
    *flaws(
        "head", "its target is there",
        ("constant", "CONSTANT", "to be a class or function; it is a int"),
        ("positional", "Positional", "target(backbone=..., classes=..., options=...); its signature is (info, number,"),
    ),
    *flaws("head", "its family knows its members", ("moody/1", "", "one spec for one name")),
]  # fmt: skip
