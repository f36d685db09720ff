"""Tables of explained images and of a scored split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgvc_cli.cli.console import out, print_json
from fgvc_cli.explaining.explanation import decision_sentence
from fgvc_cli.formatting import percent, quoted
from fgvc_cli.runs.folder import CONFIG_FILE
from fgvc_cli.scoring.results import images_text

if TYPE_CHECKING:
    from rich.table import Table

    from fgvc_cli.explaining.dataset import Study
    from fgvc_cli.explaining.explanation import ExplainedImage, Sight
    from fgvc_cli.explaining.masking import Cover
    from fgvc_cli.explaining.statistics import Telling


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
    if (Path(runs[0]) / CONFIG_FILE).is_file():  # which names the dataset
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


SHOWN_CLASSES = 10
"""How many classes are shown unless all are asked for."""
SHOWN_FAILURES = 5


def show_study(study: Study, all_classes: bool = False) -> None:
    """Print what covering did, how faithful the maps are, where they point, and the most telling images.

    Args:
        study: as `over_dataset.study` returned it.
        all_classes: whether to list every class, or those that covering changes most.
    """
    summary = study.summary
    entries: Sequence[Mapping[str, Any]] = summary["explainers"]
    several = len(summary["runs"]) > 1
    console = out()
    console.print(f"{', '.join(summary['runs'])} on {images_text(summary)}", soft_wrap=True)
    console.print(f"{_images(summary)}; maps of {_target(summary['target'])}\n", soft_wrap=True)
    _titled(_covering_title(summary), _covering(entries, several))
    _titled("Faithfulness (area under the curve; drop in %; after ±: standard error)", _faithfulness(entries, several))
    if any(entry["pointing_any_images"] for entry in entries):
        _titled("Pointing game (share of maps whose maximum lies on ...)", _pointing(entries, several))
    _titled(*_classes(entries, all_classes))
    _titled("Most telling images", _gallery(study))
    for line in closing_lines(study):
        console.print(line, soft_wrap=True)


def closing_lines(study: Study) -> list[str]:
    """Return what was left out or not done, how explainers compare with the random map, and where the files are."""
    summary = study.summary
    several = len(summary["runs"]) > 1
    lines = _beside_random(summary["explainers"])
    if study.interrupted:
        lines.append(f"interrupted: the figures are of {_done(summary)} of {summary['images_chosen']} images.")
    for entry in summary["explainers"]:
        if entry["not_finite"]:
            lines.append(f"{entry['not_finite']} images got scores that are not finite; they enter no figure.")
            break
    for entry in summary["explainers"]:
        if entry["nothing_marked"]:
            lines.append(f"{_label(entry, several)} marks nothing at all in {entry['nothing_marked']} images.")
    if study.failed:
        keys = [failure["key"] for failure in summary["failures"]]
        more = f" and {len(keys) - SHOWN_FAILURES} more, see summary.json" if len(keys) > SHOWN_FAILURES else ""
        lines.append(f"left out, for they cannot be read ({len(keys)}): {', '.join(keys[:SHOWN_FAILURES])}{more}")
    names = ", ".join(file.name for file in study.files)
    lines.append(f"written: {quoted(str(study.folder))}/ ({names})")
    return lines


def _beside_random(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say of each explainer whether it beats the random map, or in the pointing game chance, by two standard errors."""
    several, lines = len({entry["run"] for entry in entries}) > 1, []
    for entry in entries:
        over = entry["over_random"]
        if over is None:
            continue
        verdicts = [
            f"deletion {_verdict(**over['deletion_auc'], better=-1)}",
            f"insertion {_verdict(**over['insertion_auc'], better=1)}",
        ]
        if entry["pointing_gain"] is not None:
            verdict = _verdict(entry["pointing_gain"], entry["standard_errors"]["pointing_gain"], better=1)
            verdicts.append(f"pointing at deciding parts {verdict}")
        lines.append(f"{_label(entry, several)} beside a random map: {', '.join(verdicts)}")
    return lines


def _verdict(difference: float | None, standard_error: float | None, better: int) -> str:
    if difference is None:
        return "unknown"
    if standard_error is None or abs(difference) <= 2 * standard_error:  # also where both are 0
        return f"no clear difference ({difference:+.3f})"
    return f"{'better' if difference * better > 0 else 'worse'} ({difference:+.3f} ± {standard_error:.3f})"


def _images(summary: Mapping[str, Any]) -> str:
    chosen = "" if summary["chosen"] == "all" else f" ({summary['chosen']})"
    return f"{_done(summary)} of {summary['images_available']} images{chosen}"


def _done(summary: Mapping[str, Any]) -> int:
    return max(entry["images"] + entry["not_finite"] for entry in summary["explainers"])


def _target(target: str) -> str:
    return {"predicted": "the predicted class", "true": "the true class"}.get(target, target)


def _covering_title(summary: Mapping[str, Any]) -> str:
    cover, steps = summary["cover"], summary["cover_steps"]
    much = f"{100 * cover['area']:g} %" if cover["threshold"] is None else f"all from {cover['threshold']:g} up"
    times = "" if steps == 1 else f", {steps} times"
    return f"Most marked part covered ({much}{times}, {cover['fill']})"


def _covering(entries: Sequence[Mapping[str, Any]], several: bool) -> Table:
    titles = ("images:", "covered:", "probability:", "after:", "prediction flips:", "true class survives:")
    table = _table(*_heads(several), *titles)
    for entry in entries:
        table.add_row(
            *_names(entry, several),
            str(entry["images"]),
            percent(entry["covered"]),
            percent(entry["probability_before"]),
            _share(entry, "probability_after"),
            _share(entry, "flipped"),
            f"{_share(entry, 'survived')} ({entry['survived_images']} of {entry['right_images']})",
        )
    return table


def _faithfulness(entries: Sequence[Mapping[str, Any]], several: bool) -> Table:
    table = _table(
        *_heads(several), "deletion (low is good):", "insertion (high is good):", "average drop (low is good):"
    )
    for entry in entries:
        figures = _number(entry, "deletion_auc"), _number(entry, "insertion_auc"), _share(entry, "average_drop")
        table.add_row(*_names(entry, several), *figures)
    return table


def _pointing(entries: Sequence[Mapping[str, Any]], several: bool) -> Table:
    table = _table(*_heads(several), "images:", "a deciding part:", "chance:", "any part:", "chance:")
    for entry in entries:
        table.add_row(
            *_names(entry, several),
            str(entry["pointing_images"]),
            _share(entry, "pointing"),
            percent(entry["pointing_chance"]),
            _share(entry, "pointing_any"),
            percent(entry["pointing_chance_any"]),
        )
    return table


def _classes(entries: Sequence[Mapping[str, Any]], all_classes: bool) -> tuple[str, Table]:
    """Return the classes of the first explainer, or those that covering changes most, and a title that says so."""
    entry = next((entry for entry in entries if not entry["is_baseline"]), entries[0])
    label = _label(entry, len({entry["run"] for entry in entries}) > 1)
    rows, title = entry["per_class"], f"Classes ({label})"
    if not all_classes and len(rows) > SHOWN_CLASSES:
        rows = sorted(rows, key=lambda row: (row["probability_after"] or 0) - (row["probability_before"] or 0))
        title = f"{SHOWN_CLASSES} of {len(rows)} classes, those that covering changes most ({label})"
        rows = rows[:SHOWN_CLASSES]
    table = _table("class", "images:", "probability:", "after:", "flips:", "survives:", "deletion:", "insertion:")
    for row in rows:
        curves = ("" if row[name] is None else f"{row[name]:.3f}" for name in ("deletion_auc", "insertion_auc"))
        shares = ("probability_before", "probability_after", "flipped", "survived")
        table.add_row(row["class"], str(row["images"]), *(percent(row[name]) for name in shares), *curves)
    return title, table


def _gallery(study: Study) -> Table:
    several = len({telling.run for telling in study.gallery}) > 1
    table = _table(*(["run"] if several else []), "image", "true", "predicted", "why")
    for telling in study.gallery:
        run = [telling.run.name] if several else []
        table.add_row(*run, telling.key, telling.true, telling.predicted, f"{telling.reason}: {telling.words}")
    return table


def _heads(several: bool) -> list[str]:
    return ["run", "explainer"] if several else ["explainer"]


def _names(entry: Mapping[str, Any], several: bool) -> list[str]:
    return [Path(entry["run"]).name, entry["explainer"]] if several else [entry["explainer"]]


def _label(entry: Mapping[str, Any], several: bool) -> str:
    """Call an entry by its explainer, and by its run if there are several."""
    return ", ".join(reversed(_names(entry, several)))


def _share(entry: Mapping[str, Any], name: str) -> str:
    """Write a mean in percent with its standard error."""
    error = entry["standard_errors"][name]
    return percent(entry[name]) + (f" ± {100 * error:.1f}" if error is not None and entry[name] is not None else "")


def _number(entry: Mapping[str, Any], name: str) -> str:
    value, error = entry[name], entry["standard_errors"][name]
    return "" if value is None else f"{value:.3f}" + (f" ± {error:.3f}" if error is not None else "")


def _table(*titles: str) -> Table:
    """Make a table; a title that ends in a colon heads a column of figures."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 3, 0, 0))
    for title in titles:
        is_figure = title.endswith(":")
        table.add_column(title.rstrip(":"), justify="right" if is_figure else "left", overflow="fold")
    return table


def _titled(title: str, table: Table) -> None:
    from rich.text import Text

    if table.row_count:
        out().print(Text(title, style="bold cyan"))
        out().print(table)
        out().print()
