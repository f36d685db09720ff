"""Targets of a batch, and the cross entropy that accepts each form of them."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(scores: Tensor, targets: Tensor, reduction: Literal["mean", "sum"] = "mean") -> Tensor:
    """Return the cross entropy of logits N,K with any targets of N rows, in float32 at least.

    Targets with a teacher (`with_teacher`) give (1 - w) CE(y, z) + w T^2 CE(p(T), z / T). Targets with an offset o
    (`with_offset`) give the cross entropy with z + o in place of z; a teacher is imitated without it.

    Args:
        scores: logits N,K.
        targets: class indices N, rows N,K (probabilities, or these times class weights), or the wider rows of
            `with_teacher` and `with_offset`.
        reduction: mean or sum over the rows.
    """
    precise = scores.to(torch.promote_types(scores.dtype, torch.float32))
    classes = scores.shape[1]
    if targets.ndim == 1 or targets.shape[1] == classes:
        return F.cross_entropy(precise, targets, reduction=reduction)
    hard, soft, temperature = targets[:, : 2 * classes + 1].split([classes, classes, 1], dim=1)
    shifted = precise + targets[:, 2 * classes + 1 :] if targets.shape[1] > 2 * classes + 1 else precise
    rows = (hard * shifted.log_softmax(dim=1) + soft * (precise / temperature).log_softmax(dim=1)).sum(dim=1)
    return -(rows.mean() if reduction == "mean" else rows.sum())


def with_teacher(targets: Tensor, teacher: Tensor, weight: float, temperature: float, joined: bool = True) -> Tensor:
    """Return targets of knowledge distillation: part ground truth, part a teacher's probabilities p(T).

    With weight w and temperature T, the loss is (1 - w) CE(y, z) + w T^2 CE(p(T), z / T). At temperature 1 this is the
    cross entropy with (1 - w) y + w p, which is returned as probabilities. Its value differs from that with a
    Kullback-Leibler divergence by the teacher's entropy, a constant.

    Reference: Hinton, Vinyals, Dean 2015, Distilling the Knowledge in a Neural Network, arXiv 1503.02531.

    Args:
        targets: probabilities y, N,K.
        teacher: the teacher's logits N,K.
        weight: w, in [0, 1].
        temperature: T, above 0.
        joined: whether both parts become one at temperature 1.

    Returns:
        Probabilities N,K at temperature 1 if joined, else rows N,2K+1 for `cross_entropy` alone. Each row belongs to
        an image, so they can be selected and repeated like any targets.
    """
    soft = (teacher / temperature).softmax(dim=1)
    if temperature == 1 and joined:
        return (1 - weight) * targets + weight * soft
    column = torch.full_like(soft[:, :1], temperature)
    return torch.cat([(1 - weight) * targets, weight * temperature**2 * soft, column], dim=1)


def with_offset(targets: Tensor, offset: Tensor) -> Tensor:
    """Return targets whose cross entropy is that of the logits plus an offset, such as tau times the log class prior.

    Reference: Menon et al. 2021, Long-tail learning via logit adjustment, arXiv 2007.07314, equation 10.

    Args:
        targets: class indices N, rows N,K, or rows N,2K+1 of `with_teacher`, whose second part gets no offset.
        offset: K.

    Returns:
        Rows N,3K+1 for `cross_entropy` alone.
    """
    if targets.ndim == 1:
        targets = F.one_hot(targets, len(offset)).to(offset.dtype)
    if targets.shape[1] == len(offset):
        targets = torch.cat([targets, torch.zeros_like(targets), torch.ones_like(targets[:, :1])], dim=1)
    return torch.cat([targets, offset.to(targets.dtype).expand(len(targets), -1)], dim=1)
