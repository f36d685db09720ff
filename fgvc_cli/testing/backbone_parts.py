"""What every backbone must keep: which of its parts there are, which are trained and which are hooked."""

from __future__ import annotations

import torch
from torch import Tensor

from fgvc_cli.contracts import Backbone, CamLayer, Reads
from fgvc_cli.errors import FgvcError
from fgvc_cli.testing.backbone_subject import BackboneSubject, tensors_of, text_of
from fgvc_cli.testing.check import Checks, ContractBroken, NotApplicable, expect, some
from fgvc_cli.testing.models import classifier_of, trainable, update_of, watched
from fgvc_cli.testing.tiny.heads import TinyHead
from fgvc_cli.testing.tiny.images import labels_of

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
