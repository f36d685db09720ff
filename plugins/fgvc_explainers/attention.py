"""Attention rollout and LeGrad: explainers of plain transformers, from the attention maps of their blocks.

The maps are taken where they are computed, by a mode that sees PyTorch's calls: while it is active, fused attention,
which never forms them, is computed step by step. No module or setting of the network changes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from fgvc_cli import FgvcError, UsageError
from fgvc_cli.contracts import Classifier, Explainer, TokenBlocks
from fgvc_cli.options import NoOptions
from fgvc_explainers.options import LeGradOptions
from fgvc_explainers.recording import at_image_size, frozen, score_of_target, stretched

SOFTMAX = (torch.Tensor.softmax, torch.softmax, F.softmax)

OnAttention = Callable[[int, Tensor], Tensor]
"""Called with the number of a block and its attention B,h,N,N; returns what takes its place."""


class AttentionMode(TorchFunctionMode):
    """Passes the attention maps of blocks, once each, to a function, and uses what it returns.

    An attention map is the softmax over the keys in scaled dot-product attention, fused or not, if it is B,h,N,N.

    Attributes:
        block: number of the block that runs; None: none, or one that ran before.
        seen: number of attention maps in each block.

    Args:
        on_attention: see `OnAttention`.
        blocks: number of blocks.
        images, tokens: B and N.
    """

    def __init__(self, on_attention: OnAttention, blocks: int, images: int, tokens: int) -> None:
        super().__init__()
        self.on_attention, self.images, self.tokens = on_attention, images, tokens
        self.block: int | None = None
        self.seen = [0] * blocks

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Compute a function; within it the mode is inactive."""
        kwargs = kwargs or {}
        if self.block is None:
            return func(*args, **kwargs)
        if func is F.scaled_dot_product_attention:
            return self._attend(*args, **kwargs)
        result = func(*args, **kwargs)
        return self._passed(result) if func in SOFTMAX else result

    def _attend(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,  # noqa: ARG002  0 in evaluation mode
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """Compute scaled dot-product attention as the documentation of PyTorch defines it."""
        if enable_gqa:
            key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], dim=-3) for t in (key, value))
        logits = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
        if is_causal:
            later = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(1)
            logits = logits.masked_fill(later, -torch.inf)
        if attn_mask is not None:
            masked = attn_mask.dtype == torch.bool
            logits = logits.masked_fill(~attn_mask, -torch.inf) if masked else logits + attn_mask
        attention = self._passed(logits.softmax(dim=-1))
        return attention.to(value.dtype) @ value

    def _passed(self, attention: Tensor) -> Tensor:
        if attention.ndim != 4 or attention.shape[0] != self.images or attention.shape[2:] != (self.tokens,) * 2:
            return attention
        assert self.block is not None
        self.seen[self.block] += 1
        return self.on_attention(self.block, attention)


@contextmanager
def attention_of(
    blocks: TokenBlocks, images: int, on_attention: OnAttention, on_block: Callable[[int, Tensor], Tensor]
) -> Iterator[AttentionMode]:
    """Call functions with the attention maps and the output of each block, the first time that it runs.

    Args:
        blocks: of the backbone.
        images: B.
        on_attention: see `OnAttention`.
        on_block: called with the number of a block and its output B,N,C; returns what takes its place.
    """
    mode = AttentionMode(on_attention, len(blocks.modules), images, _tokens(blocks))
    ran: set[int] = set()

    def before(number: int) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object) -> None:  # noqa: ARG001
            mode.block = None if number in ran else number

        return hook

    def after(number: int) -> Callable[..., Tensor | None]:
        def hook(module: nn.Module, inputs: object, output: Tensor) -> Tensor | None:  # noqa: ARG001
            mode.block = None
            if number in ran:
                return None
            ran.add(number)
            return on_block(number, output)

        return hook

    with ExitStack() as stack:
        for number, module in enumerate(blocks.modules):
            stack.callback(module.register_forward_pre_hook(before(number)).remove)
            stack.callback(module.register_forward_hook(after(number)).remove)
        stack.enter_context(torch.compiler.set_stance("force_eager"))  # compiled code skips hooks
        stack.enter_context(mode)
        yield mode


class TokenExplainer(Explainer):
    """Base class for explainers of plain transformers; subclasses override `relevance`."""

    name: ClassVar[str]

    @abstractmethod
    def relevance(self, classifier: Classifier, blocks: TokenBlocks, images: Tensor, targets: Tensor) -> Tensor:
        """Return the relevance B,N of the tokens, prefix included, not negative; parameters are frozen."""

    def explain(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Return maps B,S,S of images B,3,S,S for target classes B: from 0, the lowest relevance, to 1, the highest.

        Raises:
            UsageError: the backbone is not a plain transformer.
            FgvcError: the score does not depend on its tokens by a gradient.
        """
        blocks, targets = self._blocks(classifier), targets.to(images.device)
        with frozen(classifier):
            tokens = self.relevance(classifier, blocks, images.detach(), targets)
        with torch.no_grad(), torch.autocast(images.device.type, enabled=False):
            points = tokens[:, blocks.prefix :].float().unflatten(1, blocks.grid)
            return stretched(at_image_size(points, (images.shape[2], images.shape[3])))

    def check(self, classifier: Classifier) -> None:
        """Explain a black image, to find out whether each block attends once.

        Raises:
            UsageError: one does not, or the backbone is not a plain transformer.
        """
        size = classifier.preprocessing.image_size
        black = torch.zeros(1, 3, size, size, device=classifier.device)
        self.explain(classifier, black, torch.zeros(1, dtype=torch.int64))

    def _blocks(self, classifier: Classifier) -> TokenBlocks:
        try:
            return classifier.backbone.token_blocks()
        except FgvcError as error:
            raise self._refusal(str(error)) from error

    def _expect_attention(self, classifier: Classifier, seen: Sequence[int]) -> None:
        """Refuse a network unless each block attends once, from every token to every token."""
        odd = next((number for number, count in enumerate(seen) if count != 1), None)
        if odd is not None:
            found = f"{seen[odd]} such attention maps" if seen[odd] else "no such attention map"
            raise self._refusal(f"block {odd} of {classifier.backbone.info.name} has {found}")

    def _refusal(self, reason: str) -> UsageError:
        return UsageError(
            f"{self.name} explains plain transformers (ViT, DeiT, BEiT, EVA), in which each block attends once, from "
            f"every token to every token: {reason}; use the explainer gradcam"
        )


class Rollout(TokenExplainer):
    """Attention rollout (Abnar, Zuidema 2020, ACL, arXiv 2005.00928), independent of the class.

    With A_l the attention of block l, averaged over its heads, the residual connection is an identity of equal weight:

        R_l = (A_l + I) / 2  R_(l-1)        R_0 = I

    The map is the row of R_L of the token that the score is read from: the class token. If several are read, it is the
    mean of their rows: all tokens if they are averaged, the points that pim selects. Those are the tokens at which the
    score has a gradient.

    Args:
        options: none.
    """

    name = "rollout"
    class_specific = False

    def __init__(self, options: NoOptions) -> None:
        self.options = options

    def relevance(self, classifier: Classifier, blocks: TokenBlocks, images: Tensor, targets: Tensor) -> Tensor:
        """Return the mean row of the rollout, over the tokens that the score is read from."""
        rolled, last = torch.eye(_tokens(blocks), device=images.device), len(blocks.modules) - 1
        read: list[Tensor] = []

        def on_attention(number: int, attention: Tensor) -> Tensor:  # noqa: ARG001
            nonlocal rolled
            with torch.autocast(images.device.type, enabled=False):
                mean = attention.float().mean(dim=1)
                rolled = (mean @ rolled + rolled) / 2
            return attention

        def on_block(number: int, tokens: Tensor) -> Tensor:
            if number < last:
                return tokens
            read.append(tokens.detach().requires_grad_())
            torch.set_grad_enabled(True)  # until the end of the `no_grad` around the whole pass
            return read[0].clone()

        with torch.no_grad():
            with attention_of(blocks, len(images), on_attention, on_block) as mode:
                scores = classifier.scores(images)
            self._expect_attention(classifier, mode.seen)
            (gradient,) = _gradients(scores, targets, read)
        rows = (gradient != 0).any(dim=2).float()  # (B, N)
        return (rows.unsqueeze(1) @ rolled).squeeze(1) / rows.sum(dim=1, keepdim=True).clamp_min(1)


class LeGrad(TokenExplainer):
    """LeGrad (Bousselham et al. 2025, ICCV, arXiv 2404.03214): sensitivity of the score to each block's attention.

    s_l is the class's score if the network ended after block l: its tokens go through the last norm, the pooling and
    the head. With A_l the attention of block l (h heads, N tokens), seen as the only variable of s_l:

        E_l,j = 1/(h N) sum_h,i ReLU(d s_l / d A_l,hij)        map = mean over l of E_l

    Args:
        options: see `LeGradOptions`.
    """

    name = "legrad"

    def __init__(self, options: LeGradOptions) -> None:
        self.options = options

    def check(self, classifier: Classifier) -> None:
        """Check that the score is read from the last tokens alone, and explain a black image.

        Raises:
            UsageError: the head reads maps, or the backbone is not a plain transformer.
        """
        if classifier.head.reads().maps:
            raise UsageError(
                f"legrad applies the head to the tokens of each block, and {type(classifier.head).__name__} reads the "
                "maps of several; use the explainer rollout or gradcam, or a head on the embedding, such as linear"
            )
        super().check(classifier)

    def relevance(self, classifier: Classifier, blocks: TokenBlocks, images: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over the blocks, computed for a few images at a time."""
        chunks = zip(images.split(self.options.passes), targets.split(self.options.passes), strict=True)
        return torch.cat([self._relevance(classifier, blocks, *chunk) for chunk in chunks])

    def _relevance(self, classifier: Classifier, blocks: TokenBlocks, images: Tensor, targets: Tensor) -> Tensor:
        count = len(blocks.modules)
        first = max(0, count - self.options.layers) if self.options.layers else 0
        leaves: list[Tensor] = []
        outputs: list[Tensor] = []

        def on_attention(number: int, attention: Tensor) -> Tensor:
            if number < first:
                return attention
            leaves.append(attention.detach().requires_grad_())
            return leaves[-1]

        def on_block(number: int, tokens: Tensor) -> Tensor:
            if number >= first:
                outputs.append(tokens)
            return torch.cat(outputs) if number == count - 1 else tokens.detach()

        with torch.enable_grad(), attention_of(blocks, len(images), on_attention, on_block) as mode:
            scores = classifier.scores(images)  # of all blocks, one after the other, from one pass
        self._expect_attention(classifier, mode.seen)
        gradients = _gradients(scores, targets.repeat(count - first), leaves)
        return torch.stack([gradient.float().relu().mean(dim=(1, 2)) for gradient in gradients]).mean(dim=0)


def _tokens(blocks: TokenBlocks) -> int:
    return blocks.prefix + blocks.grid[0] * blocks.grid[1]


def _gradients(scores: Tensor, targets: Tensor, leaves: Sequence[Tensor]) -> Sequence[Tensor]:
    """Return the gradients of the sum of the targets' scores.

    Raises:
        FgvcError: there are none.
    """
    with torch.enable_grad(), torch.autocast(scores.device.type, enabled=False):
        chosen = score_of_target(scores, targets).sum()
    if not chosen.requires_grad:
        raise FgvcError("the scores have no gradient with respect to the backbone: the head computes without gradients")
    with torch.autocast(scores.device.type, enabled=False):
        return torch.autograd.grad(chosen, leaves, materialize_grads=True)
