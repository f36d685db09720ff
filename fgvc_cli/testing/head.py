"""Contract checks of heads."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from fgvc_cli.contracts import BackboneInfo, Classifier, Features, FittedHead, Head, Loss, Reads
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.specs import HeadSpec
from fgvc_cli.testing.check import Checks, ContractError, NotApplicable, expect, expect_lines, some
from fgvc_cli.testing.component import ComponentUnderTest
from fgvc_cli.testing.device import ABOUT_DEVICE, ABOUT_SYNC, SyncDetector, expect_device_independent
from fgvc_cli.testing.models import (
    changed,
    classifier_of,
    copied_state,
    describe,
    labeled_features,
    objectives_of,
    recording,
    saved_state,
    spread_scores,
    trainable,
    update_of,
)
from fgvc_cli.testing.tiny import (
    CLASSES,
    EvaluateTwice,
    TinyBackbone,
    TinyConvolutional,
    TinyTokens,
    groups_of,
    images_of,
    isolated,
    labels_of,
    probabilities_of,
    tiny_sgd,
)
from fgvc_cli.training.kept_features import FeatureModel

IMAGES = 4
"""Batch size: batch normalization needs more than one or two images."""

FITTED_IMAGES = 40
"""Number of images that a head is fitted to."""

UPDATES = 16
"""Updates after which the loss on one batch must have decreased."""

ROUNDING = 1e-4
"""Tolerance for scores, relative to the largest, from the order of summation."""

FINITE_FIX = "look for a division by zero, a logarithm of 0, or half precision where .float() is needed"
EVALUATION_FIX = "draw random numbers and update statistics only while self.training"


@dataclass(frozen=True)
class HeadUnderTest:
    """A head, checked on the first tiny backbone that it supports."""

    subject: ComponentUnderTest

    def make(self, info: BackboneInfo) -> Head:
        """Build the head with random weights."""
        head: Head = self.subject.make(Head, backbone=info, classes=CLASSES, options=self.subject.options())
        return head

    def backbone(self) -> TinyBackbone:
        """Return the backbone that the head is checked on.

        Raises:
            ContractError: the head supports none of the tiny backbones.
        """
        if isinstance(self._supported, str):
            fix = "support small maps, or give contract() options with which it does"
            raise ContractError("a head that works on four small feature maps", self._supported, fix)
        return self._supported()

    def require(self, backbone: type[TinyBackbone]) -> None:
        """Raise `NotApplicable` with the reason if the head does not support a tiny backbone."""
        if refusal := self._refusal(backbone):
            raise NotApplicable(refusal)

    def classifier(self, backbone: TinyBackbone | None = None, seed: int = 0) -> Classifier:
        """Put the head on a backbone (by default the one it is checked on), with seeded weights, or fit it."""
        torch.manual_seed(seed)
        classifier = classifier_of(self.backbone() if backbone is None else backbone, self.make)
        if isinstance(classifier.head, FittedHead):
            size = classifier.preprocessing.image_size
            images, labels = images_of(FITTED_IMAGES, size), labels_of(FITTED_IMAGES)
            expect_lines(classifier.head.fit(labeled_features(classifier, images, labels), None), "fit")
        return classifier

    def scoring_classifier(self) -> Classifier:
        """Return a classifier in evaluation mode whose scores differ between images."""
        classifier = self.classifier()
        spread_scores(classifier)
        return classifier.eval()

    def batch(self, images: int = IMAGES) -> tuple[Tensor, Tensor]:
        """Return images of that backbone's size, and class indices."""
        return images_of(images, self.backbone().info.image_size), labels_of(images)

    @cached_property
    def _supported(self) -> type[TinyBackbone] | str:
        refusals = []
        for backbone in (TinyConvolutional, TinyTokens):
            refusal = self._refusal(backbone)
            if not refusal:
                return backbone
            refusals.append(refusal)
        return f"it refuses both tiny backbones: {'; '.join(refusals)}"

    def _refusal(self, backbone: type[TinyBackbone]) -> str:
        info, spec = backbone().info, cast(HeadSpec, self.subject.component.spec)
        if not spec.accepts(tuple(m.stride for m in info.maps)):
            different = " of different stride" if spec.distinct_strides else ""
            return f"its spec requires {spec.maps} maps{different}, which {info.name} does not have"
        try:
            self.make(info)
        except UsageError as error:
            return str(error)
        return ""


CHECKS: Checks[HeadUnderTest] = Checks(HeadUnderTest, isolated)


@CHECKS("predict returns a score per class", "predict must return scores B,K: their softmax is the prediction.")
def scores(head: HeadUnderTest) -> None:
    """Finite floating-point scores B,K, also for a single image."""
    classifier = head.classifier().eval()
    for count in (IMAGES, 1):
        _expect_scores(classifier.scores(head.batch(count)[0]), count)


@CHECKS("initialization is reproducible", "Runs are repeated by their seed, which sets torch's generators.")
def same_seed(head: HeadUnderTest) -> None:
    """Equal torch seeds give equal weights."""
    states = []
    for other in (1, 2):
        random.seed(other)
        np.random.seed(other)
        states.append(copied_state(head.classifier(seed=7)))
    differing = changed(*states)
    fix = "initialize weights with torch, not with random or numpy"
    expect(not differing, "equal weights from equal seeds", f"{some(differing)} differ", fix)


@CHECKS("scores do not depend on the batch", "The prediction for an image must not change with its batch.")
def batch_independent(head: HeadUnderTest) -> None:
    """In evaluation mode, a batch has the scores of its images one by one."""
    classifier, (images, _) = head.scoring_classifier(), head.batch()
    with torch.no_grad():
        together = classifier.scores(images)
        apart = torch.cat([classifier.scores(image[None]) for image in images])
    worst = float((together - apart).abs().max())
    expect(
        worst <= ROUNDING * max(1.0, float(apart.abs().max())),
        "the same scores for an image in any batch",
        f"they differ by up to {worst:.2g} from those of the image alone",
        "use no batch statistics in evaluation mode",
    )


@CHECKS("scores depend on the image", "Constant scores can only learn the class frequencies.")
def image_dependent(head: HeadUnderTest) -> None:
    """Different images have different scores."""
    classifier, (images, _) = head.scoring_classifier(), head.batch()
    with torch.no_grad():
        found = classifier.scores(images)
    differ = bool((found - found[:1]).abs().amax() > 0)
    expect(differ, "different scores for different images", "all are equal", "compute the scores from the features")


@CHECKS("evaluation is deterministic and stateless", "Dropout and running statistics must be off in evaluation mode.")
def repeatable(head: HeadUnderTest) -> None:
    """In evaluation mode, predict repeats its scores and changes no parameter or buffer."""
    classifier, (images, _) = head.scoring_classifier(), head.batch()
    before = copied_state(classifier)
    with torch.no_grad():
        first, second = classifier.scores(images), classifier.scores(images)
    moved = changed(before, copied_state(classifier))
    expect(not moved, "unchanged weights and buffers", f"predict changes {some(moved)}", EVALUATION_FIX)
    expect(torch.equal(first, second), "equal scores for equal images", "a second call differs", EVALUATION_FIX)


@CHECKS("state dict restores the scores", "model.safetensors holds state_dict() and nothing else.")
def state_round_trip(head: HeadUnderTest) -> None:
    """Another instance that loads the state dict after training has the same scores."""
    trained, (images, targets) = head.classifier(), head.batch()
    if not isinstance(trained.head, FittedHead):
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
        "keep learned values in parameters and buffers, not in plain attributes",
    )


@CHECKS("works with token maps", "Maps of a transformer share one stride; the spec can exclude them.")
def tokens(head: HeadUnderTest) -> None:
    """The head works on maps of one stride, unless its spec requires different ones."""
    head.require(TinyTokens)
    classifier = head.classifier(TinyTokens()).eval()
    _expect_scores(classifier.scores(head.batch()[0]), IMAGES)


@CHECKS("predict works on a GPU", ABOUT_DEVICE)
def scores_on_device(head: HeadUnderTest) -> None:
    """predict combines no CPU tensor with one on the GPU."""
    classifier = head.classifier().eval()
    expect_device_independent(classifier, lambda model, images: model.scores(images), head.batch()[0])


@CHECKS("predict does not synchronize with the device", ABOUT_SYNC, advisory=True)
def scores_without_sync(head: HeadUnderTest) -> None:
    """No operation of predict reads a value off the device."""
    classifier, (images, _) = head.scoring_classifier(), head.batch()
    with torch.no_grad(), SyncDetector() as detector:
        classifier.scores(images)
    detector.expect_none()


@CHECKS("reads() matches what the losses use", "The backbone computes and trains exactly what reads() returns.")
def reads(head: HeadUnderTest) -> None:
    """reads() returns existing indices in ascending order, and some loss depends on each."""
    classifier = head.classifier()
    whole, offered = classifier.head.reads(), len(head.backbone().info.maps)
    expect(
        isinstance(whole, Reads) and list(whole.maps) == sorted(set(whole.maps)),
        "a Reads with ascending indices of maps from reads()",
        f"it returned {whole!r}",
        "list each map once, shallow first",
    )
    expect(
        all(0 <= index < offered for index in whole.maps),
        f"indices of maps from 0 to {offered - 1}",
        f"reads() returned {list(whole.maps)}",
        "return indices into backbone.maps",
    )
    expect(
        bool(whole.maps) or whole.embedding,
        "a head that reads something of the backbone",
        "reads() returned no map and no embedding",
        "return what forward uses",
    )
    unused = _unused(head, whole)
    expect(
        not unused,
        "losses that depend on everything in reads()",
        f"{', '.join(unused)} {'is' if len(unused) == 1 else 'are'} unused",
        "remove it from reads(), so that the backbone neither computes nor trains it",
    )


@CHECKS("cam_map() is among the maps it reads", "Grad-CAM uses the map that cam_map() returns.")
def cam_map(head: HeadUnderTest) -> None:
    """cam_map() is in reads(), or None if the head reads the embedding."""
    classifier = head.classifier()
    index, whole = classifier.head.cam_map(), classifier.head.reads()
    expect(
        whole.embedding if index is None else index in whole.maps,
        "a map in reads() from cam_map() (or None, if it reads the embedding)",
        f"it returned {index!r}, and reads() is {whole}",
        "return the index of the map that the prediction's score is computed from",
    )


@CHECKS("first forward pass is over the unchanged images", "Explainers hook the first forward pass of predict.")
def first_pass(head: HeadUnderTest) -> None:
    """If predict takes several forward passes, the first is over the unchanged images."""
    classifier, (images, _) = head.scoring_classifier(), head.batch()
    seen: list[Tensor] = []
    handle = classifier.backbone.register_forward_pre_hook(lambda _module, given: seen.append(given[0]))
    try:
        with torch.no_grad():
            classifier.scores(images)
    finally:
        handle.remove()
    expect(
        bool(seen) and torch.equal(seen[0], images),
        "the first forward pass of predict over the unchanged images",
        f"its input has shape {tuple(seen[0].shape)}" if seen else "predict does not call the model",
        "call model(images) before the model sees crops or other views",
    )


@CHECKS("unchanged_images is accurate", "With a frozen backbone, such a head trains on kept features, without images.")
def unchanged(head: HeadUnderTest) -> None:
    """A head that declares it scores, and has the losses of, images that it is not given, from their features alone."""
    classifier, (images, targets) = head.scoring_classifier(), head.batch()
    if not classifier.head.unchanged_images:
        raise NotApplicable("it may change its images")
    model, nothing = FeatureModel(classifier), torch.full((), torch.nan).expand(images.shape)
    fix = "pass the images on as they are and read no pixels, or leave unchanged_images False"
    with torch.no_grad():
        expected = classifier.scores(images)
        known = [(nothing, classifier.backbone(images, classifier.head.reads()))]
        with model.knowing(known):
            try:
                found = classifier.head.predict(model, nothing)
                losses = [loss.value for _, _, loss in objectives_of(classifier, nothing, targets, model)]
            except FgvcError as error:
                raise ContractError("the images that it gets in each pass", str(error), fix) from error
    expect(torch.equal(found, expected), "the scores of the images from their features", "others", fix)
    finite = all(bool(value.isfinite()) for value in losses)
    expect(finite, "losses that do not depend on pixels", "they are not finite where pixels are NaN", fix)


@CHECKS("published() ignores other checkpoints", "Every head sees the state dict of a weights file.")
def published(head: HeadUnderTest) -> None:
    """published() returns None for a state dict of another method."""
    found = head.classifier().head.published({"an unrelated entry": torch.zeros(2, 2)})
    expect(
        found is None,
        "None from published() for an unrelated state dict",
        f"it returned a {type(found).__name__}",
        "look for entries that only the method's public code has, and return None without them",
    )


@CHECKS("notes() returns single lines", "They are shown before training.")
def notes(head: HeadUnderTest) -> None:
    """notes() returns a list of lines."""
    expect_lines(head.classifier().head.notes())


@CHECKS("embedding_layer() is a linear layer or None", "train.head_init=probe and weights files initialize it.")
def embedding_layer(head: HeadUnderTest) -> None:
    """embedding_layer() returns a torch.nn.Linear with an output per class, or None."""
    layer: Any = head.classifier().head.embedding_layer()
    fits = layer is None or (isinstance(layer, nn.Linear) and layer.out_features == CLASSES)
    expect(fits, f"a torch.nn.Linear with {CLASSES} outputs, or None", f"it returned {layer!r}", "return one of them")


@CHECKS("attention maps are in [0, 1]", "The explainer `native` returns them unchanged.")
def attention(head: HeadUnderTest) -> None:
    """attention() returns maps B,S,S (float32) without gradient, or None."""
    classifier, (images, _) = head.scoring_classifier(), head.batch()
    found = classifier.head.attention(classifier, images)
    if found is None:
        raise NotApplicable("it has no attention of its own")
    shape = (len(images), *images.shape[-2:])
    expect(
        isinstance(found, Tensor) and found.shape == shape and found.dtype == torch.float32,
        f"attention maps of shape {shape}, float32",
        f"it returned {describe(found)}",
        "return one map per image, of the image's size",
    )
    expect(not found.requires_grad, "attention without gradient", "it has one", "compute it under torch.no_grad()")
    low, high = float(found.min()), float(found.max())
    found_range = f"they range from {low:.3g} to {high:.3g}"
    expect(low >= 0 and high <= 1, "values in [0, 1]", found_range, "scale each map to [0, 1]")


@CHECKS("objectives have finite scalar losses", "Each objective is minimized with one optimizer step.")
def objectives(head: HeadUnderTest) -> None:
    """Each objective has a name, images, and a finite scalar loss with a gradient; scores and parts are valid."""
    _expect_objectives(head, *head.batch())


@CHECKS("objectives accept soft targets", "Label smoothing and mixup give probabilities B,K as targets.")
def soft_targets(head: HeadUnderTest) -> None:
    """The same with targets B,K."""
    images, targets = head.batch()
    _expect_objectives(head, images, probabilities_of(len(targets)))


GRADIENTS = "A parameter without a gradient is never trained, and stops distributed training."


@CHECKS("every parameter gets a gradient", GRADIENTS)
def gradients(head: HeadUnderTest) -> None:
    """In an update, each parameter of the head and of the pruned backbone gets a finite gradient."""
    _expect_gradients(head.classifier(), *head.batch())


@CHECKS("every parameter gets a gradient on token maps", GRADIENTS)
def gradients_on_tokens(head: HeadUnderTest) -> None:
    """The same on maps of one stride, if the head supports them."""
    head.require(TinyTokens)
    _expect_gradients(head.classifier(TinyTokens()), *head.batch())


@CHECKS("loss decreases on one batch", f"{UPDATES} updates are enough to fit a batch of four images a little.")
def learns(head: HeadUnderTest) -> None:
    """The sum of the objectives decreases, and the cross entropy of the scores in the losses too."""
    classifier, batch = head.classifier(), head.batch()
    update = update_of(classifier, tiny_sgd(groups_of(classifier.backbone, classifier.head), lr=0.01))
    steps = [[loss for step in update([batch]) for loss in step.losses] for _ in range(UPDATES)]
    curves = {"the loss": [sum(float(loss.value.detach()) for loss in losses) for losses in steps]}
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
            f"{what} to decrease in {UPDATES} updates on one batch",
            f"it went from {curve[0]:.3g} to {last:.3g}",
            "look for a wrong sign, a detached tensor, or targets that do not match their images",
        )


@CHECKS("training is reproducible", "A resumed run restores torch's generators and no others.")
def same_training(head: HeadUnderTest) -> None:
    """Two trainings with the same torch seed give equal weights."""

    def train(other: int) -> dict[str, Tensor]:
        random.seed(other)
        np.random.seed(other)
        classifier, batch = head.classifier(seed=3), head.batch()
        update = update_of(classifier)
        for _ in range(3):
            update([batch])
        return copied_state(classifier)

    differing = changed(train(1), train(2))
    fix = "draw random numbers with torch (torch.rand), not with random or numpy"
    expect(not differing, "equal weights after equal trainings", f"{some(differing)} differ", fix)


@CHECKS("second evaluation gives the same loss", "SAM evaluates an objective twice per step.")
def second_evaluation(head: HeadUnderTest) -> None:
    """An objective evaluated again at the same weights has the same loss."""
    classifier, batch = head.classifier(), head.batch()
    groups = groups_of(classifier.backbone, classifier.head)
    optimizer = EvaluateTwice(groups, None, tiny_sgd(groups))
    update = update_of(classifier, optimizer)
    for _ in range(2):
        update([batch])
    for pair in optimizer.pairs:
        first, second = (float(evaluation.losses[0].value.detach()) for evaluation in pair)
        expect(
            first == second,
            "the same loss when an objective is evaluated again at the same weights",
            f"it was {first:.6g} and then {second:.6g}",
            "keep no state in loss and forward; make random choices before the yield",
        )


@CHECKS("supports gradient accumulation", "The generators of several micro-batches advance together.")
def accumulation(head: HeadUnderTest) -> None:
    """Two micro-batches have the same number of objectives, with finite losses."""
    classifier, (images, targets) = head.classifier(), head.batch()
    steps = update_of(classifier)([(images[:2], targets[:2]), (images[2:], targets[2:])])
    finite = all(bool(loss.value.isfinite()) for step in steps for loss in step.losses)
    expect(finite, "finite losses of two micro-batches of two images", "some are not finite", FINITE_FIX)


@CHECKS("trains under bf16 autocast", "On a GPU the forward pass runs under autocast; losses need float32 (.float()).")
def autocast(head: HeadUnderTest) -> None:
    """Losses, weights and scores are finite under autocast."""
    classifier, batch = head.classifier(), head.batch()
    update = update_of(classifier, autocast=lambda: torch.autocast("cpu", torch.bfloat16))
    losses = [loss.value for _ in range(2) for step in update([batch]) for loss in step.losses]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores = classifier.eval().scores(batch[0])
    finite = all(bool(value.isfinite().all()) for value in (*losses, scores, *copied_state(classifier).values()))
    expect(finite, "finite losses, weights and scores under bf16 autocast", "some are not finite", FINITE_FIX)


@CHECKS("trains on a GPU", ABOUT_DEVICE)
def trains_on_device(head: HeadUnderTest) -> None:
    """Objectives and losses combine no CPU tensor with one on the GPU."""

    def losses(classifier: Any, images: Tensor, targets: Tensor) -> None:
        for _ in objectives_of(classifier, images, targets):
            pass

    expect_device_independent(head.classifier().train(), losses, *head.batch())


@CHECKS("does not modify its batch", "The same images and targets are used for metrics afterwards.")
def batch_untouched(head: HeadUnderTest) -> None:
    """An update changes neither the images nor the targets."""
    classifier, (images, targets) = head.classifier(), head.batch()
    given = images.clone(), targets.clone()
    update_of(classifier)([(images, targets)])
    same = torch.equal(images, given[0]) and torch.equal(targets, given[1])
    expect(same, "unchanged images and targets", "an update writes to them", "clone before writing in place")


@CHECKS("training does not synchronize with the device", ABOUT_SYNC, advisory=True)
def trains_without_sync(head: HeadUnderTest) -> None:
    """No operation of an update reads a value off the device, except random choices drawn on the CPU."""
    classifier, batch = head.classifier(), head.batch()
    classifier.train()
    with SyncDetector() as detector:
        for _, _, loss in objectives_of(classifier, *batch):
            loss.value.backward()
    detector.expect_none()


@CHECKS("fit scores its own images", "The head is fitted once, to the features of all training images.")
def fits(head: HeadUnderTest) -> None:
    """A fitted head classifies the images it was fitted to better than chance, and fitting is reproducible."""
    classifiers = [head.classifier() for _ in range(2)]
    classifier, spec = classifiers[0], cast(HeadSpec, head.subject.component.spec)
    fitted = isinstance(classifier.head, FittedHead)
    found = f"{type(classifier.head).__name__} is {'one' if fitted else 'none'}, and the spec has fitted={spec.fitted}"
    expect(fitted == spec.fitted, "HeadSpec(fitted=True) for a FittedHead and no other head", found, "set it")
    if not fitted:
        raise NotApplicable("it is trained by objectives")
    differing = changed(*map(copied_state, classifiers))
    expect(not differing, "equal state from fitting twice", f"{some(differing)} differ", "use torch's generators")
    images, labels = images_of(FITTED_IMAGES, classifier.preprocessing.image_size), labels_of(FITTED_IMAGES)
    with torch.no_grad():
        top1 = float((classifier.eval().scores(images).argmax(dim=1) == labels).float().mean())
    fix = "look for labels that do not match their images"
    expect(top1 > 1.5 / CLASSES, f"top-1 well above chance ({1 / CLASSES:.0%})", f"it is {top1:.0%}", fix)


@CHECKS("adds classes or refuses", "`fgvc classes add` calls add_classes with images of the new classes alone.")
def adds_classes(head: HeadUnderTest) -> None:
    """After add_classes there is a finite score for each class, and the state dict can be loaded."""
    classifier, (images, labels) = head.classifier().eval(), head.batch()
    if not isinstance(classifier.head, FittedHead):
        raise NotApplicable("it is trained by objectives")
    with torch.no_grad():
        try:
            classifier.head.add_classes(labeled_features(classifier, images, CLASSES + 0 * labels), CLASSES + 1)
        except UsageError as error:
            raise NotApplicable(str(error)) from None
        found = classifier.scores(images)
        expect(
            found.shape == (len(images), CLASSES + 1) and bool(found.isfinite().all()),
            f"finite scores of {CLASSES + 1} classes after add_classes",
            f"scores are {describe(found)}",
            "append to what is kept of each class",
        )
        other = classifier_of(head.backbone(), lambda info: _make_wider(head, info))
        other.load_state_dict(saved_state(classifier))
        same = torch.equal(other.eval().scores(images), found)
    expect(same, "equal scores after loading the state dict", "they differ", "list such buffers in `resizable`")


def _make_wider(head: HeadUnderTest, info: BackboneInfo) -> Head:
    """Build the head for one class more."""
    made: Head = head.subject.make(Head, backbone=info, classes=CLASSES + 1, options=head.subject.options())
    return made


def _expect_scores(found: object, count: int) -> None:
    fits = isinstance(found, Tensor) and found.shape == (count, CLASSES) and found.is_floating_point()
    expect(
        fits,
        f"floating-point scores of shape ({count}, {CLASSES}) for {count} images and {CLASSES} classes",
        f"predict returned {describe(found)}",
        "return scores B,K, or override predict if forward returns more than that",
    )
    finite = bool(cast(Tensor, found).isfinite().all())
    expect(finite, "finite scores", "some are not finite", "look for a division by zero or a logarithm of 0")


def _unused(head: HeadUnderTest, whole: Reads) -> list[str]:
    """Return the features in reads() that no loss depends on."""
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
        for value in _losses(classifier, images, targets):
            found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True)
            used |= {name for name, gradient in zip(leaves, found, strict=True) if gradient is not None}
    finally:
        handle.remove()
    named = [*(f"map {index}" for index in whole.maps), *(["the embedding"] if whole.embedding else [])]
    return [name for name in named if name not in used]


def _losses(classifier: Classifier, images: Tensor, targets: Tensor) -> Iterator[Tensor]:
    """Yield the loss of each objective; of a head without objectives, the cross entropy of its scores."""
    if isinstance(classifier.head, FittedHead):
        yield cross_entropy(classifier.eval().scores(images), targets)
        return
    for _, _, loss in objectives_of(classifier, images, targets):
        yield loss.value


def _expect_gradients(classifier: Classifier, images: Tensor, targets: Tensor) -> None:
    optimizer = recording(classifier)
    update_of(classifier, optimizer)([(images, targets)])
    without = [name for name in trainable(classifier) if name not in optimizer.with_grad]
    expect(
        not without,
        "a gradient for every parameter in some objective of an update",
        f"{some(without)} {'has' if len(without) == 1 else 'have'} none",
        "delete unused parameters, freeze them (requires_grad_(False)), or return less from reads()",
    )
    infinite = sorted(optimizer.not_finite)
    expect(not infinite, "finite gradients", f"those of {some(infinite)} are not finite", FINITE_FIX)


def _expect_objectives(head: HeadUnderTest, images: Tensor, targets: Tensor) -> None:
    classifier = head.classifier().train()
    names = []
    for objective, _, loss in objectives_of(classifier, images, targets):
        missing = objective.missing_grad
        expect(missing in ("skip", "zero"), "missing_grad to be 'skip' or 'zero'", f"it is {missing!r}", "choose one")
        _expect_loss(loss, len(objective.images))
        names.append(objective.name)
    expect(bool(names), "at least one objective", "objectives() yields none", "yield an Objective")
    expect(
        len(set(names)) == len(names),
        "a unique name for each objective",
        f"their names are {names}",
        "set Objective(name=...) if there are several: the log uses it",
    )


def _expect_loss(loss: Any, images: int) -> None:
    expect(isinstance(loss, Loss), "a Loss from an objective's loss function", f"a {type(loss).__name__}", "return one")
    value, scalar = loss.value, isinstance(loss.value, Tensor) and loss.value.ndim == 0
    expect(scalar, "a scalar loss", f"it is {getattr(value, 'shape', type(value).__name__)}", "take the mean")
    expect(bool(value.isfinite()), "a finite loss", f"it is {float(value.detach())}", FINITE_FIX)
    expect(value.requires_grad, "a loss with a gradient", "it has none", "do not detach what it is computed from")
    if loss.scores is not None:
        shape = (images, CLASSES)
        fix = "return class scores for the training metrics, or None"
        expect(loss.scores.shape == shape, f"scores of shape {shape} in the Loss", f"{tuple(loss.scores.shape)}", fix)
    wrong = [
        name
        for name, part in loss.parts.items()
        if not (isinstance(part, Tensor) and part.ndim == 0 and not part.requires_grad)
    ]
    expect(not wrong, "detached scalar tensors as parts of a Loss", f"{some(wrong)} are not", "write part.detach()")
