"""Contract checks of backbones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

import torch
from torch import Tensor

from fgvc_cli.contracts import Backbone, BackboneInfo, CamLayer, Features, PretrainedWeights, Reads, WeightsReport
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.registry import Component
from fgvc_cli.runs.model_file import build_backbone
from fgvc_cli.specs import BackboneSpec
from fgvc_cli.testing.check import Checks, ContractError, NotApplicable, expect, some
from fgvc_cli.testing.component import ComponentUnderTest
from fgvc_cli.testing.device import ABOUT_DEVICE, ABOUT_SYNC, SyncDetector, expect_device_independent
from fgvc_cli.testing.models import changed, classifier_of, copied_state, recording, saved_state, trainable, update_of
from fgvc_cli.testing.tiny import CLASSES, TinyHead, images_of, isolated, labels_of

SIZES = (64, 32, 96, 128, 160, 192, 224, 256, 288, 320, 384, 448, 512)
"""Image sizes to try, in pixels; at 64 the deepest map of most architectures has more than one point."""

IMAGES = 4

ROUNDING = 1e-3
"""Tolerance for features, relative to the largest, from the order of summation."""


@dataclass(frozen=True)
class BackboneUnderTest:
    """A backbone, checked at the first of `SIZES` that it supports."""

    subject: ComponentUnderTest

    @property
    def spec(self) -> BackboneSpec:
        """Its spec."""
        return cast(BackboneSpec, self.subject.component.spec)

    def make(self, size: int | None = None, seed: int = 0) -> Backbone:
        """Build it with seeded weights for an image size (None: the one that it is checked at)."""
        torch.manual_seed(seed)
        given = {"name": self.spec.name, "image_size": self.size if size is None else size}
        backbone: Backbone = self.subject.make(Backbone, **given, options=self.subject.options())
        return backbone

    @cached_property
    def size(self) -> int:
        """The image size that it is checked at."""
        return smallest_size(self.subject.component, self.subject.options())

    @cached_property
    def info(self) -> BackboneInfo:
        """Its description at that size."""
        return self.make().info

    def images(self, count: int = 2, size: int | None = None) -> Tensor:
        """Return images B,3,S,S."""
        return images_of(count, self.size if size is None else size)

    @property
    def everything(self) -> Reads:
        """All maps and the embedding."""
        return Reads(tuple(range(len(self.info.maps))), embedding=True)

    def reads(self) -> Iterator[Reads]:
        """Yield what heads usually read: the embedding, the deepest map, the shallowest one, and everything."""
        last = len(self.info.maps) - 1
        yield Reads(embedding=True)
        if last >= 0:
            yield Reads((last,))
        if last > 0:
            yield Reads((0,))
        yield self.everything


def smallest_size(component: Component, options: Any) -> int:
    """Return the first of `SIZES` that a backbone supports.

    Raises:
        ContractError: it supports none.
    """
    refusal = ""
    for size in SIZES:
        try:
            build_backbone(component, options, size)
        except UsageError as error:
            refusal = str(error)
        else:
            return size
    expected = f"a backbone for some image size from {min(SIZES)} to {max(SIZES)} px"
    raise ContractError(expected, refusal, "support one of them")


def tensors_of(features: Features) -> dict[str, Tensor]:
    """Return features by name: "map 0", "the embedding"."""
    named = {f"map {index}": value for index, value in features.maps.items()}
    return named if features.embedding is None else {**named, "the embedding": features.embedding}


def text_of(reads: Reads) -> str:
    """Describe what is read: "maps 0, 1 and the embedding"."""
    maps = f"map{'s' * (len(reads.maps) > 1)} {', '.join(map(str, reads.maps))}" if reads.maps else ""
    return " and ".join(filter(None, (maps, "the embedding" if reads.embedding else "")))


CHECKS: Checks[BackboneUnderTest] = Checks(BackboneUnderTest, isolated)


@CHECKS("reports its name, input size and normalization", "Heads and preprocessing are built from them.")
def info(backbone: BackboneUnderTest) -> None:
    """Name, image size, architecture and normalization in info are valid."""
    info = backbone.make().info
    expect(isinstance(info, BackboneInfo), "a BackboneInfo as info", f"it is a {type(info).__name__}", "set self.info")
    facts = {"name": (info.name, backbone.spec.name), "image_size": (info.image_size, backbone.size)}
    for what, (found, expected) in facts.items():
        fix = "pass on the constructor's argument"
        expect(found == expected, f"info.{what} to be {expected!r}", f"it is {found!r}", fix)
    known = ("convolutional", "transformer")
    expect(info.architecture in known, f"an architecture of {known}", f"it is {info.architecture!r}", "choose one")
    for what, values in (("mean", info.mean), ("std", info.std)):
        fits = len(values) == 3 and all(v >= 0 for v in values) and (what == "mean" or all(v > 0 for v in values))
        expect(fits, f"three numbers as info.{what}", f"it is {values}", "give one each for red, green and blue")


@CHECKS("features have the shapes in info", "Heads are built for exact channels and grids.")
def shapes(backbone: BackboneUnderTest) -> None:
    """Every map has the channels and grid of info, and the embedding its width; all are finite."""
    module, info = backbone.make().eval(), backbone.info
    features = module(backbone.images(), backbone.everything)
    expect(isinstance(features, Features), "Features from forward", f"a {type(features).__name__}", "return them")
    for index, described in enumerate(info.maps):
        shape, found = (2, described.channels, *described.grid), features.maps.get(index)
        expect(
            isinstance(found, Tensor) and found.shape == shape,
            f"map {index} of shape {shape}, as in info",
            f"it is {'missing' if found is None else tuple(found.shape)}",
            "return maps B,C,H,W, and their exact grids at the image size in info",
        )
    width, embedding = (2, info.embedding_width), features.embedding
    expect(
        isinstance(embedding, Tensor) and embedding.shape == width,
        f"an embedding of shape {width}, as in info",
        f"it is {'missing' if embedding is None else tuple(embedding.shape)}",
        "return pooled features B,D, and D as info.embedding_width",
    )
    wrong = [name for name, value in tensors_of(features).items() if not value.isfinite().all()]
    expect(not wrong, "finite features", f"{some(wrong)}: not finite", "check the initialization of weights")


@CHECKS("strides match the spec and the grids", "The spec decides which heads are compatible.")
def strides(backbone: BackboneUnderTest) -> None:
    """The strides in info are those of the spec, if it has any, ascending, and consistent with the grids."""
    found = tuple(m.stride for m in backbone.info.maps)
    declared = backbone.spec.strides
    expect(
        not declared or declared == found or bool(backbone.subject.values),
        f"maps of strides {declared}, as in the spec",
        f"info has {found}",
        "make spec and info agree, or leave the spec's strides empty",
    )
    expect(list(found) == sorted(found), "maps from shallow to deep", f"their strides are {found}", "sort them")
    for index, described in enumerate(backbone.info.maps):
        rows, columns = described.grid
        nominal = backbone.size / described.stride
        expect(
            rows == 1 < columns or all(nominal / 2 - 1 <= side <= nominal * 2 + 1 for side in described.grid),
            f"a grid of about {nominal:.0f} points per side for map {index} of stride {described.stride}",
            f"it has {rows} x {columns}",
            "the stride is the number of image pixels per point",
        )


@CHECKS("returns only the requested features", "A head that reads one map should not pay for the others.")
def requested(backbone: BackboneUnderTest) -> None:
    """Any selection gives the features in it, equal to those of the full selection."""
    module, images = backbone.make().eval(), backbone.images()
    with torch.no_grad():
        whole = tensors_of(module(images, backbone.everything))
        for reads in backbone.reads():
            found = tensors_of(module(images, reads))
            wanted = {f"map {index}" for index in reads.maps} | ({"the embedding"} if reads.embedding else set())
            expect(
                set(found) == wanted,
                f"{text_of(reads)} and nothing else",
                f"forward returned {', '.join(found) or 'nothing'}",
                "follow reads, with None for an embedding that is not requested",
            )
            expected = {name: whole[name] for name in wanted}
            _expect_close(found, expected, f"the same features for {text_of(reads)} alone")


@CHECKS("features do not depend on the batch", "In evaluation mode, an image's features must be its own.")
def batch_independent(backbone: BackboneUnderTest) -> None:
    """A batch has the features of its images one by one and repeats them; no buffer changes."""
    module, images, reads = backbone.make().eval(), backbone.images(), backbone.everything
    before = copied_state(module)
    with torch.no_grad():
        first, second = tensors_of(module(images, reads)), tensors_of(module(images, reads))
        apart = [tensors_of(module(image[None], reads)) for image in images]
    moved = changed(before, copied_state(module))
    fix = "update statistics only while self.training"
    expect(not moved, "unchanged buffers", f"evaluation changes {some(moved)}", fix)
    _expect_close(second, first, "the same features in a second call")
    joined = {name: torch.cat([one[name] for one in apart]) for name in first}
    _expect_close(first, joined, "the same features for an image in any batch")


@CHECKS("initialization is reproducible", "Runs from scratch are repeated by their seed.")
def same_seed(backbone: BackboneUnderTest) -> None:
    """Equal torch seeds give equal weights."""
    differing = changed(*(copied_state(backbone.make(seed=5)) for _ in range(2)))
    found = f"{some(differing)} differ"
    expect(not differing, "equal weights from equal seeds", found, "initialize weights with torch")


@CHECKS("state dict restores the features", "model.safetensors holds state_dict() and nothing else.")
def state_round_trip(backbone: BackboneUnderTest) -> None:
    """Another instance that loads the state dict after a pass in training mode has the same features."""
    first, images, reads = backbone.make(), backbone.images(4), backbone.everything
    with torch.no_grad():
        first.train()(images, reads)
        second = backbone.make(seed=1)
        second.load_state_dict(saved_state(first))
        expected, found = (tensors_of(module.eval()(images, reads)) for module in (first, second))
    _expect_close(found, expected, "the same features from a backbone that loads its state dict")


@CHECKS("works under bf16 autocast", "On a GPU the forward pass runs under autocast.")
def autocast(backbone: BackboneUnderTest) -> None:
    """Features under bf16 autocast are close to those in float32."""
    module, images, reads = backbone.make().eval(), backbone.images(), backbone.everything
    with torch.no_grad():
        exact = tensors_of(module(images, reads))
        with torch.autocast("cpu", torch.bfloat16):
            coarse = tensors_of(module(images, reads))
    _expect_close(coarse, exact, "similar features under bf16 autocast", rounding=0.2)


@CHECKS("works with channels-last memory format", "The host uses it where convolutions are faster with it.")
def channels_last(backbone: BackboneUnderTest) -> None:
    """The memory format does not change the features."""
    module, images, reads = backbone.make().eval(), backbone.images(), backbone.everything
    with torch.no_grad():
        plain = tensors_of(module(images, reads))
        module = module.to(memory_format=torch.channels_last)
        other = tensors_of(module(images.contiguous(memory_format=torch.channels_last), reads))
    _expect_close(other, plain, "the same features for channels-last images")


@CHECKS("works on a GPU", ABOUT_DEVICE)
def on_device(backbone: BackboneUnderTest) -> None:
    """forward combines no CPU tensor with one on the GPU."""
    module, reads = backbone.make().train(), backbone.everything
    expect_device_independent(module, lambda model, images: model(images, reads), backbone.images())


@CHECKS("accepts or refuses any image size", "The image size is a user's choice, and errors must be clear.")
def sizes(backbone: BackboneUnderTest) -> None:
    """For several sizes the backbone works as in info, or raises a UsageError."""
    for size in (1, backbone.size + 1, backbone.size + 8, backbone.size * 3 // 2):
        try:
            module = backbone.make(size).eval()
        except UsageError:
            continue
        except Exception as error:
            raise ContractError(
                f"a UsageError (or a backbone) for images of {size} px",
                f"it raised {type(error).__name__}: {error}",
                "check the size first: ImageSizes(minimum, multiple).check(image_size, name)",
            ) from error
        last = len(module.info.maps) - 1
        with torch.no_grad():
            found = module(backbone.images(size=size), Reads((last,))).maps[last]
        expect(
            tuple(found.shape[2:]) == module.info.maps[last].grid,
            f"a grid of {module.info.maps[last].grid} at {size} px, as in info",
            f"the deepest map has {tuple(found.shape[2:])}",
            "compute the exact grid for the image size, or refuse the size",
        )


@CHECKS("pretrained weights match the spec", "Users see in the spec whether there are any.")
def published(backbone: BackboneUnderTest) -> None:
    """pretrained() and the spec agree, and weights of another model are refused."""
    module, declared = backbone.make(), backbone.spec.pretrained
    weights = module.pretrained()
    expect(
        bool(declared) == (weights is not None),
        "weights from pretrained() if, and only if, the spec names some",
        f"the spec has {declared or 'none'!r} and pretrained() returned {weights!r}",
        "make them agree",
    )
    if weights is None:
        raise NotApplicable("it has no pretrained weights")
    named = isinstance(weights, PretrainedWeights) and bool(weights.name)
    expect(named, "PretrainedWeights with a name", f"{weights!r}", "name them")
    if weights.cached is not None:
        state: Any = module.fetch(weights)
        fits = isinstance(state, Mapping) and all(isinstance(value, torch.Tensor) for value in state.values())
        expect(fits, "a state dict of tensors from fetch()", f"it returned a {type(state).__name__}", "return one")
        report: Any = module.load_weights(state)
        found = f"it returned a {type(report).__name__}"
        expect(isinstance(report, WeightsReport), "a WeightsReport from load_weights()", found, "return one")
    try:
        module.load_weights({"an unrelated entry": torch.zeros(1)})
    except FgvcError:
        return
    raise ContractError("an FgvcError for weights without any match", "they are loaded", "compare the names")


@CHECKS("forward does not synchronize with the device", ABOUT_SYNC, advisory=True)
def no_sync(backbone: BackboneUnderTest) -> None:
    """No operation of forward reads a value off the device."""
    module, images = backbone.make().train(), backbone.images()
    with torch.no_grad(), SyncDetector() as detector:
        module(images, backbone.everything)
    detector.expect_none()


@CHECKS("every parameter left by prune gets a gradient", "Parameters without one stop distributed training.")
def prune(backbone: BackboneUnderTest) -> None:
    """After prune, training with a small head gives every trainable parameter a finite gradient."""
    for reads in backbone.reads():
        classifier = classifier_of(backbone.make(), lambda info, reads=reads: TinyHead(info, CLASSES, None, reads))  # type: ignore[misc]
        optimizer = recording(classifier)
        update_of(classifier, optimizer)([(backbone.images(IMAGES), labels_of(IMAGES))])
        without = [name for name in trainable(classifier) if name not in optimizer.with_grad]
        expect(
            not without,
            f"a gradient for every parameter after prune({text_of(reads)})",
            f"{some(without)} {'has' if len(without) == 1 else 'have'} none",
            "delete (or freeze) the modules that reads does not need in prune",
        )
        infinite = sorted(optimizer.not_finite)
        expect(not infinite, "finite gradients", f"{some(infinite)}: not finite", "check these modules")


@CHECKS("prune keeps the features", "A head must read the same features of the pruned backbone.")
def prune_keeps(backbone: BackboneUnderTest) -> None:
    """prune does not change the features that it keeps."""
    images = backbone.images()
    for reads in backbone.reads():
        module = backbone.make().eval()
        with torch.no_grad():
            before = tensors_of(module(images, reads))
        module.prune(reads)
        with torch.no_grad():
            after = tensors_of(module(images, reads))
        _expect_close(after, before, f"the same features after prune({text_of(reads)})", fix="delete only unused ones")


@CHECKS("prune works under torch.no_grad()", "Users may load a classifier with gradients disabled.")
def without_gradients(backbone: BackboneUnderTest) -> None:
    """Building and pruning under torch.no_grad() keeps the same parameters."""
    reads = next(backbone.reads())
    left = []
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            module = backbone.make()
            module.prune(reads)
        left.append([name for name, parameter in module.named_parameters() if parameter.requires_grad])
    expect(
        left[0] == left[1],
        "the same parameters after prune under torch.no_grad()",
        f"{len(left[1])} are trainable, and {len(left[0])} otherwise",
        "enable gradients where prune needs them: with torch.enable_grad()",
    )


@CHECKS("pruning to a shallow map saves parameters", "Deeper stages are not needed for it.", advisory=True)
def shallow(backbone: BackboneUnderTest) -> None:
    """Pruned to its shallowest map, it has fewer parameters than pruned to the deepest."""
    count = len(backbone.info.maps)
    if count < 2:
        raise NotApplicable("it has fewer than two maps")
    sizes = []
    for index in (0, count - 1):
        module = backbone.make()
        module.prune(Reads((index,)))
        sizes.append(sum(p.numel() for p in module.parameters() if p.requires_grad))
    found = f"{sizes[0]} and {sizes[1]}"
    expect(sizes[0] < sizes[1], "fewer parameters for map 0 than for the last", found, "prune more")


@CHECKS("info_at() describes the features at another size", "train.progressive_size starts with smaller images.")
def info_at(backbone: BackboneUnderTest) -> None:
    """After prune, images of a size that info_at() accepts give features of the shapes that it returns."""
    module = backbone.make(size=2 * backbone.size).eval()
    try:
        info = module.info_at(backbone.size)
    except UsageError as error:
        raise NotApplicable(str(error)) from error
    module.prune(backbone.everything)
    size = f"the image size {backbone.size}"
    expect(info.image_size == backbone.size, size, f"it is {info.image_size}", "return the size that was asked for")
    features = module(backbone.images(), backbone.everything)
    expected = [(2, described.channels, *described.grid) for described in info.maps]
    found = [tuple(features.maps[index].shape) for index in backbone.everything.maps]
    expect(found == expected, f"maps of shapes {expected}, as info_at() says", f"{found}", "correct the grids")


@CHECKS("layer_depths() groups every parameter, shallow first", "train.freeze freezes the shallowest stages.")
def layer_depths(backbone: BackboneUnderTest) -> None:
    """After prune, every parameter has a depth: without gaps from 0, and ascending in the order of the forward pass."""
    module, reads = backbone.make().eval(), next(backbone.reads())
    module.prune(reads)
    called: list[str] = []
    for name, inner in module.named_modules():
        inner.register_forward_pre_hook(lambda _module, _given, name=name: called.append(name))
    module(backbone.images(), reads)
    units: tuple[Literal["stage"], Literal["block"]] = "stage", "block"
    for unit in units:
        try:
            depths = module.layer_depths(unit)
        except FgvcError as error:
            raise NotApplicable(str(error)) from error
        names = {name for name, _ in module.named_parameters()}
        odd = sorted(names ^ depths.keys())
        fix = "return an entry for each of named_parameters()"
        expect(not odd, f"a depth ({unit}) for each parameter", f"{some(odd)}: missing or unknown", fix)
        found = sorted(set(depths.values()))
        fix = "number them 0, 1, 2 ..."
        expect(found == list(range(len(found))), f"{unit}s without gaps from 0", f"the depths are {found}", fix)
        order = {name: called.index(owner) for name in names if (owner := name.rpartition(".")[0]) in called}
        first = [min((order[n] for n in order if depths[n] == depth), default=0) for depth in found]
        fix = "count from the image to the features"
        expect(first == sorted(first), f"{unit}s from shallow to deep", "a deeper one runs first", fix)


@CHECKS("cam_layer() returns usable layers", "Class activation maps hook the layer that it returns.")
def cam_layer(backbone: BackboneUnderTest) -> None:
    """For each map and the embedding: a submodule with the given layout, on the path of the gradient."""
    points: list[int | None] = [*range(len(backbone.info.maps)), None]
    found = 0
    for index in points:
        module = backbone.make().eval()
        reads = Reads(embedding=True) if index is None else Reads((index,))
        try:
            layer = module.cam_layer(index)
        except FgvcError:  # no module has that map as its output
            continue
        _expect_layer(module, layer, reads, backbone.images())
        found += 1
    if not found:
        raise NotApplicable("it has no activation maps")


def _expect_layer(module: Backbone, layer: CamLayer, reads: Reads, images: Tensor) -> None:
    what = f"cam_layer for {text_of(reads)}"
    expect(isinstance(layer, CamLayer), f"a CamLayer from {what}", f"a {type(layer).__name__}", "return one")
    own = any(layer.module is inner for inner in module.modules())
    expect(own, f"a submodule of the backbone from {what}", "it is not one", "return one of its own submodules")
    outputs: list[Tensor] = []
    handle = layer.module.register_forward_hook(lambda _module, _given, output: outputs.append(output))
    try:
        features = tensors_of(module(images, reads))
    finally:
        handle.remove()
    expect(bool(outputs), f"the module of {what} to run", "it does not", "return one that forward calls")
    activation = outputs[0]
    _expect_layout(layer, activation, what)
    (value,) = features.values()
    (gradient,) = torch.autograd.grad(value.float().square().sum(), activation, allow_unused=True)
    expect(
        gradient is not None and bool(gradient.abs().sum() > 0),
        f"a gradient at the module of {what}",
        "the features do not depend on its output",
        "return a module whose output the features are computed from",
    )


def _expect_layout(layer: CamLayer, activation: Tensor, what: str) -> None:
    fix = "set the layout to BCHW, BHWC or BNC; for BNC also the grid and the number of leading tokens"
    if not isinstance(activation, Tensor):
        raise ContractError(f"a tensor from the module of {what}", f"it returned a {type(activation).__name__}", fix)
    shape = tuple(activation.shape)
    if layer.layout == "BNC":
        grid = layer.grid or (0, 0)
        fits = len(shape) == 3 and shape[1] == layer.prefix + grid[0] * grid[1]
        layout = f"B, {layer.prefix} + {grid[0]} x {grid[1]}, C"
    else:
        fits, layout = len(shape) == 4 and layer.layout in ("BCHW", "BHWC"), str(layer.layout)
    expect(fits, f"an output of layout {layout} at {what}", f"it has shape {shape}", fix)


def _expect_close(
    found: dict[str, Tensor],
    expected: dict[str, Tensor],
    what: str,
    rounding: float = ROUNDING,
    fix: str = "let forward depend only on the image and the weights",
) -> None:
    for name, value in expected.items():
        scale = max(1e-3, float(value.abs().max()))
        worst = float((found[name].float() - value.float()).abs().max()) / scale
        expect(worst <= rounding, what, f"{name} differs by {worst:.2g} of its largest value", fix)
