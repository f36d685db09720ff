"""What an audit knows of the images of a dataset, before it judges them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fgvc_cli.auditing.neighbors import unit_vectors
from fgvc_cli.auditing.photographs import Measures, measure
from fgvc_cli.contracts import Dataset, Split
from fgvc_cli.data.acquisition.check import CheckReport, DatasetCheck, ImageRef
from fgvc_cli.evaluation.embedding import Embedder
from fgvc_cli.formatting import counted
from fgvc_cli.scoring.features import FeatureSettings, split_features

logger = logging.getLogger(__name__)

ROWS = 1024
"""Embeddings that are read at a time."""


@dataclass(frozen=True)
class Survey:
    """The N images of all splits, in their order.

    Attributes:
        splits: the splits, "train" first.
        class_names: of the dataset.
        refs: the images.
        labels: int64 N.
        split_of: int64 N, the position of each image's split.
        report: unreadable, small and odd-shaped images, and those that are byte-identical.
        measures: of the pixels; None for images that cannot be read.
        embeddings: float32 N,D of length 1, zero for images that cannot be read; None without a backbone.
    """

    splits: Sequence[Split]
    class_names: tuple[str, ...]
    refs: Sequence[ImageRef]
    labels: np.ndarray
    split_of: np.ndarray
    report: CheckReport
    measures: Sequence[Measures | None]
    embeddings: np.ndarray | None

    def __len__(self) -> int:
        return len(self.refs)

    @property
    def readable(self) -> np.ndarray:
        """Bool N, whether an image can be read."""
        return np.array([each is not None for each in self.measures], dtype=bool)


def survey(dataset: Dataset, splits: Sequence[Split], embedder: Embedder | None, workers: int) -> Survey:
    """Decode and measure every image once, and compute the embeddings that are not kept from before.

    Args:
        dataset: of the splits.
        splits: to survey.
        embedder: computes the embeddings; None: without.
        workers: number of processes that decode; -1: one per core, 0: this one.
    """
    checking = DatasetCheck(splits, dataset.class_names, workers, measure=measure)
    checking.run()
    number = sum(map(len, splits))
    return Survey(
        splits,
        dataset.class_names,
        [checking.ref(index) for index in range(number)],
        np.concatenate([np.asarray(split.labels, dtype=np.int64) for split in splits]),
        np.repeat(np.arange(len(splits)), [len(split) for split in splits]),
        checking.report,
        [checking.measured.get(index) for index in range(number)],
        None if embedder is None else np.concatenate([_embeddings(embedder, split, dataset) for split in splits]),
    )


def _embeddings(embedder: Embedder, split: Split, dataset: Dataset) -> np.ndarray:
    """Return the embeddings of a split, float32 N,D of length 1; they are kept like those of a frozen backbone."""
    options = FeatureSettings(embedder.precision, embedder.batch_size, embedder.workers)
    found = split_features(embedder.frozen, split, dataset, options)
    values = np.zeros((len(split), embedder.width), np.float32)
    try:
        indices = np.flatnonzero(found.readable)
        for start in range(0, len(indices), ROWS):
            rows = indices[start : start + ROWS]
            features = found.batch(rows)
            maps = list(features.maps.values())
            values[rows] = maps[0].mean(dim=(2, 3)) if features.embedding is None else features.embedding
    finally:
        found.close()
    if found.computed:
        logger.info(f"embeddings of {counted(found.computed, 'image')} of {split.name} computed")
    return unit_vectors(values)
