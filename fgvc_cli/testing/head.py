"""Contract checks of heads."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fgvc_cli.contracts import BackboneInfo, Classifier, Features, Head, Loss, Objective, Reads
from fgvc_cli.errors import UsageError
from fgvc_cli.specs import HeadSpec
from fgvc_cli.testing.check import Check, Checks, ContractBroken, NotApplicable, expect, some
from fgvc_cli.testing.models import (
    changed,
    classifier_of,
    copied_state,
    lively,
    saved_state,
    trainable,
    update_of,
    walk,
    watched,
)
from fgvc_cli.testing.simulated_device import WHY, expect_moves
from fgvc_cli.testing.subject import Subject
from fgvc_cli.testing.tiny import (
    CLASSES,
    TinyBackbone,
    TinyConvolutional,
    TinyTokens,
    Twice,
    groups_of,
    images_of,
    isolated,
    labels_of,
    probabilities_of,
    tiny_sgd,
)
from fgvc_cli.testing.waiting import WaitWatch

IMAGES = 4
"""Images of a batch: with fewer, batch normalization has little to work on."""


@dataclass(frozen=True)
class HeadSubject:
    """A head and where it is checked: on the first of the kit's backbones that it takes."""

    subject: Subject

    @property
    def spec(self) -> HeadSpec:
        """What its plugin says of it."""
        return cast(HeadSpec, self.subject.component.spec)

    def make(self, info: BackboneInfo) -> Head:
        """Build it with random weights."""
        options = self.subject.options()
        head: Head = self.subject.make(Head, backbone=info, classes=CLASSES, options=options)
        return head

    def classifier(self, backbone: TinyBackbone | None = None, seed: int = 0) -> Classifier:
        """Put it on a backbone (by default: the one it is checked on), weights by a seed."""
        torch.manual_seed(seed)
        return classifier_of(self.home() if backbone is None else backbone, self.make)

    def lively(self) -> Classifier:
        """Put it on that backbone, in evaluation mode, with weights that tell images apart."""
        classifier = self.classifier()
        lively(classifier)
        return classifier.eval()

    def home(self) -> TinyBackbone:
        """Make the backbone that it is checked on.

        Raises:
            ContractBroken: it takes neither.
        """
        if isinstance(self._home, str):
            raise ContractBroken("a head that works on four small feature maps", self._home, _FIT)
        return self._home()

    def takes(self, backbone: type[TinyBackbone]) -> None:
        """Raise `NotApplicable` if it does not work with one of the kit's backbones, saying why."""
        if refusal := self._refusal(backbone):
            raise NotApplicable(refusal)

    def batch(self, images: int = IMAGES, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Return images of the size of that backbone, and class indices."""
        return images_of(images, self.home().info.image_size, seed), labels_of(images)

    @cached_property
    def _home(self) -> type[TinyBackbone] | str:
        tried: Sequence[type[TinyBackbone]] = (TinyConvolutional, TinyTokens)
        refusals = [self._refusal(backbone) for backbone in tried]
        fitting = [b for b, refusal in zip(tried, refusals, strict=True) if not refusal]
        return fitting[0] if fitting else f"it refuses both of the kit's backbones: {'; '.join(refusals)}"

    def _refusal(self, backbone: type[TinyBackbone]) -> str:
        info = backbone().info
        if not self.spec.accepts(tuple(m.stride for m in info.maps)):
            different = " of different stride" if self.spec.distinct_strides else ""
            return f"its spec asks for {self.spec.maps} maps{different}, and {info.name} has not as many"
        try:
            self.make(info)
        except UsageError as error:
            return str(error)
        return ""


_FIT = "let it take small maps, or give contract() the options with which it does"


TRAINING: Checks[HeadSubject] = Checks()

UPDATES = 16
"""Updates after which the loss on one batch must have fallen."""


@TRAINING(
    "it says what to minimize", "The host minimizes each objective with one optimizer step, and logs what it says."
)
def objectives(head: HeadSubject) -> None:
    """Each objective has images, and a loss that is a finite scalar with a gradient; scores and parts are usable."""
    images, targets = head.batch()
    _expect_objectives(head, images, targets)


@TRAINING("targets may be probabilities", "Label smoothing and mixing hand B,K probabilities to a head.")
def soft_targets(head: HeadSubject) -> None:
    """The same, with targets B,K."""
    images, targets = head.batch()
    _expect_objectives(head, images, probabilities_of(len(targets)))


@TRAINING(
    "gradients reach every parameter",
    "A parameter without one is never trained, and stops training on several GPUs.",
)
def gradients(head: HeadSubject) -> None:
    """Over an update, each parameter of the head, and of the pruned backbone, has a gradient at least once."""
    _expect_gradients(head.classifier(), *head.batch())


@TRAINING("gradients reach every parameter on tokens", "Maps of one stride may take another way through a head.")
def gradients_on_tokens(head: HeadSubject) -> None:
    """The same on maps that share a stride, if it takes them."""
    head.takes(TinyTokens)
    _expect_gradients(head.classifier(TinyTokens()), *head.batch())


@TRAINING("it learns", f"On one batch of four images, {UPDATES} updates are plenty to learn something.")
def learns(head: HeadSubject) -> None:
    """What it minimizes falls, and with it the cross entropy of the scores that it shows while it trains."""
    classifier, batch = head.classifier(), head.batch()
    update = update_of(classifier, tiny_sgd(groups_of(classifier.backbone, classifier.head), lr=0.01))
    steps = [[loss for step in update([batch]) for loss in step.losses] for _ in range(UPDATES)]
    curves = {"what it minimizes": [sum(float(loss.value.detach()) for loss in losses) for losses in steps]}
    shown = [
        [cross_entropy(loss.scores.detach().float(), batch[1]) for loss in losses if loss.scores is not None]
        for losses in steps
    ]
    if all(shown):
        curves["the cross entropy of its scores"] = [float(sum(values)) for values in shown]
    for what, curve in curves.items():
        last = sum(curve[-4:]) / 4
        expect(
            last < curve[0],
            f"{what} to fall in {UPDATES} updates on one batch",
            f"it went from {curve[0]:.3g} to {last:.3g}",
            "look for a wrong sign, a detached tensor or targets that do not go with their images",
        )


@TRAINING("the same seed trains the same", "A resumed run puts back torch's generators, and no others.")
def same_training(head: HeadSubject) -> None:
    """Two trainings from one seed give equal weights, whatever other generators hold."""
    states = []
    for other in (1, 2):
        random.seed(other)
        np.random.seed(other)
        classifier, batch = head.classifier(seed=3), head.batch()
        update = update_of(classifier)
        for _ in range(3):
            update([batch])
        states.append(copied_state(classifier))
    differing = changed(*states)
    expect(
        not differing,
        "equal weights after equal trainings",
        f"{some(differing)} differ",
        "draw random choices with torch (torch.rand), neither with random nor with numpy",
    )


@TRAINING(
    "a second look is like the first", "SAM evaluates an objective twice; nothing may be left from the first time."
)
def twice(head: HeadSubject) -> None:
    """Evaluated again at the same weights, an objective has the same loss."""
    classifier, batch = head.classifier(), head.batch()
    groups = groups_of(classifier.backbone, classifier.head)
    optimizer = Twice(groups, None, tiny_sgd(groups))
    update = update_of(classifier, optimizer)
    for _ in range(2):
        update([batch])
    for first, second in optimizer.pairs:
        losses = [float(evaluation.losses[0].value.detach()) for evaluation in (first, second)]
        expect(
            losses[0] == losses[1],
            "the same loss when an objective is evaluated again at the same weights",
            f"it was {losses[0]:.6g} and then {losses[1]:.6g}",
            "let loss and forward keep nothing from call to call; choose once, before the yield",
        )


@TRAINING("a micro-batch goes with others", "Accumulation advances the generators of several batches together.")
def accumulation(head: HeadSubject) -> None:
    """Two batches in one update: equally many objectives, a finite loss for each batch."""
    classifier, (images, targets) = head.classifier(), head.batch()
    steps = update_of(classifier)([(images[:2], targets[:2]), (images[2:], targets[2:])])
    finite = all(bool(loss.value.isfinite()) for step in steps for loss in step.losses)
    expect(finite, "finite losses of two micro-batches of two images", "some are not", _FINITE)


@TRAINING("it trains in bf16", "On a GPU the forward pass runs under autocast: losses want float32 (.float()).")
def autocast(head: HeadSubject) -> None:
    """An update under autocast leaves finite losses and weights, and predict finite scores."""
    classifier, batch = head.classifier(), head.batch()
    update = update_of(classifier, autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    losses = [loss.value for _ in range(2) for step in update([batch]) for loss in step.losses]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores = classifier.eval().scores(batch[0])
    finite = all(bool(value.isfinite().all()) for value in (*losses, scores, *copied_state(classifier).values()))
    expect(finite, "finite losses, weights and scores under bf16 autocast", "some are not", _FINITE)


@TRAINING("it trains on a GPU as well", WHY)
def trains_on_device(head: HeadSubject) -> None:
    """Its objectives and losses make no tensor on the CPU that meets one which is not."""

    def losses(classifier: Any, images: Tensor, targets: Tensor) -> None:
        for _ in walk(classifier, images, targets):
            pass

    expect_moves(head.classifier().train(), losses, *head.batch())


@TRAINING("it leaves its batch alone", "The host shows the same images and targets to other micro-batches and metrics.")
def batch_untouched(head: HeadSubject) -> None:
    """An update writes neither into the images nor into the targets."""
    classifier, (images, targets) = head.classifier(), head.batch()
    given = images.clone(), targets.clone()
    update_of(classifier)([(images, targets)])
    expect(
        torch.equal(images, given[0]) and torch.equal(targets, given[1]),
        "images and targets as they were given",
        "an update writes into them",
        "clone before writing in place",
    )


@TRAINING(
    "an update does not wait for the device",
    "Each value that is read off a GPU (.item(), nonzero, a mask as index) lets it run dry.",
    advisory=True,
)
def trains_without_sync(head: HeadSubject) -> None:
    """No operation of an update reads a value off the device; a choice that is drawn on the CPU may be read."""
    classifier, batch = head.classifier(), head.batch()
    classifier.train()
    with WaitWatch() as watch:
        for _, _, loss in walk(classifier, *batch):
            loss.value.backward()
    watch.expect_none()


def _expect_gradients(classifier: Classifier, images: Tensor, targets: Tensor) -> None:
    optimizer = watched(classifier)
    update_of(classifier, optimizer)([(images, targets)])
    without = [name for name in trainable(classifier) if name not in optimizer.reached]
    expect(
        not without,
        "a gradient for every parameter in some objective of an update",
        f"{some(without)} {'has' if len(without) == 1 else 'have'} none",
        "drop what no loss depends on, freeze it (requires_grad_(False)), or name less in reads()",
    )
    expect(not optimizer.unfit, "finite gradients", f"those of {some(sorted(optimizer.unfit))} are not", _FINITE)


def _expect_objectives(head: HeadSubject, images: Tensor, targets: Tensor) -> None:
    classifier = head.classifier().train()
    names = []
    for objective, _, loss in walk(classifier, images, targets):
        _expect_idle(objective)
        _expect_loss(objective, loss)
        names.append(objective.name)
    expect(bool(names), "at least one objective", "objectives() yields none", "yield an Objective")
    expect(
        len(set(names)) == len(names),
        "a name of its own for each objective",
        f"they are called {names}",
        "give Objective(name=...) where there are several: the log goes by it",
    )


def _expect_idle(objective: Objective) -> None:
    expect(
        objective.missing_grad in ("skip", "zero"),
        "missing_grad to be 'skip' or 'zero'",
        f"it is {objective.missing_grad!r}",
        "choose one",
    )


def _expect_loss(objective: Objective, loss: Any) -> None:
    expect(isinstance(loss, Loss), "a Loss from an objective's loss function", f"{type(loss).__name__}", "return one")
    value, fits = loss.value, isinstance(loss.value, Tensor) and loss.value.ndim == 0
    expect(fits, "a scalar loss", f"it is {getattr(value, 'shape', type(value).__name__)}", "take the mean")
    expect(bool(value.isfinite()), "a finite loss", f"it is {float(value.detach())}", _FINITE)
    expect(value.requires_grad, "a loss with a gradient", "it has none", "do not detach what it is computed from")
    if loss.scores is not None:
        shape = (len(objective.images), CLASSES)
        expect(loss.scores.shape == shape, f"scores of shape {shape} in the Loss", f"{tuple(loss.scores.shape)}", _SHOW)
    _expect_each(loss, "parts", lambda part: isinstance(part, Tensor) and part.ndim == 0 and not part.requires_grad)


def _expect_each(loss: Loss, what: str, fits: Callable[[Any], bool]) -> None:
    wrong = [name for name, part in loss.parts.items() if not fits(part)]
    expect(not wrong, f"detached scalar tensors as {what} of a Loss", f"{some(wrong)} are not", "write part.detach()")


_FINITE = "look for a division by zero, a logarithm of 0, or half precision where .float() belongs"
_SHOW = "return class scores for the training metrics, or None"


SAYING: Checks[HeadSubject] = Checks()


@SAYING("it reads what it says", "The backbone computes and trains what reads() names: no more, no less.")
def reads(head: HeadSubject) -> None:
    """Indices that exist, ascending; and predict makes use of each, or some objective does."""
    classifier = head.classifier()
    whole, offered = classifier.head.reads(), len(head.home().info.maps)
    expect(
        isinstance(whole, Reads) and list(whole.maps) == sorted(set(whole.maps)),
        "reads() to return a Reads with ascending indices of maps",
        f"it returns {whole!r}",
        "name each map once, shallow first",
    )
    expect(
        all(0 <= index < offered for index in whole.maps),
        f"indices of maps from 0 to {offered - 1}",
        f"reads() names {list(whole.maps)}",
        "count from 0, among backbone.maps",
    )
    expect(
        bool(whole.maps) or whole.embedding,
        "a head that reads something of the backbone",
        "reads() names no map and no embedding",
        "name what forward uses",
    )
    unused = _unused(head, whole)
    expect(
        not unused,
        "every map that reads() names to matter to a loss",
        f"{', '.join(unused)} {'does' if len(unused) == 1 else 'do'} not",
        "leave it out of reads(), so that the backbone neither computes nor trains it",
    )


@SAYING("its score is read where it says", "Grad-CAM takes its maps where cam_map() points.")
def cam_map(head: HeadSubject) -> None:
    """cam_map() is among what it reads."""
    classifier = head.classifier()
    index, whole = classifier.head.cam_map(), classifier.head.reads()
    expect(
        whole.embedding if index is None else index in whole.maps,
        "cam_map() to name a map that it reads (or None, if it reads the embedding)",
        f"it returns {index!r}, and reads() is {whole}",
        "return the index of the map that the prediction's score is read from",
    )


@SAYING("its first pass is over the images", "Explainers take maps and gradients in the first pass that predict makes.")
def first_pass(head: HeadSubject) -> None:
    """Where predict takes several passes through the model, the first one is over the images as they are."""
    classifier, (images, _) = head.lively(), head.batch()
    seen: list[Tensor] = []
    handle = classifier.backbone.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    try:
        with torch.no_grad():
            classifier.scores(images)
    finally:
        handle.remove()
    expect(
        bool(seen) and torch.equal(seen[0], images),
        "the first pass of predict to be over the images as they are",
        f"it is over others, of shape {tuple(seen[0].shape)}" if seen else "predict does not call the model",
        "begin with model(images), and show the model crops and other views after that",
    )


@SAYING("it knows its published weights", "`--weights FILE` shows the head any state dict; None if it is not its own.")
def published(head: HeadSubject) -> None:
    """published() has nothing to say of a state dict that nobody's method saved."""
    found = head.classifier().head.published({"an entry of nothing": torch.zeros(2, 2)})
    expect(
        found is None,
        "None from published() for a state dict of nothing",
        f"a {type(found).__name__}",
        "look for entries that only the method's public code has, and return None without them",
    )


@SAYING("its notes are lines", "The host prints them before training.")
def notes(head: HeadSubject) -> None:
    """notes() is a list of one-line texts."""
    found = head.classifier().head.notes()
    expect(
        isinstance(found, list) and all(isinstance(line, str) and "\n" not in line for line in found),
        "a list of lines from notes()",
        f"it returns {found!r}",
        "return a list of strings without line breaks",
    )


@SAYING("its attention lies in [0, 1]", "The explainer that shows a head's own attention draws it as it is.")
def attention(head: HeadSubject) -> None:
    """Maps B,S,S float32 without gradient, if it has any."""
    classifier, (images, _) = head.lively(), head.batch()
    found = classifier.head.attention(classifier, images)
    if found is None:
        raise NotApplicable("it shows no attention of its own")
    shape = (len(images), *images.shape[-2:])
    expect(
        isinstance(found, Tensor) and found.shape == shape and found.dtype == torch.float32,
        f"attention maps of shape {shape}, float32",
        f"it returns {described(found)}",
        "return one map an image, of the image's size",
    )
    expect(not found.requires_grad, "attention without gradient", "it carries one", "compute it under torch.no_grad()")
    low, high = float(found.min()), float(found.max())
    expect(
        low >= 0 and high <= 1, "values in [0, 1]", f"they go from {low:.3g} to {high:.3g}", "scale each map to [0, 1]"
    )


def _unused(head: HeadSubject, whole: Reads) -> list[str]:
    """Name the features that reads() names and no objective's loss depends on."""
    classifier, (images, targets) = head.classifier().train(), head.batch()
    used: set[str] = set()
    leaves: dict[str, Tensor] = {}

    def as_leaves(features: Features) -> Features:
        leaves.clear()
        maps = {index: value.detach().requires_grad_() for index, value in features.maps.items()}
        leaves.update({f"map {index}": value for index, value in maps.items()})
        if features.embedding is None:
            return Features(maps, None)
        leaves["the embedding"] = features.embedding.detach().requires_grad_()
        return Features(maps, leaves["the embedding"])

    handle = classifier.backbone.register_forward_hook(lambda _module, _given, output: as_leaves(output))
    try:
        for _, _, loss in walk(classifier, images, targets):
            gradients = torch.autograd.grad(loss.value, list(leaves.values()), allow_unused=True)
            used |= {name for name, gradient in zip(leaves, gradients, strict=True) if gradient is not None}
    finally:
        handle.remove()
    named = [*(f"map {index}" for index in whole.maps), *(["the embedding"] if whole.embedding else [])]
    return [name for name in named if name not in used]


SCORING: Checks[HeadSubject] = Checks()

ROUNDING = 1e-4
"""How much scores may differ by the order of their sums."""


def checks(subject: Subject) -> Iterator[Check]:
    """Return the checks of a head."""
    pass
    pass
    head = HeadSubject(subject)
    found = [*SCORING.of(head), *SAYING.of(head), *TRAINING.of(head)]
    for check in found:
        yield Check(check.title, check.about, isolated(check.run), check.advisory)


@SCORING("it scores every class", "predict must return B,K numbers: their softmax is the prediction.")
def scores(head: HeadSubject) -> None:
    """B,K floating-point scores, for one image too."""
    classifier = head.classifier().eval()
    for count in (IMAGES, 1):
        found = classifier.scores(head.batch(count)[0])
        _expect_scores(found, count)


@SCORING("the same seed makes the same head", "A run is repeated from its seed; torch's generators are what it sets.")
def same_seed(head: HeadSubject) -> None:
    """Weights come from torch's generator alone."""
    states = []
    for other in (1, 2):
        random.seed(other)
        np.random.seed(other)
        states.append(copied_state(head.classifier(seed=7)))
    differing = changed(*states)
    expect(
        not differing,
        "equal weights from equal seeds",
        f"{some(differing)} differ",
        "draw initial weights with torch, neither with random nor with numpy",
    )


@SCORING("an image is scored alone", "What an image is taken for must not depend on what it is shown together with.")
def alone(head: HeadSubject) -> None:
    """In evaluation mode a batch is scored as its images one by one."""
    classifier, (images, _) = head.lively(), head.batch()
    with torch.no_grad():
        together = classifier.scores(images)
        apart = torch.cat([classifier.scores(image[None]) for image in images])
    worst = float((together - apart).abs().max())
    expect(
        worst <= ROUNDING * max(1.0, float(apart.abs().max())),
        "the same scores for an image in any batch",
        f"they differ by up to {worst:.2g} from those of the image alone",
        "use no statistics of the batch in evaluation mode",
    )


@SCORING("images are told apart", "A head whose scores do not depend on the image learns the class frequencies alone.")
def sees(head: HeadSubject) -> None:
    """Different images have different scores."""
    classifier, (images, _) = head.lively(), head.batch()
    with torch.no_grad():
        found = classifier.scores(images)
    expect(
        bool((found - found[:1]).abs().amax() > 0),
        "other scores for other images",
        "all images of a batch have the same",
        "let the scores follow from the features",
    )


@SCORING("evaluation changes nothing", "Scoring twice must give the same: no dropout, no running statistics.")
def repeatable(head: HeadSubject) -> None:
    """In evaluation mode predict draws nothing and leaves parameters and buffers alone."""
    classifier, (images, _) = head.lively(), head.batch()
    before = copied_state(classifier)
    with torch.no_grad():
        first, second = classifier.scores(images), classifier.scores(images)
    moved = changed(before, copied_state(classifier))
    expect(not moved, "weights and buffers as they were", f"predict changes {some(moved)}", _EVALUATION)
    expect(torch.equal(first, second), "equal scores of equal images", "a second call gives others", _EVALUATION)


@SCORING("a saved head is the head", "model.safetensors holds state_dict() alone: what is not in it is lost.")
def state_round_trip(head: HeadSubject) -> None:
    """After some training, its state dict makes another one score alike."""
    trained, (images, targets) = head.classifier(), head.batch()
    update = update_of(trained)
    for _ in range(2):
        update([(images, targets)])
    other = head.classifier(seed=1)
    other.load_state_dict(saved_state(trained))
    with torch.no_grad():
        expected, found = trained.eval().scores(images), other.eval().scores(images)
    expect(
        torch.equal(expected, found),
        "the same scores from a head that loads its state dict",
        f"they differ by up to {float((expected - found).abs().max()):.2g}",
        "keep what it learns in parameters and buffers, not in plain attributes",
    )


@SCORING("it works on tokens", "Transformers have maps of one stride, and a head should say in its spec if it cannot.")
def tokens(head: HeadSubject) -> None:
    """It scores on maps that share a stride, if its spec does not ask for different ones."""
    head.takes(TinyTokens)
    classifier = head.classifier(TinyTokens()).eval()
    _expect_scores(classifier.scores(head.batch()[0]), IMAGES)


@SCORING("it scores on a GPU as well", WHY)
def scores_on_device(head: HeadSubject) -> None:
    """predict makes no tensor on the CPU that meets one which is not."""
    expect_moves(head.classifier().eval(), lambda classifier, images: classifier.scores(images), head.batch()[0])


@SCORING(
    "predict does not wait for the device",
    "Each value that is read off a GPU (.item(), nonzero, a mask as index) lets it run dry.",
    advisory=True,
)
def scores_without_sync(head: HeadSubject) -> None:
    """No operation of predict reads a value off the device."""
    classifier, (images, _) = head.lively(), head.batch()
    with torch.no_grad(), WaitWatch() as watch:
        classifier.scores(images)
    watch.expect_none()


def _expect_scores(found: object, count: int) -> None:
    fits = isinstance(found, Tensor) and found.shape == (count, CLASSES) and found.is_floating_point()
    expect(
        fits,
        f"floating-point scores of shape ({count}, {CLASSES}) for {count} images and {CLASSES} classes",
        f"predict returns {described(found)}",
        "return B,K scores, or override predict where forward puts out more than them",
    )
    assert isinstance(found, Tensor)
    expect(bool(found.isfinite().all()), "finite scores", "some are not", "look for a division by zero or a logarithm")


def described(found: object) -> str:
    """Say what was found where a tensor is meant."""
    return f"{found.dtype} of shape {tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"


_EVALUATION = "draw and count only while self.training"
