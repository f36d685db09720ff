"""What every head must keep: what it says of itself."""

from __future__ import annotations

import torch
from torch import Tensor

from fgvc_cli.contracts import Features, Reads
from fgvc_cli.testing.check import Checks, NotApplicable, expect
from fgvc_cli.testing.head_checks import described
from fgvc_cli.testing.head_subject import HeadSubject
from fgvc_cli.testing.models import walk

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
