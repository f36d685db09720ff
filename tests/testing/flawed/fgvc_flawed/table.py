"""Components with one flaw each, and the check that must find it."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Flaw:
    """A component with one flaw.

    Attributes:
        kind: kind of the component.
        name: name of the component.
        check: title of the check that finds the flaw.
        made_by: class of the component.
        spec: fields of its spec that differ from those of the sound one.
        says: part of the reason that the check reports.
    """

    kind: str
    name: str
    check: str
    made_by: str = "Sound"
    spec: dict[str, Any] = field(default_factory=dict)
    says: str = ""

    @property
    def target(self) -> str:
        return f"fgvc_flawed.{self.kind}s:{self.made_by}"


SOUND = [Flaw("dataset", "made", "", "made"), Flaw("head", "on-the-cpu", "", "OnTheCpu")]
"""Components without a flaw that might look like one."""

FLAWS = [
    # heads
    Flaw("head", "no-class", "predict returns a score per class", "NoClass"),
    Flaw("head", "dice-weights", "initialization is reproducible", "DiceWeights"),
    Flaw("head", "relative", "scores do not depend on the batch", "Relative"),
    Flaw("head", "blind", "scores depend on the image", "Blind"),
    Flaw("head", "always-dropping", "evaluation is deterministic and stateless", "AlwaysDropping"),
    Flaw("head", "forgetful", "state dict restores the scores", "Forgetful"),
    Flaw("head", "greedy", "reads() matches what the losses use", "Greedy"),
    Flaw("head", "descending", "reads() matches what the losses use", "Descending"),
    Flaw("head", "misplaced", "cam_map() is among the maps it reads", "Misplaced"),
    Flaw("head", "flipping", "first forward pass is over the unchanged images", "Flipping"),
    Flaw("head", "claiming", "published() ignores other checkpoints", "Claiming"),
    Flaw("head", "one-note", "notes() returns single lines", "OneNote"),
    Flaw("head", "glaring", "attention maps are in [0, 1]", "Glaring"),
    Flaw("head", "pyramid-only", "works with token maps", "PyramidOnly"),
    Flaw("head", "anchored", "predict works on a GPU", "Anchored"),
    Flaw("head", "ranging", "trains on a GPU", "Ranging"),
    Flaw("head", "waiting", "predict does not synchronize with the device", "Waiting"),
    Flaw("head", "not-scalar", "objectives have finite scalar losses", "NotScalar"),
    Flaw("head", "nothing-to-do", "objectives have finite scalar losses", "NothingToDo"),
    Flaw("head", "hard", "objectives accept soft targets", "Hard"),
    Flaw("head", "idle-layer", "every parameter gets a gradient", "IdleLayer"),
    Flaw("head", "idle-on-tokens", "every parameter gets a gradient on token maps", "IdleOnTokens"),
    Flaw("head", "uphill", "loss decreases on one batch", "Uphill"),
    Flaw("head", "dice", "training is reproducible", "Dice"),
    Flaw("head", "counting", "second evaluation gives the same loss", "Counting"),
    Flaw("head", "unsteady", "supports gradient accumulation", "Unsteady"),
    Flaw("head", "exact", "trains under bf16 autocast", "Exact"),
    Flaw("head", "in-place", "does not modify its batch", "InPlace"),
    Flaw("head", "waiting-loss", "training does not synchronize with the device", "WaitingLoss"),
    Flaw("head", "reading-loss", "training does not synchronize with the device", "ReadingLoss"),
    Flaw("head", "cut", "is explained by gradcam", "Cut"),
    Flaw("head", "once", "trains with sam", "Once"),
    # backbones
    Flaw("backbone", "misnamed", "reports its name, input size and normalization", "Misnamed"),
    Flaw("backbone", "wide", "features have the shapes in info", "Wide"),
    Flaw("backbone", "strided", "strides match the spec and the grids", spec={"strides": (4, 8, 16, 32)}),
    Flaw("backbone", "generous", "returns only the requested features", "Generous"),
    Flaw("backbone", "relative", "features do not depend on the batch", "Relative"),
    Flaw("backbone", "dice-weights", "initialization is reproducible", "DiceWeights"),
    Flaw("backbone", "forgetful", "state dict restores the features", "Forgetful"),
    Flaw("backbone", "exact", "works under bf16 autocast", "Exact"),
    Flaw("backbone", "viewing", "works with channels-last memory format", "Viewing"),
    Flaw("backbone", "anchored", "works on a GPU", "Anchored"),
    Flaw("backbone", "any-size", "accepts or refuses any image size", "AnySize"),
    Flaw("backbone", "boastful", "pretrained weights match the spec", spec={"pretrained": "sound.in1k"}),
    Flaw("backbone", "waiting", "forward does not synchronize with the device", "Waiting"),
    Flaw("backbone", "unpruned", "every parameter left by prune gets a gradient", "Unpruned"),
    Flaw("backbone", "unpruned-shallow", "pruning to a shallow map saves parameters", "Unpruned"),
    Flaw("backbone", "hacked", "prune keeps the features", "Hacked"),
    Flaw("backbone", "looking", "prune works under torch.no_grad()", "Looking"),
    Flaw("backbone", "mislaid", "cam_layer() returns usable layers", "Mislaid"),
    Flaw("backbone", "aside", "cam_layer() returns usable layers", "Aside"),
    Flaw("backbone", "narrow", "trains with pim", "Narrow"),
    # optimizers
    Flaw("optimizer", "one-rate", "has learning rates for backbone and head", "OneRate"),
    Flaw("optimizer", "compounding", "set_rate() scales the learning rates", "Compounding"),
    Flaw("optimizer", "pretending", "each part uses its own learning rate", "Pretending"),
    Flaw("optimizer", "straying", "step updates exactly the parameters with gradients", "Straying"),
    Flaw("optimizer", "half", "step updates exactly the parameters with gradients", "Half"),
    Flaw("optimizer", "climbing", "loss decreases", "Climbing"),
    Flaw("optimizer", "reckless", "skips steps with non-finite gradients", "Reckless"),
    Flaw("optimizer", "twice", "number of evaluations matches the spec", spec={"passes": 2}),
    Flaw("optimizer", "last", "number of evaluations matches the spec", "Last", {"passes": 2}),
    Flaw("optimizer", "still", "moves_without_grad is accurate", "Still"),
    Flaw("optimizer", "picky", "works with every single-pass base", "Picky", {"base": "sgd"}),
    Flaw("optimizer", "open", "refuses a base that evaluates twice", "Open", {"base": "sgd"}),
    Flaw("optimizer", "waiting", "step does not synchronize with the device", "Waiting"),
    Flaw("optimizer", "strange", "state can be serialized", "Strange"),
    Flaw("optimizer", "forgetful", "resumes bit for bit", "Forgetful"),
    Flaw("optimizer", "weak", "trains linear", "Weak"),
    # datasets
    Flaw("dataset", "test-first", "splits start with train and are not empty", "TestFirst"),
    Flaw("dataset", "downloading", "splits start with train and are not empty", "Downloading"),
    Flaw("dataset", "namesakes", "class names are unique", "Namesakes"),
    Flaw("dataset", "beyond", "labels index the class names", "Beyond"),
    Flaw("dataset", "absent-class", "labels index the class names", "AbsentClass"),
    Flaw("dataset", "one-key", "keys are unique", "OneKey"),
    Flaw("dataset", "floating", "images can be read", "Floating"),
    Flaw("dataset", "shuffled", "opening it again gives the same data", "Shuffled"),
    Flaw("dataset", "leaking", "splits share no image", "Leaking", {"reads_folder": True}),
    Flaw("dataset", "redrawn", "splits share no image", "Redrawn"),
    Flaw("dataset", "outside", "part boxes are inside the images", "Outside"),
    Flaw("dataset", "unspeakable", "identity() is serializable", "Unspeakable"),
    Flaw("dataset", "needless", "provision() is complete", "Needless"),
    Flaw("dataset", "unchecked", "provision() is complete", "Unchecked"),
    Flaw("dataset", "crashing", "missing files raise an FgvcError", "Crashing"),
    Flaw("dataset", "lonely", "a classifier can train on it", "Lonely"),
    # explainers
    Flaw("explainer", "raw", "returns one map per image in [0, 1]", "Raw"),
    Flaw("explainer", "small", "returns one map per image in [0, 1]", "Small"),
    Flaw("explainer", "shared", "maps do not depend on the batch", "Shared"),
    Flaw("explainer", "remembering", "keeps no state between calls", "Remembering"),
    Flaw("explainer", "grads", "has no side effects", "Grads"),
    Flaw("explainer", "frozen", "has no side effects", "Frozen"),
    Flaw("explainer", "hooked", "has no side effects after an error", "Hooked"),
    Flaw("explainer", "edges", "maps depend on the weights", "Edges"),
    Flaw("explainer", "knowing", "maps depend on the weights", spec={"baseline": True}),
    Flaw("explainer", "coarse", "works under bf16 autocast", "Coarse"),
    Flaw("explainer", "one-note", "notes() returns single lines", "OneNote"),
    Flaw("explainer", "waiting", "explain does not synchronize with the device", "Waiting"),
    Flaw("explainer", "mapped", "explains linear", "Mapped"),
    # trackers
    Flaw("tracker", "failing", "logs a complete run", "Failing"),
    Flaw("tracker", "expecting", "accepts missing metrics", "Expecting"),
    Flaw("tracker", "hopeful", "handles interruption and resuming", "Hopeful"),
    Flaw("tracker", "early", "writes nothing before started()", "Early"),
    Flaw("tracker", "sprawling", "writes only to its own folder", "Sprawling"),
    Flaw("tracker", "popping", "does not modify its arguments", "Popping"),
    # recipes
    Flaw("recipe", "no-toml", "can be parsed"),
    Flaw("recipe", "no-head", "components are registered"),
    Flaw("recipe", "no-option", "settings are valid"),
    Flaw("recipe", "gpu-option", "settings are valid"),
    Flaw("recipe", "no-condition", "conditions are valid"),
    Flaw("recipe", "pim-option", "conditions are valid"),
    Flaw("study", "no-cells", "can be parsed", says="under [[cells]]"),
    Flaw("study", "unknown-head", "can be parsed", says="nobody-has-this"),
    Flaw("study", "unknown-option", "settings are valid", says="fpn_sizes"),
    Flaw("study", "repeated", "combinations are distinct", says="3 distinct combinations; 2"),
    # what every spec says
    Flaw("head", "linear", "name is unique"),
    Flaw("head", "silent", "summary is one line", spec={"summary": ""}),
    Flaw("head", "no-help", "options are documented", spec={"options": "fgvc_flawed.options:NoHelp"}),
    Flaw("head", "no-default", "options are documented", spec={"options": "fgvc_flawed.options:NoDefault"}),
    Flaw("head", "thawed", "options are documented", spec={"options": "fgvc_flawed.options:Thawed"}),
    Flaw("head", "zero", "defaults survive a TOML round trip", spec={"options": "fgvc_flawed.options:Out"}),
    Flaw("head", "no-target", "target can be imported and called", "Nowhere"),
    Flaw("head", "no-options", "options are documented", spec={"options": "fgvc_flawed.options:Nowhere"}),
    Flaw("head", "unbuilt", "predict returns a score per class", "Unbuilt"),
    Flaw(
        "head", "heavy-options", "registers without importing torch", spec={"options": "fgvc_flawed.heads:HeavyOptions"}
    ),
    Flaw("head", "any/flawed", "family resolves its members"),
    # further requirements of the same checks
    # heads
    Flaw("head", "infinite", "predict returns a score per class", "Infinite", says="finite scores"),
    Flaw("head", "refusing", "predict returns a score per class", "Refusing", says="refuses both tiny backbones"),
    Flaw("head", "extra-state", "state dict restores the scores", "ExtraState", says="head._extra_state is not"),
    Flaw(
        "head", "tallying", "evaluation is deterministic and stateless", "Tallying", says="predict changes head.tally"
    ),
    Flaw("head", "reading-beyond", "reads() matches what the losses use", "ReadingBeyond", says="reads() returned [9]"),
    Flaw(
        "head",
        "small-attention",
        "attention maps are in [0, 1]",
        "SmallAttention",
        says="attention maps of shape (4, 64, 64)",
    ),
    Flaw("head", "cropping", "objectives have finite scalar losses", "Cropping", says="they have shape (4, 3, 32, 32)"),
    Flaw(
        "head", "infinite-loss", "objectives have finite scalar losses", "InfiniteLoss", says="a finite loss; it is inf"
    ),
    Flaw(
        "head", "detached-loss", "objectives have finite scalar losses", "DetachedLoss", says="a loss with a gradient"
    ),
    Flaw("head", "rooted", "every parameter gets a gradient", "Rooted", says="finite gradients"),
    Flaw("head", "spreading", "supports gradient accumulation", "Spreading", says="losses of two micro-batches"),
    Flaw("head", "spare", "trains with sgd", "Spare", says="a gradient for every parameter; head.spare"),
    Flaw("head", "one-less", "trains with adamw", "OneLess", says="predict returned (4, 4)"),
    # backbones
    Flaw(
        "backbone",
        "without-embedding",
        "features have the shapes in info",
        "WithoutEmbedding",
        says="an embedding of shape (2, 10)",
    ),
    Flaw("backbone", "infinite", "features have the shapes in info", "Infinite", says="finite features"),
    Flaw(
        "backbone",
        "deep-first",
        "strides match the spec and the grids",
        "DeepFirst",
        {"strides": ()},
        says="maps from shallow to deep",
    ),
    Flaw(
        "backbone",
        "boasting-strides",
        "strides match the spec and the grids",
        "BoastingStrides",
        {"strides": ()},
        says="a grid of about",
    ),
    Flaw("backbone", "tallying", "features do not depend on the batch", "Tallying", says="evaluation changes tally"),
    Flaw("backbone", "brittle", "accepts or refuses any image size", "Brittle", says="it raised ZeroDivisionError"),
    Flaw(
        "backbone",
        "swallowing",
        "pretrained weights match the spec",
        "Swallowing",
        {"pretrained": "x"},
        says="they are loaded",
    ),
    Flaw("backbone", "rooted", "every parameter left by prune gets a gradient", "Rooted", says="finite gradients"),
    Flaw(
        "backbone",
        "sizeless",
        "every parameter left by prune gets a gradient",
        "Sizeless",
        says="some image size from 32 to 512 px",
    ),
    Flaw(
        "backbone",
        "strange-module",
        "cam_layer() returns usable layers",
        "StrangeModule",
        says="a submodule of the backbone",
    ),
    Flaw(
        "backbone",
        "side-module",
        "cam_layer() returns usable layers",
        "SideModule",
        says="the features do not depend on its output",
    ),
    # optimizers
    Flaw(
        "optimizer",
        "rateless",
        "has learning rates for backbone and head",
        "Sound",
        {"options": "fgvc_flawed.options:OneRate"},
        says="head_lr is missing",
    ),
    Flaw("optimizer", "doubling", "has learning rates for backbone and head", "Doubling", says="as in the options"),
    Flaw("optimizer", "restless", "set_rate() scales the learning rates", "Restless", says="at a rate of 0"),
    Flaw(
        "optimizer",
        "poisoned",
        "skips steps with non-finite gradients",
        "Poisoned",
        says="finite parameters in the step after",
    ),
    Flaw("optimizer", "giving-up", "skips steps with non-finite gradients", "GivingUp", says="none does"),
    Flaw(
        "optimizer",
        "looking-around",
        "number of evaluations matches the spec",
        "LookingAround",
        says="a call of closure()",
    ),
    Flaw(
        "optimizer",
        "uphill",
        "works with every single-pass base",
        "Uphill",
        {"base": "sgd"},
        says="a lower loss with base",
    ),
    Flaw(
        "optimizer",
        "home-made",
        "refuses a base that evaluates twice",
        "HomeMade",
        {"base": "sgd"},
        says="a ComposedOptimizer",
    ),
    Flaw("optimizer", "late", "trains linear", "Late", says="finite weights after two updates"),
    Flaw("optimizer", "lazy", "trains linear", "Lazy", says="two updates change nothing"),
    # datasets
    Flaw(
        "dataset",
        "misnamed-split",
        "splits start with train and are not empty",
        "MisnamedSplit",
        says="its name is 'all'",
    ),
    Flaw("dataset", "empty-split", "splits start with train and are not empty", "EmptySplit", says="images in 'val'"),
    Flaw("dataset", "one-hot", "labels index the class names", "OneHot", says="integers as labels"),
    Flaw("dataset", "gone-files", "images can be read", "GoneFiles", says="images of 'train' that can be read"),
    Flaw(
        "dataset",
        "other-classes",
        "opening it again gives the same data",
        "OtherClasses",
        says="the same class_names again",
    ),
    Flaw("dataset", "unseen-part", "part boxes are inside the images", "UnseenPart", says="no image has tail"),
    Flaw("dataset", "other-name", "identity() is serializable", "OtherName", says="'other-name'; 'sound'"),
    Flaw("dataset", "elsewhere", "provision() is complete", "Elsewhere", says="a folder below"),
    Flaw("dataset", "unobtainable", "provision() is complete", "Unobtainable", says="a download or instructions"),
    Flaw("dataset", "content", "missing files raise an FgvcError", "Content", says="it opens without them"),
    Flaw("dataset", "wordy", "missing files raise an FgvcError", "Wordy", says="one line"),
    # explainers
    Flaw("explainer", "writing", "has no side effects", "Writing", says="unchanged images"),
    Flaw("explainer", "switching", "has no side effects", "Switching", says="an unchanged gradient mode"),
    Flaw("explainer", "moving", "has no side effects", "Moving", says="unchanged weights and buffers"),
    Flaw("explainer", "sleeping", "has no side effects", "Sleeping", says="unchanged modes"),
    Flaw("explainer", "spilling", "explains pim", "Spilling", says="no .grad"),
    Flaw("tracker", "editing", "writes only to its own folder", "Editing", says="an unchanged config.toml"),
    # specs
    Flaw(
        "head", "long-winded", "summary is one line", "Infinite", {"summary": "x" * 130}, says="it has 130 characters"
    ),
    Flaw(
        "head", "red", "summary is one line", "Infinite", {"summary": "\x1b[31mred"}, says="without control characters"
    ),
    Flaw(
        "head",
        "unequal",
        "defaults survive a TOML round trip",
        "Infinite",
        {"options": "fgvc_flawed.options:Unequal"},
        says="width was 3 and became '3'",
    ),
    Flaw("head", "constant", "target can be imported and called", "CONSTANT", says="it is a int"),
    Flaw(
        "head", "positional", "target can be imported and called", "Positional", says="its signature is (info, number,"
    ),
    Flaw("head", "moody/1", "family resolves its members", says="one spec for one name"),
]
