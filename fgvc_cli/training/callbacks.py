"""Experiment trackers and plugin hooks that follow a training."""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from fgvc_cli.config.run_config import Choice
from fgvc_cli.contracts import RunStart, Tracker
from fgvc_cli.errors import FgvcError, cause_of
from fgvc_cli.registry import Component

logger = logging.getLogger(__name__)

__all__ = ["RunStart", "Trackers", "make_trackers"]


@dataclass
class _Active:
    """A tracker that is on, and whether what it raised was warned of."""

    component: Component
    tracker: Tracker
    warned: bool = False


class Trackers:
    """The trackers of one training; each is told alone, and one that raises stops neither the others nor the run.

    As a context, it sees to it that every one which was told of the start is told of the end.
    """

    def __init__(self, made: Sequence[tuple[Component, Tracker]] = ()) -> None:
        self._made = [_Active(component, tracker) for component, tracker in made]
        self._listening: list[_Active] = []

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.finished(None)

    def started(self, run: RunStart) -> None:
        """Tell them that training is about to start.

        Raises:
            FgvcError: one cannot be told; the run has not begun.
        """
        for one in self._made:
            try:
                with redirect_stdout(sys.stderr):
                    one.tracker.started(replace(run, config=copy.deepcopy(run.config)))
            except (Exception, SystemExit) as error:
                raise FgvcError(
                    f"{_named(one.component)} could not start: {cause_of(error)}. Mend that, or leave it out of "
                    f"train.track in {run.folder / 'config.toml'} and go on with fgvc train --resume {run.folder}."
                ) from error
            self._listening.append(one)

    def epoch_finished(self, metrics: Mapping[str, Any]) -> None:
        """Tell them of an epoch: the line that `metrics.jsonl` got."""
        for one in self._listening:
            self._tell(one, "epoch_finished", metrics)

    def finished(self, summary: Mapping[str, Any] | None) -> None:
        """Tell them that training has ended, with its summary if it came to its end; they are told once."""
        listening, self._listening = self._listening, []
        for one in listening:
            self._tell(one, "finished", summary)

    def notes(self) -> list[str]:
        """Return what they want a person to know."""
        lines: list[str] = []
        for one in self._listening:
            told = self._tell(one, "notes")
            if isinstance(told, list) and all(isinstance(line, str) for line in told):
                lines.extend(told)
            elif told is not None:
                self._warn(one, "notes", f"it returned {told!r} instead of a list of lines")
        return lines

    def _tell(self, one: _Active, method: str, *arguments: Any) -> Any:
        """Call a method with copies of the arguments: what one tracker changes in them nobody else is told.

        What it prints goes to standard error, for standard output is the command's: the packages that trackers stand on
        like to print links.
        """
        try:
            with redirect_stdout(sys.stderr):
                return getattr(one.tracker, method)(*copy.deepcopy(arguments))
        except (Exception, SystemExit) as error:
            self._warn(one, method, cause_of(error))
            return None

    def _warn(self, one: _Active, method: str, cause: str) -> None:
        if not one.warned:
            one.warned = True
            logger.warning(f"{_named(one.component)}: its {method} failed, the run goes on: {cause}")


def make_trackers(choices: Sequence[Choice]) -> Trackers:
    """Make the trackers of a configuration, so that one whose package is missing says so before anything begins.

    Raises:
        FgvcError: one cannot work here, or is none.
    """
    return Trackers([(choice.component, _made(choice)) for choice in choices])


def _made(choice: Choice) -> Tracker:
    try:
        with redirect_stdout(sys.stderr):
            tracker = choice.component.make(options=choice.options)
    except FgvcError:
        raise  # the tracker's own word on what is missing
    except (Exception, SystemExit) as error:
        raise FgvcError(f"{_named(choice.component)} could not be made: {cause_of(error)}.") from error
    if not isinstance(tracker, Tracker):
        raise FgvcError(f"{choice.component.reference} breaks its contract: it makes a {type(tracker).__name__}.")
    return tracker


def _named(component: Component) -> str:
    return f"tracker '{component.name}' of {component.origin}"
