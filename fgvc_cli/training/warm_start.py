"""Initialize the head's linear layer by a logistic regression on the embedding of the initial backbone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch

from fgvc_cli.contracts import LabeledFeatures, Reads, Split
from fgvc_cli.contracts.regression import LinearFit, fit_linear
from fgvc_cli.errors import FgvcError
from fgvc_cli.training.kept_features import features_of
from fgvc_cli.training.setup import Job


def with_probe(job: Job, check: Callable[[], object]) -> Job:
    """Give the head's linear layer the weights of a multinomial logistic regression; return the job with a note on it.

    The features are computed in evaluation mode and without augmentation, and kept like those of a probe. The strength
    of the penalty is chosen on the validation images. The first process does this for all.

    Reference: Kumar et al. 2022, Fine-Tuning Can Distort Pretrained Features and Underperform Out-of-Distribution,
    arXiv 2202.10054 (linear probing, then fine-tuning).

    Args:
        job: its head has an `embedding_layer`; its backbone has its initial weights.
        check: called after each batch whose features are computed.

    Raises:
        FgvcError: no training image can be read, or features cannot be kept.
    """
    layer, name = job.classifier.head.embedding_layer(), job.config.head.name
    assert layer is not None, "checked by `prepare`"

    def fitted() -> tuple[LinearFit, list[str]]:
        notes: list[str] = []
        train = _features(job, job.splits.train, check, notes)
        if train is None:
            raise FgvcError("no training image can be read; replace them, or change `data`")
        val = None if job.splits.val is None else _features(job, job.splits.val, check, notes)
        held_out = (None, None) if val is None else (val.features.embedding, val.labels)
        assert train.features.embedding is not None
        fit = fit_linear(train.features.embedding, train.labels, layer.out_features, *held_out)
        return LinearFit(fit.weight.cpu(), fit.bias.cpu(), fit.l2, fit.val_loss), notes

    fit, notes = job.ranks.broadcast(fitted)
    with torch.no_grad():
        layer.weight.copy_(fit.weight)
        if layer.bias is not None:
            # The offset that the loss adds to the logits is not part of the regression.
            layer.bias.copy_(fit.bias if job.balance.offset is None else fit.bias - job.balance.offset.cpu())
    quality = f", validation loss {fit.val_loss[fit.l2]:.3f}" if fit.val_loss else ""
    line = f"Head {name} starts from a logistic regression on the embedding (l2 {fit.l2:.2g}{quality})."
    return replace(job, weights=f"{job.weights} {line}", notes=[*job.notes, *notes, line])


def _features(job: Job, split: Split, check: Callable[[], object], notes: list[str]) -> LabeledFeatures | None:
    """Return the embeddings of the readable images of a split, and add to the notes where they are kept."""
    found = features_of(job, split, Reads(embedding=True), lambda _: check())
    found.close()
    notes.extend(found.notes)
    return found.labeled(job.device) if found.readable.any() else None
