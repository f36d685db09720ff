"""What every head must keep: how it trains."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fgvc_cli.contracts import Classifier, Loss, Objective
from fgvc_cli.testing.check import Checks, expect, some
from fgvc_cli.testing.elsewhere import WHY, expect_moves
from fgvc_cli.testing.head_subject import HeadSubject
from fgvc_cli.testing.models import changed, copied_state, trainable, update_of, walk, watched
from fgvc_cli.testing.tiny.backbones import TinyTokens
from fgvc_cli.testing.tiny.images import CLASSES, probabilities_of
from fgvc_cli.testing.tiny.optimizers import Twice, groups_of, tiny_sgd
from fgvc_cli.testing.waiting import WaitWatch

TRAINING: Checks[HeadSubject] = Checks()

UPDATES = 16
"""Updates after which the loss on one batch must have fallen."""


@TRAINING(
    "it says what to minimise", "The host minimises each objective with one optimizer step, and logs what it says."
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
    """What it minimises falls, and with it the cross entropy of the scores that it shows while it trains."""
    classifier, batch = head.classifier(), head.batch()
    update = update_of(classifier, tiny_sgd(groups_of(classifier.backbone, classifier.head), lr=0.01))
    steps = [[loss for step in update([batch]) for loss in step.losses] for _ in range(UPDATES)]
    curves = {"what it minimises": [sum(float(loss.value.detach()) for loss in losses) for losses in steps]}
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
def elsewhere(head: HeadSubject) -> None:
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
def no_wait(head: HeadSubject) -> None:
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
        objective.idle in ("skip", "coast"), "idle to be 'skip' or 'coast'", f"it is {objective.idle!r}", "choose one"
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
