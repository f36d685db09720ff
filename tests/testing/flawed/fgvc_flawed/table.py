"""Which component has which flaw, and which check has to find it."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Flaw:
    """A component with one flaw.

    Attributes:
        kind: of the component.
        name: of the component.
        check: the title of the check that finds it.
        made_by: its class.
        spec: what its spec says otherwise than that of the sound one.
        says: words of the reason that is found.
        module: what the module of its class is called after its kind.
    """

    kind: str
    name: str
    check: str
    made_by: str = "Sound"
    spec: dict[str, Any] = field(default_factory=dict)
    says: str = ""
    module: str = "s"

    @property
    def target(self) -> str:
        return f"fgvc_flawed.{self.kind}{self.module}:{self.made_by}"


SOUND = [Flaw("dataset", "made", "", "made"), Flaw("head", "on-the-cpu", "", "OnTheCpu")]
"""Without a flaw, though it may look like one."""

FLAWS = [
    # heads
    Flaw("head", "no-class", "it scores every class", "NoClass"),
    Flaw("head", "dice-weights", "the same seed makes the same head", "DiceWeights"),
    Flaw("head", "relative", "an image is scored alone", "Relative"),
    Flaw("head", "blind", "images are told apart", "Blind"),
    Flaw("head", "always-dropping", "evaluation changes nothing", "AlwaysDropping"),
    Flaw("head", "forgetful", "a saved head is the head", "Forgetful"),
    Flaw("head", "greedy", "it reads what it says", "Greedy"),
    Flaw("head", "descending", "it reads what it says", "Descending"),
    Flaw("head", "misplaced", "its score is read where it says", "Misplaced"),
    Flaw("head", "flipping", "its first pass is over the images", "Flipping"),
    Flaw("head", "claiming", "it knows its published weights", "Claiming"),
    Flaw("head", "one-note", "its notes are lines", "OneNote"),
    Flaw("head", "glaring", "its attention lies in [0, 1]", "Glaring"),
    Flaw("head", "pyramid-only", "it works on tokens", "PyramidOnly"),
    Flaw("head", "anchored", "it scores on a GPU as well", "Anchored"),
    Flaw("head", "ranging", "it trains on a GPU as well", "Ranging"),
    Flaw("head", "waiting", "predict does not wait for the device", "Waiting"),
    Flaw("head", "not-scalar", "it says what to minimize", "NotScalar"),
    Flaw("head", "nothing-to-do", "it says what to minimize", "NothingToDo"),
    Flaw("head", "hard", "targets may be probabilities", "Hard"),
    Flaw("head", "idle-layer", "gradients reach every parameter", "IdleLayer"),
    Flaw("head", "idle-on-tokens", "gradients reach every parameter on tokens", "IdleOnTokens"),
    Flaw("head", "uphill", "it learns", "Uphill"),
    Flaw("head", "dice", "the same seed trains the same", "Dice"),
    Flaw("head", "counting", "a second look is like the first", "Counting"),
    Flaw("head", "unsteady", "a micro-batch goes with others", "Unsteady"),
    Flaw("head", "exact", "it trains in bf16", "Exact"),
    Flaw("head", "in-place", "it leaves its batch alone", "InPlace"),
    Flaw("head", "waiting-loss", "an update does not wait for the device", "WaitingLoss"),
    Flaw("head", "reading-loss", "an update does not wait for the device", "ReadingLoss"),
    Flaw("head", "cut", "gradcam explains it", "Cut"),
    Flaw("head", "once", "it trains by sam", "Once"),
    # backbones
    Flaw("backbone", "misnamed", "it says who it is", "Misnamed"),
    Flaw("backbone", "wide", "its maps are as it says", "Wide"),
    Flaw("backbone", "strided", "its strides are those of the spec", spec={"strides": (4, 8, 16, 32)}),
    Flaw("backbone", "generous", "it computes what is asked for", "Generous"),
    Flaw("backbone", "relative", "an image's features are its own", "Relative"),
    Flaw("backbone", "dice-weights", "the same seed makes the same backbone", "DiceWeights"),
    Flaw("backbone", "forgetful", "a saved backbone is the backbone", "Forgetful"),
    Flaw("backbone", "exact", "it computes in bf16", "Exact"),
    Flaw("backbone", "viewing", "it computes in channels-last", "Viewing"),
    Flaw("backbone", "anchored", "it computes on a GPU as well", "Anchored"),
    Flaw("backbone", "any-size", "it takes a size or refuses it", "AnySize"),
    Flaw("backbone", "boastful", "its published weights are as the spec says", spec={"pretrained": "sound.in1k"}),
    Flaw("backbone", "waiting", "it does not wait for the device", "Waiting"),
    Flaw("backbone", "unpruned", "gradients reach every parameter that is left", "Unpruned"),
    Flaw("backbone", "unpruned-shallow", "a shallow map costs less", "Unpruned"),
    Flaw("backbone", "hacked", "pruning changes no feature", "Hacked"),
    Flaw("backbone", "looking", "it is built where gradients are off", "Looking"),
    Flaw("backbone", "mislaid", "it names the modules that Grad-CAM hooks", "Mislaid"),
    Flaw("backbone", "aside", "it names the modules that Grad-CAM hooks", "Aside"),
    Flaw("backbone", "narrow", "pim trains on it", "Narrow"),
    # optimizers
    Flaw("optimizer", "one-rate", "it has a rate for each part", "OneRate"),
    Flaw("optimizer", "compounding", "the schedule sets its rates", "Compounding"),
    Flaw("optimizer", "pretending", "each part moves by its own rate", "Pretending"),
    Flaw("optimizer", "straying", "a step moves what has a gradient", "Straying"),
    Flaw("optimizer", "half", "a step moves what has a gradient", "Half"),
    Flaw("optimizer", "climbing", "steps lead downhill", "Climbing"),
    Flaw("optimizer", "reckless", "a bad gradient moves nothing", "Reckless"),
    Flaw("optimizer", "twice", "it evaluates as its spec says", spec={"passes": 2}),
    Flaw("optimizer", "last", "it evaluates as its spec says", "Last", {"passes": 2}),
    Flaw("optimizer", "still", "it says whether it coasts", "Still"),
    Flaw("optimizer", "picky", "it is built over any base of one pass", "Picky", {"base": "sgd"}),
    Flaw("optimizer", "open", "a base that looks twice is refused", "Open", {"base": "sgd"}),
    Flaw("optimizer", "waiting", "a step does not wait for the device", "Waiting"),
    Flaw("optimizer", "strange", "its state can be saved", "Strange"),
    Flaw("optimizer", "forgetful", "it goes on where it stopped", "Forgetful"),
    Flaw("optimizer", "weak", "it trains linear", "Weak"),
    # datasets
    Flaw("dataset", "test-first", "it has splits", "TestFirst"),
    Flaw("dataset", "downloading", "it has splits", "Downloading"),
    Flaw("dataset", "namesakes", "its classes have names", "Namesakes"),
    Flaw("dataset", "beyond", "its labels are classes", "Beyond"),
    Flaw("dataset", "absent-class", "its labels are classes", "AbsentClass"),
    Flaw("dataset", "one-key", "its keys tell images apart", "OneKey"),
    Flaw("dataset", "floating", "its images can be read", "Floating"),
    Flaw("dataset", "shuffled", "it is the same each time", "Shuffled"),
    Flaw("dataset", "leaking", "no image is in two splits", "Leaking", {"reads_folder": True}),
    Flaw("dataset", "redrawn", "no image is in two splits", "Redrawn"),
    Flaw("dataset", "outside", "its parts lie in its images", "Outside"),
    Flaw("dataset", "unspeakable", "it says where its images are from", "Unspeakable"),
    Flaw("dataset", "needless", "it says how its files are had", "Needless"),
    Flaw("dataset", "unchecked", "it says how its files are had", "Unchecked"),
    Flaw("dataset", "crashing", "what is not there is said", "Crashing"),
    Flaw("dataset", "lonely", "a classifier trains on it", "Lonely"),
    # explainers
    Flaw("explainer", "raw", "it gives a map an image", "Raw"),
    Flaw("explainer", "small", "it gives a map an image", "Small"),
    Flaw("explainer", "shared", "an image's map is its own", "Shared"),
    Flaw("explainer", "remembering", "it keeps nothing", "Remembering"),
    Flaw("explainer", "grads", "it leaves no trace", "Grads"),
    Flaw("explainer", "frozen", "it leaves no trace", "Frozen"),
    Flaw("explainer", "hooked", "it leaves no trace when something fails", "Hooked"),
    Flaw("explainer", "edges", "it depends on the model", "Edges"),
    Flaw("explainer", "knowing", "it depends on the model", spec={"baseline": True}),
    Flaw("explainer", "coarse", "it works under autocast", "Coarse"),
    Flaw("explainer", "one-note", "its notes are lines", "OneNote"),
    Flaw("explainer", "waiting", "it does not wait for the device", "Waiting"),
    Flaw("explainer", "mapped", "it explains linear", "Mapped"),
    # trackers
    Flaw("tracker", "failing", "it hears a training", "Failing"),
    Flaw("tracker", "expecting", "it hears of one without validation", "Expecting"),
    Flaw("tracker", "hopeful", "it hears of an end that is none", "Hopeful"),
    Flaw("tracker", "early", "it begins with the training", "Early"),
    Flaw("tracker", "sprawling", "it keeps to its own folder", "Sprawling"),
    Flaw("tracker", "popping", "it changes nothing it is told", "Popping"),
    # recipes
    Flaw("recipe", "no-toml", "it is read"),
    Flaw("recipe", "no-head", "its names are there"),
    Flaw("recipe", "no-option", "its settings fit"),
    Flaw("recipe", "gpu-option", "its settings fit"),
    Flaw("recipe", "no-condition", "its conditions fit"),
    Flaw("recipe", "pim-option", "its conditions fit"),
    Flaw("study", "no-cells", "it is read", says="under [[cells]]"),
    Flaw("study", "unknown-head", "it is read", says="nobody-has-this"),
    Flaw("study", "unknown-option", "its settings fit", says="fpn_sizes"),
    Flaw("study", "said-twice", "its combinations differ", says="3 combinations; 2 that differ"),
    # what every spec says
    Flaw("head", "linear", "it has a name of its own"),
    Flaw("head", "silent", "it has a summary", spec={"summary": ""}),
    Flaw("head", "no-help", "its options are documented", spec={"options": "fgvc_flawed.options:NoHelp"}),
    Flaw("head", "no-default", "its options are documented", spec={"options": "fgvc_flawed.options:NoDefault"}),
    Flaw("head", "thawed", "its options are documented", spec={"options": "fgvc_flawed.options:Thawed"}),
    Flaw("head", "zero", "its defaults are values that `--set` takes", spec={"options": "fgvc_flawed.options:Out"}),
    Flaw("head", "no-target", "its target is there", "Nowhere"),
    Flaw("head", "no-options", "its options are documented", spec={"options": "fgvc_flawed.options:Nowhere"}),
    Flaw("head", "unbuilt", "it scores every class", "Unbuilt"),
    Flaw("head", "heavy-options", "it registers without torch", spec={"options": "fgvc_flawed.heads:HeavyOptions"}),
    Flaw("head", "any/flawed", "its family knows its members"),
]  # fmt: skip
