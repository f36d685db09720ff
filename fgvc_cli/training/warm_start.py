"""Initialize the head's linear layer by a logistic regression on the embedding of the initial backbone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from fgvc_cli.contracts import Head, LabeledFeatures, Reads, Split
from fgvc_cli.contracts.regression import LinearFit, fit_linear
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.scoring.features import FeatureSettings, FrozenBackbone, split_features
from fgvc_cli.training.setup import Job


def check_layer(head: Head, name: str) -> nn.Linear:
    """Return the layer of the head called `name` that is initialized.

    Raises:
        UsageError: it has none.
    """
    layer = head.embedding_layer()
    if layer is None:
        raise UsageError(
            f"`train.head_init=probe`: head {name} has no linear layer on the embedding of the backbone that a "
            "regression could initialize; use `train.head_init=random`, or `head=linear`"
        )
    return layer


def initialize_head(job: Job, workers: int, on_images: Callable[[int], object]) -> list[str]:
    """Give the head's linear layer the weights of a multinomial logistic regression, and return lines for the user.

    The features are computed in evaluation mode and without augmentation, and kept like those of a probe. The strength
    of the penalty is chosen on the validation images. The first process does this for all.

    Reference: Kumar et al. 2022, Fine-Tuning Can Distort Pretrained Features and Underperform Out-of-Distribution, arXiv
    2202.10054 (linear probing, then fine-tuning).

    Args:
        job: its head is `linear` or another with an `embedding_layer`; its backbone has its initial weights.
        workers: processes that read images.
        on_images: called with the number of images of each batch whose features are computed.

    Raises:
        UsageError: the head has no such layer.
        FgvcError: no training image can be read, or features cannot be kept.
    """
    layer = check_layer(job.classifier.head, job.config.head.name)

    def fitted() -> tuple[LinearFit, list[str]]:
        notes: list[str] = []
        train = _features(job, job.splits.train, workers, on_images, notes)
        if train is None:
            raise FgvcError("no training image can be read; replace them, or change `data`")
        val = None if job.splits.val is None else _features(job, job.splits.val, workers, on_images, notes)
        held_out = (None, None) if val is None else (val.features.embedding, val.labels)
        assert train.features.embedding is not None
        fit = fit_linear(train.features.embedding, train.labels, layer.out_features, *held_out)
        return LinearFit(fit.weight.cpu(), fit.bias.cpu(), fit.l2, fit.val_loss), notes

    fit, notes = job.ranks.broadcast(fitted)
    with torch.no_grad():
        layer.weight.copy_(fit.weight)
        if layer.bias is not None:
            layer.bias.copy_(fit.bias)
    quality = f", validation loss {fit.val_loss[fit.l2]:.3f}" if fit.val_loss else ""
    name = job.config.head.name
    return [*notes, f"head {name} starts from a logistic regression on the frozen embedding (l2 {fit.l2:.2g}{quality})"]


def _features(
    job: Job, split: Split, workers: int, on_images: Callable[[int], object], notes: list[str]
) -> LabeledFeatures | None:
    """Return the embeddings of the readable images of a split, and add to the notes where they are kept."""
    frozen = FrozenBackbone(job.classifier.backbone, Reads(embedding=True), job.classifier.preprocessing)
    train = job.config.train
    options = FeatureSettings(job.precision, train.batch_size, workers, train.strict_data, train.cache)
    found = split_features(frozen, split, job.dataset, options, on_images)
    found.close()
    notes.extend(found.notes)
    return found.labeled(job.device) if found.readable.any() else None
