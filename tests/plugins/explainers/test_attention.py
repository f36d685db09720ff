"""Attention rollout and LeGrad against the papers' formulas and torchcam, and on networks that they refuse."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from fgvc_cli import UsageError
from fgvc_explainers.attention import AttentionMode, attention_of
from fgvc_explainers.recording import at_image_size, stretched

NAMES = ("rollout", "legrad")
VIT = "timm/test_vit"


def walk(classifier, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Run a ViT by hand: the attention B,h,N,N of each block, and the tokens that leave it if its input is constant."""
    model = classifier.backbone.model
    x = model.norm_pre(model._pos_embed(model.patch_embed(images)))
    attentions, outputs = [], []
    for block in model.blocks:
        x = x.detach()
        q, k, v = block.attn.qkv(block.norm1(x)).unflatten(2, (3, block.attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attention = (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1).detach().requires_grad_()
        x = x + block.attn.proj((attention @ v).transpose(1, 2).flatten(2))
        x = x + block.mlp(block.norm2(x))
        attentions.append(attention)
        outputs.append(x)
    return attentions, outputs


def score_of_tokens(classifier, tokens: Tensor) -> Tensor:
    """Return scores from the tokens of any block: last norm, class token, head."""
    model = classifier.backbone.model
    return classifier.head.classifier(model.forward_head(model.norm(tokens), pre_logits=True))


def on_image(tokens: Tensor, prefix: int = 1) -> Tensor:
    """Bring the relevance B,N of tokens to the image."""
    return stretched(at_image_size(tokens[:, prefix:].unflatten(1, (4, 4)), (64, 64)))


@pytest.fixture(scope="module")
def vit(classifier_of):
    return classifier_of(VIT, "linear")


def test_rollout_is_the_row_of_the_class_token(vit, explainer_of, images_of):
    images, targets = images_of(3)
    rolled = torch.eye(17)
    for attention in walk(vit, images)[0]:
        mixed = attention.mean(dim=1) + torch.eye(17)
        rolled = mixed / mixed.sum(dim=-1, keepdim=True) @ rolled
    maps = explainer_of("rollout").explain(vit, images, targets)
    torch.testing.assert_close(maps, on_image(rolled[:, 0].detach()), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("head", ["linear", "cmal"])
def test_rollout_averages_the_tokens_that_the_score_is_read_from(head, classifier_of, explainer_of, images_of):
    classifier = classifier_of("timm/test_vit_relpos" if head == "linear" else VIT, head)  # which pools its tokens
    images, targets = images_of(2)
    blocks = classifier.backbone.token_blocks()
    found: list[Tensor] = []
    keep = lambda number, attention: found.append(attention.mean(dim=1)) or attention  # noqa: E731
    with torch.no_grad(), attention_of(blocks, len(images), keep, lambda number, tokens: tokens):
        classifier.scores(images)
    tokens = blocks.prefix + blocks.grid[0] * blocks.grid[1]
    rolled = torch.eye(tokens)
    for attention in found:
        rolled = (attention + torch.eye(tokens)) / 2 @ rolled
    expected = on_image(rolled[:, blocks.prefix :].mean(dim=1), blocks.prefix)
    torch.testing.assert_close(
        explainer_of("rollout").explain(classifier, images, targets), expected, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("layers", [0, 2])
def test_legrad_is_the_papers_formula(layers, vit, explainer_of, images_of):
    images, targets = images_of(3)
    total = torch.zeros(3, 17)
    for attention, tokens in list(zip(*walk(vit, images), strict=True))[-layers:]:
        score = score_of_tokens(vit, tokens)[torch.arange(3), targets].sum()
        (gradient,) = torch.autograd.grad(score, attention)
        total += gradient.clamp(min=0).mean(dim=(1, 2))
    maps = explainer_of("legrad", layers=layers, passes=2).explain(vit, images, targets)
    torch.testing.assert_close(maps, on_image(total), rtol=1e-3, atol=1e-3)


def test_legrad_agrees_with_torchcam(vit, explainer_of, images_of):
    """On torchvision's ViT with the same weights."""
    torchcam, model = pytest.importorskip("torchcam.methods", exc_type=ImportError), vit.backbone.model
    if not hasattr(torchcam, "LeGrad"):
        pytest.skip("this torchcam has no LeGrad")
    from torchvision.models import VisionTransformer

    width, depth = model.embed_dim, len(model.blocks)
    other = VisionTransformer(
        64, 16, depth, model.blocks[0].attn.num_heads, width, model.blocks[0].mlp.fc1.out_features
    )
    own, state = model.state_dict(), other.state_dict()
    names = {"class_token": "cls_token", "encoder.pos_embedding": "pos_embed"}
    names |= {f"conv_proj.{p}": f"patch_embed.proj.{p}" for p in ("weight", "bias")}
    parts = {"ln_1.{}": "norm1.{}", "self_attention.in_proj_{}": "attn.qkv.{}", "ln_2.{}": "norm2.{}"}
    parts |= {"self_attention.out_proj.{}": "attn.proj.{}", "mlp.0.{}": "mlp.fc1.{}", "mlp.3.{}": "mlp.fc2.{}"}
    for number in range(depth):
        for theirs, ours in parts.items():
            for p in ("weight", "bias"):
                names[f"encoder.layers.encoder_layer_{number}.{theirs.format(p)}"] = f"blocks.{number}.{ours.format(p)}"
    other.load_state_dict(state | {theirs: own[ours].view_as(state[theirs]) for theirs, ours in names.items()})
    images, targets = images_of(3)
    blocks = list(other.eval().encoder.layers)
    with torchcam.LeGrad(other, blocks, score_projection=lambda tokens: score_of_tokens(vit, tokens)) as extractor:
        scores = other(images)
        expected = extractor(targets.tolist(), scores)[0]
    maps = explainer_of("legrad").explain(vit, images, targets)
    torch.testing.assert_close(maps, stretched(at_image_size(expected, (64, 64))), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("backbone", ["timm/test_resnet", "timm/test_convnext", "timm/swin_tiny_patch4_window7_224"])
def test_other_networks_are_refused_in_one_line(name, backbone, classifier_of, explainer_of):
    explainer, classifier = explainer_of(name), classifier_of(backbone, "linear")
    for asked in (explainer.check, lambda c: explainer.explain(c, torch.zeros(1, 3, 64, 64), torch.tensor([0]))):
        with pytest.raises(UsageError, match=f"^{name} explains plain transformers .*{backbone}.*$"):
            asked(classifier)


@pytest.mark.parametrize("name", NAMES)
def test_a_block_without_attention_is_refused(name, classifier_of, explainer_of, monkeypatch):
    classifier = classifier_of(VIT, "linear")
    monkeypatch.setattr(classifier.backbone.model.blocks[2].attn, "forward", lambda x, **_: x)
    with pytest.raises(UsageError, match="block 2 of timm/test_vit has no such attention map"):
        explainer_of(name).check(classifier)


@pytest.mark.parametrize("head", ["pim", "cmal"])
def test_legrad_refuses_heads_that_read_maps(head, classifier_of, explainer_of):
    with pytest.raises(UsageError, match="rollout or gradcam"):
        explainer_of("legrad").check(classifier_of(VIT, head))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale": 0.3},
        {"is_causal": True},
        {"attn_mask": torch.linspace(-1, 1, 25).view(5, 5)},
        {"attn_mask": torch.eye(5) == 0},
        {"enable_gqa": True},
    ],
    ids=str,
)
def test_attention_step_by_step_equals_the_fused_one(options):
    generator = torch.Generator().manual_seed(0)
    heads = 2 if "enable_gqa" in options else 4
    q, k, v = (torch.randn(2, h, 5, 8, generator=generator) for h in (4, heads, heads))
    fused = torch.nn.functional.scaled_dot_product_attention
    mode = AttentionMode(lambda number, attention: attention, 1, 2, 5)
    mode.block = 0
    with mode:
        found = fused(q, k, v, **options)
    torch.testing.assert_close(found, fused(q, k, v, **options))
    assert mode.seen == [1]


def test_the_network_computes_the_same_with_and_without_fused_attention(vit, images_of):
    images, expected = images_of(2)[0], {}
    blocks = vit.backbone.token_blocks()
    for fused in (True, False):
        for block in blocks.modules:
            block.attn.fused_attn = fused
        with torch.no_grad():
            expected[fused] = vit.scores(images)
            with attention_of(blocks, 2, lambda number, attention: attention, lambda number, x: x) as mode:
                found = vit.scores(images)
        torch.testing.assert_close(found, expected[fused], rtol=1e-4, atol=1e-5)
        assert mode.seen == [1] * len(blocks.modules)
