"""How long a study will still take."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

TELLING = 0.02
"""Share of a run after which its pace says something."""


@dataclass
class Pace:
    """What runs take, learnt as they go on.

    A combination takes with one seed what it took with another; one that was never seen takes what the others take on
    average.

    Attributes:
        seconds: that finished runs took, by combination.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)

    def finished(self, combination: str, seconds: float) -> None:
        """Learn what a whole run took."""
        self.seconds.setdefault(combination, []).append(seconds)

    def left(
        self, waiting: Iterable[str], at_work: Mapping[str, tuple[str, float, float]], places: int
    ) -> float | None:
        """Return the seconds until all is done, or None as long as nothing is known.

        Args:
            waiting: the combinations of the runs that have not begun.
            at_work: of the runs at work, by name: combination, seconds so far and share done.
            places: runs that are trained at a time.
        """
        known = {combination: statistics.fmean(seconds) for combination, seconds in self.seconds.items()}
        for combination, seconds, share in at_work.values():
            if share >= TELLING:
                known.setdefault(combination, seconds / share)
        if not known:
            return None
        usual = statistics.fmean(known.values())
        begun = [
            max(0.0, (1 - share) * (seconds / share if share >= TELLING else known.get(combination, usual)))
            for combination, seconds, share in at_work.values()
        ]
        rest = sum(known.get(combination, usual) for combination in waiting)
        return max([(rest + sum(begun)) / places, *begun])
