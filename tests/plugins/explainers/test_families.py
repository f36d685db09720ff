"""Layers of class activation maps against plain autograd: a network of each of timm's families, with random weights."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor

from fgvc_explainers.recording import record

QUICK = {"pit": "pit_ti_224"}
"""A network with its maps in tuples; one with its tokens in another order is in `test_finer_and_eigen_cam`."""

SLOW = {
    "beit": "beit_base_patch16_224",
    "byoanet": "eca_botnext26ts_256",
    "byobnet": "test_byobnet",
    "cait": "cait_xxs24_224",
    "coat": "coat_tiny",
    "coat lite": "coat_lite_tiny",
    "convit": "convit_tiny",
    "convmixer": "convmixer_768_32",
    "convnext": "test_convnext",
    "cpubone": "cpubone_nano",
    "crossvit": "crossvit_tiny_240",
    "csatv2": "csatv2",
    "cspnet": "cs3darknet_focus_s",
    "cspnext": "cspnext_tiny",
    "davit": "davit_tiny",
    "deepseek_vit": "deepseek_vit_412m",
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
    "gemma4_vit": "gemma4_vit_167m",
    "ghostnet": "ghostnet_050",
    "hardcorenas": "hardcorenas_a",
    "hgnet": "hgnetv2_b0",
    "hiera": "hiera_tiny_224",
    "hieradet_sam2": "sam2_hiera_tiny",
    "hrnet": "hrnet_w18_small",
    "iformer": "iformer_t",
    "inception_next": "inception_next_atto",
    "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "lcnetv2": "lcnetv2_small",
    "levit": "levit_128s",
    "lowformer": "lowformer_b0",
    "mambaout": "test_mambaout",
    "maxxvit": "test_coatnet",
    "metaformer": "poolformerv2_s12",
    "mlp_mixer": "gmlp_ti16_224",
    "mobilenetv3": "lcnet_035",
    "mobilenetv5": "mobilenetv5_base",
    "mobilevit": "mobilevit_xxs",
    "mobilevitv2": "mobilevitv2_050",
    "mvitv2": "mvitv2_tiny",
    "mvitv2 with class token": "mvitv2_small_cls",
    "naflexvit": "naflexvit_base_patch16_gap",
    "nasnet": "nasnetalarge",
    "nest": "nest_tiny",
    "nextvit": "nextvit_small",
    "nfnet": "test_nfnet",
    "pnasnet": "pnasnet5large",
    "pvt_v2": "pvt_v2_b0",
    "qwen3_vit": "qwen3_vit_88m",
    "rdnet": "rdnet_tiny",
    "regnet": "regnetx_002",
    "repghost": "repghostnet_050",
    "repvit": "repvit_m1",
    "res2net": "res2net50_26w_4s",
    "resnest": "resnest14d",
    "resnet": "test_resnet",
    "resnetv2": "resnetv2_18",
    "rexnet": "rexnet_100",
    "selecsls": "selecsls42",
    "senet": "legacy_seresnet18",
    "sequencer": "sequencer2d_s",
    "shvit": "shvit_s1",
    "sknet": "skresnet18",
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
    "visformer": "visformer_tiny",
    "vision_transformer": "test_vit",
    "vision_transformer_hybrid": "vit_tiny_r_s16_p8_224",
    "vision_transformer_relpos": "test_vit_relpos",
    "vision_transformer_sam": "samvit_base_patch16_224",
    "vitamin": "vitamin_small_224",
    "volo": "volo_d1_224",
    "vovnet": "ese_vovnet19b_slim_dw",
    "xception": "legacy_xception",
    "xception_aligned": "xception41",
    "xception_aligned pre-activation": "xception41p",
    "xcit": "xcit_nano_12_p16_224",
}
OWN_SIZE_ONLY = ("crossvit", "efficientformer", "eva", "inception_v3", "inception_v4", "inception_resnet_v2")
SMALL = {"deepseek_vit": 84}
"""Small sizes other than 64 px: DeepSeek's must be whole groups of 3 x 3 patches."""

SMALL_ONLY = ("deepseek_vit", "gemma4_vit", "qwen3_vit")
"""At their own sizes of 546 and 768 px, attention in float64 takes several gigabytes of memory."""

BYPASSED = (
    "coat", "crossvit", "efficientvim", "hrnet", "mobilenetv5", "nasnet", "pit", "pnasnet", "selecsls", "xception",
    "xception_aligned", "xception_aligned pre-activation",
)  # fmt: skip
"""Families whose score depends on more than the points of one map: a class token, other scales, cells or states.

timm's maps of Xception are activations in a residual branch; the shortcut passes around them.
"""

ALL = QUICK | SLOW
OWN_SIZE = (pytest.mark.slow, pytest.mark.timeout(1800))
"""NASNet and PNASNet at 331 px, NaFlexViT at 384 px: minutes in float64 on one core."""

CASES = [
    *((family, 64) for family in QUICK),
    *(
        pytest.param(family, SMALL.get(family, 64), marks=pytest.mark.slow)
        for family in SLOW
        if family not in OWN_SIZE_ONLY
    ),
    *(pytest.param(family, None, marks=OWN_SIZE) for family in ALL if family not in SMALL_ONLY),
]


def on_map(recorded: Tensor, grid: tuple[int, int]) -> Tensor:
    """Reshape recorded points B,N,C to B,C,H,W."""
    return recorded.transpose(1, 2).unflatten(2, grid)


@pytest.mark.parametrize(("family", "size"), CASES)
def test_recorded_points_are_those_of_the_map(family, size, classifier_of) -> None:
    name = ALL[family]
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
        activations, cotangent = (on_map(t, recording.grid) for t in recording[:2])
        if family == "coat" and index in (
            1,
            2,
        ):  # patch tokens of three scales leave the last block: before its attention
            assert layer.module is model.parallel_blocks[-1].get_submodule(f"norm1{index + 1}")
            assert recording.gradients.any()
            continue
        torch.testing.assert_close(activations, own[index].detach())
        if layer.prefix == 0 and family not in BYPASSED:
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
