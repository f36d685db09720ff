"""What explained images look like in the terminal: a table for each image, and a sentence on its decision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgvc_cli.display.console import out, print_json
from fgvc_cli.display.evaluation_tables import percent, quoted
from fgvc_cli.runs.folder import CONFIG_FILE

if TYPE_CHECKING:
    from rich.table import Table

    from fgvc_cli.explaining.covering import Cover
    from fgvc_cli.explaining.explained import ExplainedImage, Explanation, Sight
    from fgvc_cli.explaining.gallery import Telling


class ExplanationWriter:
    """Writes explained images to standard output: tables as they come, or one JSON document at the end.

    Args:
        request: what was asked for, as the JSON document begins with it.
        cover: how the most marked part was covered; None: it was not.
        json: whether the document is written instead of tables.
    """

    def __init__(self, request: Mapping[str, Any], cover: Cover | None, json: bool) -> None:
        self._request, self._cover, self._json = request, cover, json
        self._documents: list[dict[str, Any]] = []
        self._survived: dict[str, list[bool]] = {}

    def image(self, explained: ExplainedImage, picture: Path) -> None:
        """Write what was found out about an image, and where its picture is."""
        self._documents.append({**explained.as_json(), "picture": str(picture)})
        for label, explanation in zip(explained.labels(), explained.explanations, strict=True):
            if explanation.survived is not None:
                self._survived.setdefault(label, []).append(explanation.survived)
        if self._json:
            return
        known = f"   true class: {explained.subject.true}" if explained.subject.true else ""
        out().print(f"{explained.subject.name}{known}", style="bold", soft_wrap=True)
        out().print(image_table(explained))
        for label, explanation in zip(explained.labels(), explained.explanations, strict=True):
            if self._cover is not None:
                several = f"{label}: " if len(explained.explanations) > 1 else ""
                out().print(several + decision_sentence(explanation, explained.subject.true), soft_wrap=True)
        out().print(f"picture: {quoted(str(picture))}\n", soft_wrap=True)

    def close(self, failures: Mapping[str, str]) -> None:
        """Write what comes after the last image: the document, or in how many the decision survived and what to try."""
        if self._json:
            failed = [{"image": image, "reason": reason} for image, reason in failures.items()]
            print_json({**self._request, "images": self._documents, "failures": failed})
        elif self._documents:
            for line in self._closing_lines():
                out().print(line, soft_wrap=True)

    def _closing_lines(self) -> list[str]:
        lines = []
        if len(self._documents) > 1:
            for label, outcomes in self._survived.items():
                several = f"{label}: " if len(self._survived) > 1 else ""
                lines.append(f"{several}The decision survived in {sum(outcomes)} of {len(outcomes)} images.")
            folder = Path(self._documents[0]["picture"]).parent
            lines.append(f"pictures: {len(self._documents)} in {quoted(str(folder.absolute()))}/")
        commands = next_commands(self._documents[0]["image"], self._request["runs"], self._cover is not None)
        return lines + [head + command for head, command in zip(("next: ", "      "), commands, strict=False)]


def next_commands(image: str, runs: Sequence[str], covered: bool) -> list[str]:
    """Return the commands most people would want next."""
    named = " ".join(f"--run {quoted(run)}" for run in runs)
    commands = [] if covered else [f"fgvc explain {quoted(image)} {named} --occlude"]
    if (Path(runs[0]) / CONFIG_FILE).is_file():  # which names the data set
        commands.append(f"fgvc explain --limit 100 {named} --occlude")
    return commands


def gallery_lines(pictures: Sequence[Path], gallery: Sequence[Telling]) -> list[str]:
    """Return where the pictures of a study are, and the command that looks longer at the most telling image."""
    if not pictures:
        return []
    first = next(telling for telling in gallery if telling.file is not None)
    command = f"fgvc explain {quoted(str(first.file))} --run {quoted(str(first.run))} --occlude --steps 3"
    return [f"pictures: {len(pictures)} in {quoted(str(pictures[0].parent))}/", f"next: {command}"]


def image_table(explained: ExplainedImage) -> Table:
    """Return a table with a line a look: what was covered, what was predicted, and what became of the true class."""
    from rich.table import Table

    explanations = explained.explanations
    sights = [sight for explanation in explanations for sight in explanation.sights]
    shows = {
        "looked at by": len(explanations) > 1,
        "step": any(len(e.sights) > 1 for e in explanations),
        "true class": explained.subject.true is not None,
        "explained": any(sight.explained not in (sight.predicted, explained.subject.true) for sight in sights),
    }
    table = Table(box=None, header_style="bold", padding=(0, 3, 0, 0))
    _columns(table, shows)
    for label, explanation in zip(explained.labels(), explanations, strict=True):
        for step, sight in enumerate(explanation.sights):
            table.add_row(*_cells(label if step == 0 else "", step, sight, shows))
    return table


def decision_sentence(explanation: Explanation, true: str | None) -> str:
    """Say whether the decision survived the covering."""
    first, last = explanation.sights[0], explanation.sights[-1]
    if last.covered == 0:
        return "Nothing was covered, for the heat map marks nothing: the test says nothing of this decision."
    marked = f"with the most marked {percent(last.covered)} covered"
    if explanation.survived:
        return (
            f"The decision survived: {marked} it is still {first.predicted}, "
            f"at {percent(last.probability)} where it was {percent(first.probability)}."
            + ("" if true in (None, first.predicted) else f" It {_truth(False, False)}.")
        )
    step, changed = next((i, s) for i, s in enumerate(explanation.sights) if s.predicted != first.predicted)
    at_step = f" step {step}" if len(explanation.sights) > 2 else ""
    truth = "" if true is None else f" It {_truth(first.predicted == true, changed.predicted == true)}."
    return (
        f"The decision did not survive{at_step}: with the most marked {percent(changed.covered)} covered it is "
        f"{changed.predicted} ({percent(changed.probability)}) instead of {first.predicted}.{truth}"
    )


def _truth(before: bool, now: bool) -> str:
    """Say what became of a decision that was right or wrong; one that is right and changes is not right any more."""
    if before:
        return "was right, and is wrong now"
    return "was wrong, and is right now" if now else "was wrong, and still is"


def _columns(table: Table, shows: Mapping[str, bool]) -> None:
    if shows["looked at by"]:
        table.add_column("looked at by", overflow="fold")
    if shows["step"]:
        table.add_column("step", justify="right", no_wrap=True)
        table.add_column("covered", justify="right", no_wrap=True)
    table.add_column("predicted", overflow="fold")
    table.add_column("probability", justify="right", no_wrap=True)
    if shows["true class"]:
        table.add_column("of the true class", justify="right", no_wrap=True)
    if shows["explained"]:
        table.add_column("map of", overflow="fold")
        table.add_column("its probability", justify="right", no_wrap=True)


def _cells(label: str, step: int, sight: Sight, shows: Mapping[str, bool]) -> list[str]:
    cells = [label] if shows["looked at by"] else []
    if shows["step"]:
        cells += [str(step), percent(sight.covered) if step else "nothing"]
    cells += [sight.predicted, percent(sight.probability)]
    if shows["true class"]:
        cells.append(percent(sight.true_probability))
    if shows["explained"]:
        cells += [sight.explained, percent(sight.explained_probability)]
    return cells
