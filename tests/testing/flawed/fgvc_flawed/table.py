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

ROWS = """
head | no-class | predict returns a score per class | NoClass |
head | dice-weights | initialization is reproducible | DiceWeights |
head | relative | scores do not depend on the batch | Relative |
head | blind | scores depend on the image | Blind |
head | always-dropping | evaluation is deterministic and stateless | AlwaysDropping |
head | forgetful | state dict restores the scores | Forgetful |
head | greedy | reads() matches what the losses use | Greedy |
head | misplaced | cam_map() is among the maps it reads | Misplaced |
head | flipping | first forward pass is over the unchanged images | Flipping |
head | shifting | unchanged_images is accurate | Shifting | changes its images
head | peeking | unchanged_images is accurate | Peeking | do not depend on pixels
head | claiming | published() ignores other checkpoints | Claiming |
head | one-note | notes() returns single lines | OneNote |
head | glaring | attention maps are in [0, 1] | Glaring |
head | pyramid-only | works with token maps | PyramidOnly |
head | anchored | predict works on a GPU | Anchored |
head | ranging | trains on a GPU | Ranging |
head | waiting | predict does not synchronize with the device | Waiting |
head | not-scalar | objectives have finite scalar losses | NotScalar |
head | nothing-to-do | objectives have finite scalar losses | NothingToDo |
head | hard | objectives accept soft targets | Hard |
head | idle-layer | every parameter gets a gradient | IdleLayer |
head | idle-on-tokens | every parameter gets a gradient on token maps | IdleOnTokens |
head | uphill | loss decreases on one batch | Uphill |
head | dice | training is reproducible | Dice |
head | unrepeatable | fit scores its own images | Unrepeatable | equal state from fitting twice
head | not-adding | adds classes or refuses | NotAdding | 6 classes after add_classes
head | counting | second evaluation gives the same loss | Counting |
head | unsteady | supports gradient accumulation | Unsteady |
head | exact | trains under bf16 autocast | Exact |
head | in-place | does not modify its batch | InPlace |
head | waiting-loss | training does not synchronize with the device | WaitingLoss |
head | cut | is explained by gradcam | Cut |
head | once | trains with sam | Once |
backbone | misnamed | reports its name, input size and normalization | Misnamed |
backbone | wide | features have the shapes in info | Wide |
backbone | strided | strides match the spec and the grids |  |
backbone | generous | returns only the requested features | Generous |
backbone | relative | features do not depend on the batch | Relative |
backbone | dice-weights | initialization is reproducible | DiceWeights |
backbone | forgetful | state dict restores the features | Forgetful |
backbone | exact | works under bf16 autocast | Exact |
backbone | viewing | works with channels-last memory format | Viewing |
backbone | anchored | works on a GPU | Anchored |
backbone | any-size | accepts or refuses any image size | AnySize |
backbone | boastful | pretrained weights match the spec |  |
backbone | waiting | forward does not synchronize with the device | Waiting |
backbone | unpruned | every parameter left by prune gets a gradient | Unpruned |
backbone | unpruned-shallow | pruning to a shallow map saves parameters | Unpruned |
backbone | hacked | prune keeps the features | Hacked |
backbone | looking | prune works under torch.no_grad() | Looking |
backbone | full-size | info_at() describes the features at another size | FullSize |
backbone | upside-down | layer_depths() groups every parameter, shallow first | UpsideDown | from shallow to deep
backbone | ungrouped | layer_depths() groups every parameter, shallow first | Ungrouped |
backbone | mislaid | cam_layer() returns usable layers | Mislaid |
backbone | aside | cam_layer() returns usable layers | Aside |
backbone | narrow | trains with pim | Narrow |
optimizer | one-rate | has learning rates for backbone and head | OneRate |
optimizer | compounding | set_rate() scales the learning rates | Compounding |
optimizer | pretending | each part uses its own learning rate | Pretending |
optimizer | flat | each layer uses its own learning rate | Flat |
optimizer | straying | step updates exactly the parameters with gradients | Straying |
optimizer | half | step updates exactly the parameters with gradients | Half |
optimizer | climbing | loss decreases | Climbing |
optimizer | reckless | skips steps with non-finite gradients | Reckless |
optimizer | twice | number of evaluations matches the spec |  |
optimizer | last | number of evaluations matches the spec | Last |
optimizer | still | moves_without_grad is accurate | Still |
optimizer | picky | works with every single-pass base | Picky |
optimizer | open | refuses a base that evaluates twice | Open |
optimizer | waiting | step does not synchronize with the device | Waiting |
optimizer | strange | state can be serialized | Strange |
optimizer | forgetful | resumes bit for bit | Forgetful |
optimizer | weak | trains linear | Weak |
dataset | test-first | splits start with train and are not empty | TestFirst |
dataset | downloading | splits start with train and are not empty | Downloading |
dataset | namesakes | class names are unique | Namesakes |
dataset | beyond | labels index the class names | Beyond |
dataset | absent-class | labels index the class names | AbsentClass |
dataset | one-key | keys are unique | OneKey |
dataset | floating | images can be read | Floating |
dataset | shuffled | opening it again gives the same data | Shuffled |
dataset | leaking | splits share no image | Leaking |
dataset | redrawn | splits share no image | Redrawn |
dataset | outside | part boxes are inside the images | Outside |
dataset | unspeakable | identity() is serializable | Unspeakable |
dataset | needless | provision() is complete | Needless |
dataset | unchecked | provision() is complete | Unchecked |
dataset | crashing | missing files raise an FgvcError | Crashing |
dataset | lonely | a classifier can train on it | Lonely |
explainer | raw | returns one map per image in [0, 1] | Raw |
explainer | shared | maps do not depend on the batch | Shared |
explainer | remembering | keeps no state between calls | Remembering |
explainer | grads | has no side effects | Grads |
explainer | frozen | has no side effects | Frozen |
explainer | hooked | has no side effects after an error | Hooked |
explainer | edges | maps depend on the weights | Edges |
explainer | knowing | maps depend on the weights |  |
explainer | coarse | works under bf16 autocast | Coarse |
explainer | one-note | notes() returns single lines | OneNote |
explainer | waiting | explain does not synchronize with the device | Waiting |
explainer | mapped | explains linear | Mapped |
tracker | failing | logs a complete run | Failing |
tracker | expecting | accepts missing metrics | Expecting |
tracker | hopeful | handles interruption and resuming | Hopeful |
tracker | early | writes nothing before started() | Early |
tracker | sprawling | writes only to its own folder | Sprawling |
tracker | popping | does not modify its arguments | Popping |
exporter | shifted | computes the scores of the classifier | Shifted |
exporter | fixed | computes the scores of the classifier | Fixed | for 1 images
exporter | coarse | writes every precision of its spec | Coarse | (int8)
exporter | nameless | returns the document | Nameless |
exporter | sidecar | writes one file | Sidecar | weights.bin
exporter | awake | does not change the network | Awake | mode of
exporter | trusting | refuses damaged files | Trusting | an FgvcError
exporter | chatty | its script predicts the same | Chatty | separated by tabs
exporter | crashing | its script predicts the same | Crashing | a script that runs
launcher | in-process | calls the work of each run once | InProcess | shared one
launcher | quiet | reports work that did not return | Silent | one line
launcher | sweeping | cancels runs | Sweeping |
launcher | blaming | cancels runs | Blaming |
launcher | leaving | leaves no process behind | Leaving |
launcher | trusting | checks the study folder | Trusting | start() returned
recipe | no-toml | can be parsed |  |
recipe | no-head | components are registered |  |
recipe | no-option | settings are valid |  |
recipe | gpu-option | settings are valid |  |
recipe | no-condition | conditions are valid |  |
study | no-cells | can be parsed |  | under [[cells]]
study | unknown-head | can be parsed |  | nobody-has-this
study | unknown-option | settings are valid |  | fpn_sizes
study | repeated | combinations are distinct |  | 3 distinct combinations; 2
head | linear | name is unique |  |
head | silent | summary is one line |  |
head | no-help | options are documented |  |
head | thawed | options are documented |  |
head | zero | defaults survive a TOML round trip |  |
head | no-target | target can be imported and called | Nowhere |
head | no-options | options are documented |  |
head | unbuilt | predict returns a score per class | Unbuilt |
head | infinite | predict returns a score per class | Infinite | finite scores
head | heavy-options | registers without importing torch |  |
head | any/flawed | family resolves its members |  |
head | reading-beyond | reads() matches what the losses use | ReadingBeyond | reads() returned [9]
head | infinite-loss | objectives have finite scalar losses | InfiniteLoss | a finite loss; it is inf
backbone | brittle | accepts or refuses any image size | Brittle | it raised ZeroDivisionError
backbone | strange-module | cam_layer() returns usable layers | StrangeModule | a submodule of the backbone
optimizer | poisoned | skips steps with non-finite gradients | Poisoned | finite parameters in the step after
optimizer | giving-up | skips steps with non-finite gradients | GivingUp | none does
dataset | content | missing files raise an FgvcError | Content | it opens without them
explainer | writing | has no side effects | Writing | unchanged images
explainer | switching | has no side effects | Switching | an unchanged gradient mode
explainer | moving | has no side effects | Moving | unchanged weights and buffers
explainer | sleeping | has no side effects | Sleeping | unchanged modes
tracker | editing | writes only to its own folder | Editing | an unchanged config.toml
head | red | summary is one line |  | without control characters
"""
"""Kind, name, check, class (default: Sound) and part of the reason."""

SPECS = {
    "backbone strided": {"strides": (4, 8, 16, 32)},
    "backbone boastful": {"pretrained": "sound.in1k"},
    "head unrepeatable": {"fitted": True},
    "head not-adding": {"fitted": True},
    "optimizer twice": {"passes": 2},
    "optimizer last": {"passes": 2},
    "optimizer picky": {"base": "sgd"},
    "optimizer open": {"base": "sgd"},
    "dataset leaking": {"reads_folder": True},
    "explainer knowing": {"baseline": True},
    "exporter coarse": {"precisions": ("fp32", "int8")},
    "head silent": {"summary": ""},
    "head no-help": {"options": "fgvc_flawed.options:NoHelp"},
    "head thawed": {"options": "fgvc_flawed.options:Thawed"},
    "head zero": {"options": "fgvc_flawed.options:Out"},
    "head no-options": {"options": "fgvc_flawed.options:Nowhere"},
    "head heavy-options": {"options": "fgvc_flawed.heads:HeavyOptions"},
    "head red": {"summary": "\x1b[31mred"},
}
"""Fields of specs that differ from those of the sound component."""


def _flaw(row):
    kind, name, check, made_by, says = (cell.strip() for cell in f"{row} |".split("|")[:5])
    return Flaw(kind, name, check, made_by or "Sound", SPECS.get(f"{kind} {name}", {}), says)


FLAWS = [_flaw(row) for row in ROWS.strip().splitlines()]
