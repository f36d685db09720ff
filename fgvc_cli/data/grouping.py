"""Group the images of a dataset: those of one group stay together when splits are drawn."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence

from fgvc_cli.contracts import Dataset, Split
from fgvc_cli.data.splits import quoted_names, subset
from fgvc_cli.data.wrapping import WrappedDataset
from fgvc_cli.errors import UsageError, did_you_mean
from fgvc_cli.formatting import counted

logger = logging.getLogger(__name__)

FOLDER = "folder"
"""Groups images by the folder that they are in."""


class GroupedDataset(WrappedDataset):
    """A dataset whose images have groups.

    Args:
        dataset: the dataset.
        by: what images of one group have in common: the value of an attribute of the dataset, such as a column of a
            table; `FOLDER`; or what a regular expression captures in an image's key, the path below its split's folder.
            An image without a value is a group of its own.

    Raises:
        UsageError: `by` is none of these, or matches no key; in `split`: it does not match all keys.
    """

    def __init__(self, dataset: Dataset, by: str) -> None:
        super().__init__(dataset)
        names = dataset.attributes()
        exact = [name for name in names if name == by] or [name for name in names if name.lower() == by.lower()]
        self._what = f"`group_by={by}`"
        if len(exact) > 1:
            raise UsageError(f"{self._what}: several columns of {self.name} have this name; rename all but one of them")
        self._pattern = None if exact else self._compiled(by)
        self._attribute = exact[0] if exact else ""
        self._noted: set[str] = set()

    def split(self, name: str) -> Split:
        """Return a split with groups."""
        split = self.dataset.split(name)
        grouped = subset(split, range(len(split)), split.name, split.origin)
        grouped.groups = self._by_attribute(split) if self._attribute else list(self._by_key(split))
        return grouped

    def _compiled(self, by: str) -> re.Pattern[str]:
        if by == FOLDER:
            return re.compile("(?s)^(.*)/")
        try:
            pattern = re.compile(by)
        except re.error as error:
            raise UsageError(f"{self._what} is not a regular expression: {error}") from error
        if pattern.groups != 1:
            columns = self.dataset.attributes()
            known = f" Columns: {', '.join(columns)}." if columns else ""
            raise UsageError(
                f"{self._what}: {self.name} has no such column.{did_you_mean(by, (*columns, FOLDER))}{known} Else give "
                "`folder`, or a regular expression that captures the group in the image's path, such as `([^/_]+)_`"
            )
        return pattern

    def _by_attribute(self, split: Split) -> list[str]:
        """Return the values of the attribute; an image without one has its key, after a character no value has."""
        values = [value.strip() for value in self.dataset.attribute(self._attribute, split.name)]
        if (empty := values.count("")) and split.name not in self._noted:
            self._noted.add(split.name)
            logger.info(
                f"{counted(empty, 'image')} of {split.name} {'has' if empty == 1 else 'have'} no "
                f"{self._attribute}: each is a group of its own"
            )
        return [value or f"\0{key}" for value, key in zip(values, split.keys, strict=True)]

    def _by_key(self, split: Split) -> Iterator[str]:
        assert self._pattern is not None
        found = [self._pattern.search(key) for key in split.keys]
        unmatched = [key for key, match in zip(split.keys, found, strict=True) if match is None]
        if unmatched:
            raise UsageError(
                f"{self._what} does not match {counted(len(unmatched), 'image')} of {split.name}: "
                f"{quoted_names(unmatched)}"
            )
        return (match[1] or f"\0{key}" for match, key in zip(found, split.keys, strict=True) if match is not None)


def warn_of_shared_groups(splits: Sequence[Split]) -> None:
    """Warn once of groups that are in several splits, whose results are then too good."""
    found = {split.name: set(split.groups) for split in splits if split.groups is not None}
    names = list(found)
    shared, pairs = set[str](), list[str]()
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            if both := found[first] & found[second]:
                shared |= both
                pairs.append(f"{len(both)} in {first} and {second}")
    if shared:
        are = "1 group is" if len(shared) == 1 else f"{len(shared):,} groups are"
        listed = quoted_names(sorted(name.removeprefix("\0") for name in shared))
        logger.warning(
            f"{are} in more than one split ({', '.join(pairs)}), so that results on them are too good: {listed}"
        )
