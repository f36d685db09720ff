"""Contract checks of backbones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor

from fgvc_cli.contracts import Backbone, BackboneInfo, CamLayer, Features, PretrainedWeights, Reads
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.registry import Component
from fgvc_cli.runs.model_file import build_backbone
from fgvc_cli.specs import BackboneSpec
from fgvc_cli.testing.check import Check, Checks, ContractBroken, NotApplicable, expect, some
from fgvc_cli.testing.models import changed, classifier_of, copied_state, saved_state, trainable, update_of, watched
from fgvc_cli.testing.simulated_device import WHY, expect_moves
from fgvc_cli.testing.subject import Subject
from fgvc_cli.testing.tiny import TinyHead, images_of, isolated, labels_of
from fgvc_cli.testing.waiting import WaitWatch

SIZES = (64, 32, 96, 128, 160, 192, 224, 256, 288, 320, 384, 448, 512)
"""Image sizes to try, in pixels; at 64 most architectures leave their deepest map more than one point."""


@dataclass(frozen=True)
class BackboneSubject:
    """A backbone and where it is checked."""

    subject: Subject

    @property
    def spec(self) -> BackboneSpec:
        """What its plugin says of it."""
        return cast(BackboneSpec, self.subject.component.spec)

    def make(self, size: int | None = None, seed: int = 0) -> Backbone:
        """Build it with weights by a seed, for images of that size (None: the one that it is checked at)."""
        torch.manual_seed(seed)
        given = {"name": self.spec.name, "image_size": self.size if size is None else size}
        backbone: Backbone = self.subject.make(Backbone, **given, options=self.subject.options())
        return backbone

    @cached_property
    def size(self) -> int:
        """The first of `SIZES` that it takes."""
        return smallest_size(self.subject.component, self.subject.options())

    @cached_property
    def info(self) -> BackboneInfo:
        """What it says of itself at that size."""
        return self.make().info

    def images(self, count: int = 2, size: int | None = None) -> Tensor:
        """Return images B,3,S,S of that size."""
        return images_of(count, self.size if size is None else size)

    def everything(self) -> Reads:
        """Return all maps and the embedding."""
        return Reads(tuple(range(len(self.info.maps))), embedding=True)

    def reads(self) -> Iterator[Reads]:
        """Give what heads usually read: the embedding, the deepest map, the shallowest one, and everything."""
        last = len(self.info.maps) - 1
        yield Reads(embedding=True)
        if last >= 0:
            yield Reads((last,))
        if last > 0:
            yield Reads((0,))
        yield self.everything()


def smallest_size(component: Component, options: Any) -> int:
    """Return the first of `SIZES` that a backbone takes.

    Raises:
        ContractBroken: it takes none.
    """
    refusal = ""
    for size in SIZES:
        try:
            build_backbone(component, options, size)
        except UsageError as error:
            refusal = str(error)
        else:
            return size
    raise ContractBroken(
        f"a backbone for images of some size from {min(SIZES)} to {max(SIZES)} px", refusal, "let it take one of them"
    )


def tensors_of(features: Features) -> dict[str, Tensor]:
    """Return what was computed, by name: "map 0", "the embedding"."""
    named = {f"map {index}": value for index, value in features.maps.items()}
    return named if features.embedding is None else {**named, "the embedding": features.embedding}


def text_of(reads: Reads) -> str:
    """Write what is read: "maps 0, 1 and the embedding"."""
    maps = f"map{'s' * (len(reads.maps) > 1)} {', '.join(map(str, reads.maps))}" if reads.maps else ""
    return " and ".join(filter(None, (maps, "the embedding" if reads.embedding else "")))


PARTS: Checks[BackboneSubject] = Checks()

IMAGES = 4


@PARTS(
    "gradients reach every parameter that is left",
    "prune drops what a head does not need: a parameter without a gradient stops training on several GPUs.",
)
def prune(backbone: BackboneSubject) -> None:
    """Pruned for a reading and trained with a small head, every parameter that is to be trained has a gradient."""
    for reads in backbone.reads():
        classifier = classifier_of(backbone.make(), lambda info, reads=reads: TinyHead(info, 5, None, reads))  # type: ignore[misc]
        optimizer = watched(classifier)
        update_of(classifier, optimizer)([(backbone.images(IMAGES), labels_of(IMAGES))])
        without = [name for name in trainable(classifier) if name not in optimizer.reached]
        expect(
            not without,
            f"a gradient for every parameter once it is pruned to {text_of(reads)}",
            f"{some(without)} {'has' if len(without) == 1 else 'have'} none",
            "let prune drop (or freeze) the modules that nothing in reads needs",
        )
        expect(not optimizer.unfit, "finite gradients", f"{some(sorted(optimizer.unfit))}: they are not", "look there")


@PARTS("pruning changes no feature", "What a head reads must be what it would read of the whole backbone.")
def prune_keeps(backbone: BackboneSubject) -> None:
    """Pruned to a reading, it computes that as before."""
    images = backbone.images()
    for reads in backbone.reads():
        module = backbone.make().eval()
        with torch.no_grad():
            before = tensors_of(module(images, reads))
        module.prune(reads)
        with torch.no_grad():
            after = tensors_of(module(images, reads))
        for name, value in before.items():
            worst = float((after[name] - value).abs().max())
            expect(
                worst <= 1e-3 * max(1e-3, float(value.abs().max())),
                f"the same features after prune({text_of(reads)})",
                f"{name} differs by up to {worst:.2g}",
                "drop only what is not needed for them",
            )


@PARTS("it is built where gradients are off", "A person may load a classifier within torch.no_grad().")
def without_gradients(backbone: BackboneSubject) -> None:
    """Building and pruning within torch.no_grad() leaves the parameters that it leaves elsewhere."""
    reads = next(backbone.reads())
    left = []
    for enabled in (True, False):
        with torch.set_grad_enabled(enabled):
            module = backbone.make()
            module.prune(reads)
        left.append([name for name, parameter in module.named_parameters() if parameter.requires_grad])
    expect(
        left[0] == left[1],
        "the same parameters to be left by prune within torch.no_grad()",
        f"{len(left[1])} are left, and {len(left[0])} elsewhere",
        "enable gradients where prune looks for them: with torch.enable_grad()",
    )


@PARTS("a shallow map costs less", "It stops after the deepest stage that is needed.", advisory=True)
def stops(backbone: BackboneSubject) -> None:
    """Pruned to its shallowest map, it has fewer parameters than pruned to the deepest one."""
    count = len(backbone.info.maps)
    if count < 2:
        raise NotApplicable("it has no two maps")
    sizes = []
    for index in (0, count - 1):
        module = backbone.make()
        module.prune(Reads((index,)))
        sizes.append(sum(p.numel() for p in module.parameters() if p.requires_grad))
    expect(
        sizes[0] < sizes[1], "fewer parameters for map 0 than for the last", f"{sizes[0]} and {sizes[1]}", "prune more"
    )


@PARTS("it names the modules that Grad-CAM hooks", "Explainers of activation maps hook what cam_layer names.")
def cam_layer(backbone: BackboneSubject) -> None:
    """For each map and the embedding: a module of its own, run once, laid out as said, on the gradient's way."""
    points: list[int | None] = [*range(len(backbone.info.maps)), None]
    found = 0
    for index in points:
        module = backbone.make().eval()
        reads = Reads(embedding=True) if index is None else Reads((index,))
        try:
            layer = module.cam_layer(index)
        except FgvcError:  # its word that no module gives out that map
            continue
        _expect_layer(module, layer, reads, backbone.images())
        found += 1
    if not found:
        raise NotApplicable("it names no module: it has no activation maps")


def _expect_layer(module: Backbone, layer: CamLayer, reads: Reads, images: Tensor) -> None:
    what = f"cam_layer for {text_of(reads)}"
    expect(isinstance(layer, CamLayer), f"a CamLayer from {what}", f"a {type(layer).__name__}", "return one")
    own = any(layer.module is inner for inner in module.modules())
    expect(own, f"a module of the backbone in {what}", "it is none of them", "name one of its own submodules")
    outputs: list[Tensor] = []
    handle = layer.module.register_forward_hook(lambda _module, _given, output: outputs.append(output))
    try:
        features = tensors_of(module(images, reads))
    finally:
        handle.remove()
    expect(bool(outputs), f"the module of {what} to be run", "it is not", "name one that forward calls")
    activation = outputs[0]
    _expect_layout(layer, activation, what)
    (value,) = features.values()
    (gradient,) = torch.autograd.grad(value.float().square().sum(), activation, allow_unused=True)
    expect(
        gradient is not None and bool(gradient.abs().sum() > 0),
        f"a gradient at the module of {what}",
        "the features do not depend on its output",
        "name a module on the way to them (not one whose output is copied)",
    )


def _expect_layout(layer: CamLayer, activation: Tensor, what: str) -> None:
    mend = "say which of BCHW, BHWC and BNC its output is; for BNC also the grid and the leading tokens"
    if not isinstance(activation, Tensor):
        raise ContractBroken(f"a tensor from the module of {what}", f"it gives a {type(activation).__name__}", mend)
    shape = tuple(activation.shape)
    if layer.layout == "BNC":
        grid = layer.grid or (0, 0)
        fits = len(shape) == 3 and shape[1] == layer.prefix + grid[0] * grid[1]
        said = f"B, {layer.prefix} + {grid[0]} x {grid[1]}, C"
    else:
        fits, said = len(shape) == 4 and layer.layout in ("BCHW", "BHWC"), str(layer.layout)
    expect(fits, f"an output laid out as {said} at {what}", f"it has shape {shape}", mend)


COMPUTING: Checks[BackboneSubject] = Checks()

ROUNDING = 1e-3
"""How much features may differ, relative to the largest, by the order of their sums."""


def checks(subject: Subject) -> Iterator[Check]:
    """Return the checks of a backbone."""
    pass
    backbone = BackboneSubject(subject)
    found = [*COMPUTING.of(backbone), *PARTS.of(backbone)]
    for check in found:
        yield Check(check.title, check.about, isolated(check.run), check.advisory)


@COMPUTING("it says who it is", "Heads are built on what a backbone says of itself, and images normalized by it.")
def says(backbone: BackboneSubject) -> None:
    """Name, image size, architecture and normalization are as they should be."""
    info = backbone.make().info
    expect(isinstance(info, BackboneInfo), "a BackboneInfo as info", f"it is a {type(info).__name__}", "set self.info")
    facts = {"name": (info.name, backbone.spec.name), "image_size": (info.image_size, backbone.size)}
    for what, (found, expected) in facts.items():
        expect(
            found == expected, f"info.{what} to be {expected!r}", f"it is {found!r}", "pass on what it was built with"
        )
    known = ("convolutional", "transformer")
    expect(info.architecture in known, f"an architecture of {known}", f"it is {info.architecture!r}", "choose one")
    for what, values in (("mean", info.mean), ("std", info.std)):
        fits = len(values) == 3 and all(v >= 0 for v in values) and (what == "mean" or all(v > 0 for v in values))
        expect(fits, f"three numbers as info.{what}", f"it is {values}", "give one for each of red, green and blue")


@COMPUTING("its maps are as it says", "A head is built for exact channels and grids before it sees a map.")
def maps(backbone: BackboneSubject) -> None:
    """Every map has the channels and the grid of info, and the embedding its width."""
    module, info = backbone.make().eval(), backbone.info
    features = module(backbone.images(), backbone.everything())
    expect(isinstance(features, Features), "Features from forward", f"a {type(features).__name__}", "return them")
    for index, described in enumerate(info.maps):
        shape = (2, described.channels, *described.grid)
        found = features.maps.get(index)
        expect(
            isinstance(found, Tensor) and found.shape == shape,
            f"map {index} of shape {shape}, as info says",
            f"it is {'missing' if found is None else tuple(found.shape)}",
            "give maps as B,C,H,W, and their exact grids at the image size in info",
        )
    width, embedding = (2, info.embedding_width), features.embedding
    expect(
        isinstance(embedding, Tensor) and embedding.shape == width,
        f"an embedding of shape {width}, as info says",
        f"it is {'missing' if embedding is None else tuple(embedding.shape)}",
        "give the pooled features as B,D, and D in info.embedding_width",
    )
    unfit = [name for name, value in tensors_of(features).items() if not value.isfinite().all()]
    expect(not unfit, "finite features", f"{some(unfit)} are not", "look at how the weights begin")


@COMPUTING("its strides are those of the spec", "What fits together is told by the spec, before anything is built.")
def strides(backbone: BackboneSubject) -> None:
    """The spec's strides, if it gives any, are those of info; they agree with the grids."""
    found = tuple(m.stride for m in backbone.info.maps)
    declared = backbone.spec.strides
    expect(
        not declared or declared == found or bool(backbone.subject.values),
        f"maps of strides {declared}, as the spec says",
        f"info says {found}",
        "make spec and info agree, or leave the spec's strides empty",
    )
    expect(list(found) == sorted(found), "maps from shallow to deep", f"their strides are {found}", "sort them")
    for index, described in enumerate(backbone.info.maps):
        rows, columns = described.grid
        nominal = backbone.size / described.stride
        expect(
            rows == 1 < columns or all(nominal / 2 - 1 <= side <= nominal * 2 + 1 for side in described.grid),
            f"a grid of about {nominal:.0f} points a side for map {index} of stride {described.stride}",
            f"it has {rows} x {columns}",
            "the stride is how many pixels of the image one point of the map stands for",
        )


@COMPUTING("it computes what is asked for", "A head that reads one map must not pay for the others.")
def asked(backbone: BackboneSubject) -> None:
    """Each reading gives the maps it names, the same as when everything is read, and nothing else."""
    module, images = backbone.make().eval(), backbone.images()
    with torch.no_grad():
        whole = tensors_of(module(images, backbone.everything()))
        for reads in backbone.reads():
            features = module(images, reads)
            found = tensors_of(features)
            wanted = {f"map {index}" for index in reads.maps} | ({"the embedding"} if reads.embedding else set())
            expect(
                set(found) == wanted,
                f"{text_of(reads)} and nothing else",
                f"forward gives {', '.join(found) or 'nothing'}",
                "follow reads: None for an embedding that is not asked for",
            )
            _expect_close(
                found, {name: whole[name] for name in wanted}, f"the same features when only {text_of(reads)}"
            )


@COMPUTING("an image's features are its own", "In evaluation mode they must not depend on the batch, nor on the call.")
def alone(backbone: BackboneSubject) -> None:
    """A batch gives what its images give one by one, twice the same, and changes no buffer."""
    module, images, reads = backbone.make().eval(), backbone.images(), backbone.everything()
    before = copied_state(module)
    with torch.no_grad():
        first, second = tensors_of(module(images, reads)), tensors_of(module(images, reads))
        apart = [tensors_of(module(image[None], reads)) for image in images]
    moved = changed(before, copied_state(module))
    expect(not moved, "buffers as they were", f"evaluation changes {some(moved)}", "count only while self.training")
    _expect_close(second, first, "the same features in a second call")
    joined = {name: torch.cat([one[name] for one in apart]) for name in first}
    _expect_close(first, joined, "the same features for an image in any batch")


@COMPUTING("the same seed makes the same backbone", "A run from scratch is repeated from its seed.")
def same_seed(backbone: BackboneSubject) -> None:
    """Weights come from torch's generator."""
    differing = changed(*(copied_state(backbone.make(seed=5)) for _ in range(2)))
    expect(not differing, "equal weights from equal seeds", f"{some(differing)} differ", "draw weights with torch")


@COMPUTING("a saved backbone is the backbone", "model.safetensors holds state_dict() alone: what is not in it is lost.")
def state_round_trip(backbone: BackboneSubject) -> None:
    """After a pass in training mode, its state dict makes another one compute alike."""
    first, images, reads = backbone.make(), backbone.images(4), backbone.everything()
    with torch.no_grad():
        first.train()(images, reads)
        second = backbone.make(seed=1)
        second.load_state_dict(saved_state(first))
        expected, found = (tensors_of(module.eval()(images, reads)) for module in (first, second))
    _expect_close(found, expected, "the same features from a backbone that loads its state dict")


@COMPUTING("it computes in bf16", "On a GPU the forward pass runs under autocast.")
def autocast(backbone: BackboneSubject) -> None:
    """Features under bf16 autocast are finite and near those of float32."""
    module, images, reads = backbone.make().eval(), backbone.images(), backbone.everything()
    with torch.no_grad():
        exact = tensors_of(module(images, reads))
        with torch.autocast("cpu", torch.bfloat16):
            coarse = tensors_of(module(images, reads))
    _expect_close(coarse, exact, "nearly the same features under bf16 autocast", rounding=0.2)


@COMPUTING("it computes in channels-last", "The host may lay images and weights out so; convolutions are faster then.")
def channels_last(backbone: BackboneSubject) -> None:
    """The memory format does not change the features."""
    module, images, reads = backbone.make().eval(), backbone.images(), backbone.everything()
    with torch.no_grad():
        plain = tensors_of(module(images, reads))
        module = module.to(memory_format=torch.channels_last)
        other = tensors_of(module(images.contiguous(memory_format=torch.channels_last), reads))
    _expect_close(other, plain, "the same features of channels-last images")


@COMPUTING("it computes on a GPU as well", WHY)
def elsewhere(backbone: BackboneSubject) -> None:
    """Forward makes no tensor on the CPU that meets one which is not."""
    reads = backbone.everything()
    expect_moves(backbone.make().train(), lambda module, images: module(images, reads), backbone.images())


@COMPUTING(
    "it takes a size or refuses it", "--image-size may be anything; a size that does not fit must be said, not hit."
)
def sizes(backbone: BackboneSubject) -> None:
    """For several sizes it is built and computes as it says, or raises a UsageError."""
    for size in (1, backbone.size + 1, backbone.size + 8, backbone.size * 3 // 2):
        try:
            module = backbone.make(size).eval()
        except UsageError:
            continue
        except Exception as error:
            raise ContractBroken(
                f"a UsageError (or a backbone) for images of {size} px",
                f"it raised {type(error).__name__}: {error}",
                "check the size first: ImageSizes(minimum, multiple).check(image_size, name)",
            ) from error
        last = len(module.info.maps) - 1
        with torch.no_grad():
            found = module(backbone.images(size=size), Reads((last,))).maps[last]
        expect(
            tuple(found.shape[2:]) == module.info.maps[last].grid,
            f"a grid of {module.info.maps[last].grid} at {size} px, as info says",
            f"the deepest map has {tuple(found.shape[2:])}",
            "compute the exact grid for the image size, or refuse the size",
        )


@COMPUTING("its published weights are as the spec says", "`--weights imagenet` asks the backbone, the table the spec.")
def published(backbone: BackboneSubject) -> None:
    """pretrained() and the spec agree, and strange weights are refused in words."""
    module, declared = backbone.make(), backbone.spec.pretrained
    weights = module.pretrained()
    expect(
        bool(declared) == (weights is not None),
        "weights from pretrained() where the spec names some, and nowhere else",
        f"the spec says {declared or 'none'!r} and pretrained() gives {weights!r}",
        "make them agree",
    )
    if weights is None:
        raise NotApplicable("it publishes no weights")
    expect(
        isinstance(weights, PretrainedWeights) and bool(weights.name), "PretrainedWeights", f"{weights!r}", "name them"
    )
    try:
        module.load_weights({"an entry of nothing": torch.zeros(1)})
    except FgvcError:
        return
    raise ContractBroken("an FgvcError for weights of which nothing matches", "they are loaded", "compare the names")


@COMPUTING(
    "it does not wait for the device",
    "Each value that is read off a GPU (.item(), nonzero, a mask as index) lets it run dry.",
    advisory=True,
)
def no_wait(backbone: BackboneSubject) -> None:
    """No operation of forward reads a value off the device."""
    module, images = backbone.make().train(), backbone.images()
    with torch.no_grad(), WaitWatch() as watch:
        module(images, backbone.everything())
    watch.expect_none()


def _expect_close(found: dict[str, Tensor], expected: dict[str, Tensor], what: str, rounding: float = ROUNDING) -> None:
    for name, value in expected.items():
        scale = max(1e-3, float(value.abs().max()))
        worst = float((found[name].float() - value.float()).abs().max()) / scale
        expect(
            worst <= rounding,
            what,
            f"{name} differs by {worst:.2g} of its largest value",
            "let forward depend on the image and the weights alone",
        )
