"""Layers of class activation maps against plain autograd: a network of each of timm's families, with random weights."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor

from fgvc_explainers.cam import record

QUICK = {"hiera": "hiera_tiny_224", "pit": "pit_ti_224"}
"""A network with its tokens in another order, and one with its maps in tuples."""

SLOW = {
    "beit": "beit_base_patch16_224",
    "byobnet": "test_byobnet",
    "cait": "cait_xxs24_224",
    "coat": "coat_tiny",
    "coat lite": "coat_lite_tiny",
    "convit": "convit_tiny",
    "convmixer": "convmixer_768_32",
    "convnext": "test_convnext",
    "crossvit": "crossvit_tiny_240",
    "cspnet": "cs3darknet_focus_s",
    "davit": "davit_tiny",
    "deit": "deit_tiny_distilled_patch16_224",
    "densenet": "densenet121",
    "dla": "dla46x_c",
    "dpn": "dpn48b",
    "edgenext": "edgenext_xx_small",
    "efficientformer": "efficientformer_l1",
    "efficientformer_v2": "efficientformerv2_s0",
    "efficientnet": "test_efficientnet",
    "efficientvim": "efficientvim_m1",
    "efficientvit_mit": "efficientvit_b0",
    "efficientvit_msra": "efficientvit_m0",
    "eva": "eva02_tiny_patch14_224",
    "fasternet": "fasternet_t0",
    "fastvit": "fastvit_t8",
    "focalnet": "focalnet_tiny_srf",
    "gcvit": "gcvit_xxtiny",
    "ghostnet": "ghostnet_050",
    "hgnet": "hgnetv2_b0",
    "hieradet_sam2": "sam2_hiera_tiny",
    "hrnet": "hrnet_w18_small",
    "inception_next": "inception_next_atto",
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "inception_resnet_v2": "inception_resnet_v2",
    "levit": "levit_128s",
    "mambaout": "test_mambaout",
    "maxxvit": "test_coatnet",
    "metaformer": "poolformerv2_s12",
    "mlp_mixer": "gmlp_ti16_224",
    "mobilenetv3": "lcnet_035",
    "mvitv2": "mvitv2_tiny",
    "mvitv2 with class token": "mvitv2_small_cls",
    "nest": "nest_tiny",
    "nextvit": "nextvit_small",
    "nfnet": "test_nfnet",
    "pvt_v2": "pvt_v2_b0",
    "rdnet": "rdnet_tiny",
    "regnet": "regnetx_002",
    "repghost": "repghostnet_050",
    "repvit": "repvit_m1",
    "resnet": "test_resnet",
    "resnetv2": "resnetv2_18",
    "rexnet": "rexnet_100",
    "selecsls": "selecsls42",
    "senet": "legacy_seresnet18",
    "sequencer": "sequencer2d_s",
    "shvit": "shvit_s1",
    "starnet": "starnet_s050",
    "swiftformer": "swiftformer_xs",
    "swin_transformer": "swin_tiny_patch4_window7_224",
    "swin_transformer_v2": "swinv2_tiny_window8_256",
    "swin_transformer_v2_cr": "swinv2_cr_tiny_224",
    "tiny_vit": "tiny_vit_5m_224",
    "tnt": "tnt_s_legacy_patch16_224",
    "tresnet": "tresnet_m",
    "twins": "twins_svt_small",
    "vgg": "vgg11",
    "vision_transformer": "test_vit",
    "vision_transformer_relpos": "test_vit_relpos",
    "vision_transformer_sam": "samvit_base_patch16_224",
    "visformer": "visformer_tiny",
    "vovnet": "ese_vovnet19b_slim_dw",
    "xception": "legacy_xception",
}
OWN_SIZE_ONLY = ("crossvit", "efficientformer", "eva", "inception_v3", "inception_v4", "inception_resnet_v2")
BYPASSED = ("crossvit", "efficientvim", "hrnet", "pit", "selecsls")
"""Families whose score depends on more than the points of one map: a class token, other branches or states."""

OPEN = {
    ("coat", 64): "no module outputs CoaT's shallow maps",
    ("coat", None): "no module outputs CoaT's shallow maps",
    ("xception", 64): "the slope through the map differs from that of the score",
}
"""Cases that do not work yet, and why."""

ALL = QUICK | SLOW
CASES = [
    *((family, 64) for family in QUICK),
    *(pytest.param(family, 64, marks=pytest.mark.slow) for family in SLOW if family not in OWN_SIZE_ONLY),
    *(pytest.param(family, None, marks=pytest.mark.slow) for family in ALL),
]


def on_map(recorded: Tensor, grid: tuple[int, int]) -> Tensor:
    """Reshape recorded points B,N,C to B,C,H,W."""
    return recorded.transpose(1, 2).unflatten(2, grid)


@pytest.mark.parametrize(("family", "size"), CASES)
def test_recorded_points_are_those_of_the_map(family, size, classifier_of) -> None:
    name = ALL[family]
    if (family, size) in OPEN:
        pytest.xfail(OPEN[family, size])
    if not timm.is_model(name):
        pytest.skip(f"timm {timm.__version__} has no {name}")
    size = size or timm.get_pretrained_cfg(name).input_size[-1]
    classifier = classifier_of(f"timm/{name}", "linear", size).double()
    model, maps = classifier.backbone.model, classifier.backbone.info.maps
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(1, 3, size, size, generator=generator, dtype=torch.float64).requires_grad_()
    target = torch.tensor([2])
    (slope,) = torch.autograd.grad(classifier.scores(images)[0, 2], images)
    own = model.forward_intermediates(images, intermediates_only=True)[-len(maps) :]
    checked = 0
    for index in (*range(len(maps)), None):
        layer = classifier.backbone.cam_layer(index)
        gradient = plain_gradient(classifier, layer, images)
        if gradient is None:  # patch tokens that leave the last block of a network with a class token
            assert index == len(maps) - 1
            continue
        recording = record(classifier, layer, images, target)
        values = torch.sort(recording.gradients.flatten()).values
        torch.testing.assert_close(values, torch.sort(gradient.flatten()).values, rtol=1e-9, atol=1e-12)
        if index is None:
            assert recording.gradients.any()
            continue
        assert recording.grid == maps[index].grid
        torch.testing.assert_close(on_map(recording.activations, recording.grid), own[index].detach())
        if layer.prefix == 0 and family not in BYPASSED:
            cotangent = on_map(recording.gradients, recording.grid)
            (through,) = torch.autograd.grad(own[index], images, cotangent, retain_graph=True)
            torch.testing.assert_close(through, slope, rtol=1e-6, atol=1e-9 * float(slope.abs().max()))
            checked += 1
    assert checked or layer.prefix or family in BYPASSED


def plain_gradient(classifier, layer, images: Tensor) -> Tensor | None:
    """Return the gradient at a layer's output, prefix tokens left out; None if the score does not depend on it."""
    outputs: list[Tensor] = []
    handle = layer.module.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    score = classifier.scores(images)[0, 2]
    handle.remove()
    (gradient,) = torch.autograd.grad(score, outputs[0], allow_unused=True)
    if gradient is None:
        return None
    return gradient[:, layer.prefix :] if layer.layout == "BNC" else gradient
