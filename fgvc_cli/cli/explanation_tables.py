"""Tables of a dataset explanation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fgvc_cli.cli.console import out
from fgvc_cli.cli.tables import figure_table, print_titled, skipped_line, written_line
from fgvc_cli.formatting import counted, percent, quoted
from fgvc_cli.scoring.results import images_text

if TYPE_CHECKING:
    from rich.table import Table

    from fgvc_cli.explaining.dataset import DatasetExplanation
    from fgvc_cli.explaining.statistics import DatasetSummary, ExplainerSummary, GalleryImage

SHOWN_CLASSES = 10
"""Maximum number of classes shown."""


def show_dataset_explanation(result: DatasetExplanation) -> None:
    """Print the effect of the occlusion test, the faithfulness of the maps, where they point, and the examples."""
    summary = result.summary
    entries, several = summary.explainers, len(summary.runs) > 1
    console = out()
    console.print(f"{', '.join(summary.runs)} on {images_text(summary.as_json())}", soft_wrap=True)
    chosen = "" if summary.chosen == "all" else f" ({summary.chosen})"
    target = {"predicted": "the predicted class", "true": "the true class"}.get(summary.target, summary.target)
    images = f"{summary.images_measured} of {counted(summary.images_available, 'image')}{chosen}"
    console.print(f"{images}; maps of {target}", soft_wrap=True)
    print_titled(_occlusion_title(summary), _occlusion(entries, several))
    print_titled("Faithfulness (area under the curve; drop in %; ±: standard error)", _faithfulness(entries, several))
    if any(entry.totals.pointing_any_images for entry in entries):
        print_titled("Pointing game (fraction of maps with their maximum on ...)", _pointing(entries, several))
    print_titled(*_classes(entries, several))
    print_titled("Example images", _gallery(summary.gallery))
    console.print()
    for line in closing_lines(result):
        console.print(line, soft_wrap=True)


def closing_lines(result: DatasetExplanation) -> list[str]:
    """Return the comparison with the random map, what is missing, and where the files are."""
    summary = result.summary
    several = len(summary.runs) > 1
    lines = [line for entry in summary.explainers for line in _random_comparison(entry, several)]
    if summary.interrupted:
        lines.append(
            f"interrupted: the figures are of {summary.images_measured} of {counted(summary.images_chosen, 'image')}"
        )
    not_finite = next((entry.not_finite for entry in summary.explainers if entry.not_finite), 0)
    if not_finite:
        lines.append(f"{counted(not_finite, 'image')} with scores that are not finite, excluded from all figures")
    lines += [
        f"{_label(entry, several)}: the map is flat for {counted(entry.totals.nothing_marked, 'image')}"
        for entry in summary.explainers
        if entry.totals.nothing_marked
    ]
    if summary.failures:
        lines.append(skipped_line(list(summary.failures)))
    return [*lines, written_line(result.files)]


def gallery_lines(pictures: Sequence[Path], gallery: Sequence[GalleryImage]) -> list[str]:
    """Return where the pictures of the examples are, and the command that explains the first one in detail."""
    if not pictures:
        return []
    first = next(image for image in gallery if image.file is not None)
    command = f"fgvc explain {quoted(str(first.file))} --run {quoted(str(first.run))} --occlude --steps 3"
    return [f"pictures: {len(pictures)} in {quoted(str(pictures[0].parent))}/", f"next: {command}"]


def _random_comparison(entry: ExplainerSummary, several: bool) -> list[str]:
    """Say whether an explainer beats the random map, and in the pointing game chance, by two standard errors."""
    if entry.over_random is None:
        return []
    deletion, insertion = entry.over_random["deletion_auc"], entry.over_random["insertion_auc"]
    verdicts = [
        f"deletion {_verdict(deletion.difference, deletion.standard_error, better=-1)}",
        f"insertion {_verdict(insertion.difference, insertion.standard_error, better=1)}",
    ]
    gain = entry.totals.means.pointing_gain
    if gain is not None:
        verdict = _verdict(gain, entry.totals.standard_errors.pointing_gain, better=1)
        verdicts.append(f"pointing at deciding parts {verdict}")
    return [f"{_label(entry, several)} compared with a random map: {', '.join(verdicts)}"]


def _verdict(difference: float | None, standard_error: float | None, better: int) -> str:
    if difference is None:
        return "unknown"
    if standard_error is None or abs(difference) <= 2 * standard_error:  # also if both are 0
        return f"no clear difference ({difference:+.3f})"
    return f"{'better' if difference * better > 0 else 'worse'} ({difference:+.3f} ± {standard_error:.3f})"


def _occlusion_title(summary: DatasetSummary) -> str:
    masking, steps = summary.masking, summary.cover_steps
    amount = f"{100 * masking.area:g} %" if masking.threshold is None else f"saliency from {masking.threshold:g} up"
    times = "" if steps == 1 else f" at each of {steps} steps"
    return f"Occlusion test (masked: {amount}{times}, {masking.fill})"


def _occlusion(entries: Sequence[ExplainerSummary], several: bool) -> Table:
    titles = ("images:", "masked:", "probability:", "after:", "prediction flips:", "true class survives:")
    table = figure_table(*_heads(several), *titles)
    for entry in entries:
        totals, means, errors = entry.totals, entry.totals.means, entry.totals.standard_errors
        survived = _with_error(means.survived, errors.survived)
        table.add_row(
            *_names(entry, several),
            str(totals.images),
            percent(means.covered),
            percent(means.probability_before),
            _with_error(means.probability_after, errors.probability_after),
            _with_error(means.flipped, errors.flipped),
            f"{survived} ({totals.survived_images} of {totals.right_images})",
        )
    return table


def _faithfulness(entries: Sequence[ExplainerSummary], several: bool) -> Table:
    table = figure_table(
        *_heads(several),
        "deletion (lower is better):",
        "insertion (higher is better):",
        "average drop (lower is better):",
    )
    for entry in entries:
        means, errors = entry.totals.means, entry.totals.standard_errors
        table.add_row(
            *_names(entry, several),
            _number(means.deletion_auc, errors.deletion_auc),
            _number(means.insertion_auc, errors.insertion_auc),
            _with_error(means.average_drop, errors.average_drop),
        )
    return table


def _pointing(entries: Sequence[ExplainerSummary], several: bool) -> Table:
    table = figure_table(*_heads(several), "images:", "a deciding part:", "chance:", "any part:", "chance:")
    for entry in entries:
        means, errors = entry.totals.means, entry.totals.standard_errors
        table.add_row(
            *_names(entry, several),
            str(entry.totals.pointing_images),
            _with_error(means.pointing, errors.pointing),
            percent(means.pointing_chance),
            _with_error(means.pointing_any, errors.pointing_any),
            percent(means.pointing_chance_any),
        )
    return table


def _classes(entries: Sequence[ExplainerSummary], several: bool) -> tuple[str, Table]:
    """Return the classes of the first explainer, or those that masking changes most, with a title."""
    entry = next((entry for entry in entries if not entry.is_baseline), entries[0])
    rows, title = list(entry.per_class.items()), f"Classes ({_label(entry, several)})"
    if len(rows) > SHOWN_CLASSES:
        title = f"{SHOWN_CLASSES} of {len(rows)} classes, those that masking changes most ({_label(entry, several)})"
        rows.sort(key=lambda row: (row[1].means.probability_after or 0) - (row[1].means.probability_before or 0))
    table = figure_table("class", "images:", "probability:", "after:", "flips:", "survives:", "deletion:", "insertion:")
    for name, totals in rows[:SHOWN_CLASSES]:
        means = totals.means
        fractions = (means.probability_before, means.probability_after, means.flipped, means.survived)
        curves = (_number(means.deletion_auc, None), _number(means.insertion_auc, None))
        table.add_row(name, str(totals.images), *map(percent, fractions), *curves)
    return title, table


def _gallery(gallery: Sequence[GalleryImage]) -> Table:
    several = len({image.run for image in gallery}) > 1
    table = figure_table(*(["run"] if several else []), "image", "true", "predicted", "reason")
    for image in gallery:
        run = [image.run.name] if several else []
        table.add_row(*run, image.key, image.true, image.predicted, f"{image.reason}: {image.words}")
    return table


def _heads(several: bool) -> list[str]:
    return ["run", "explainer"] if several else ["explainer"]


def _names(entry: ExplainerSummary, several: bool) -> list[str]:
    return [Path(entry.run).name, entry.explainer] if several else [entry.explainer]


def _label(entry: ExplainerSummary, several: bool) -> str:
    """Name an entry by its explainer, and by its run if there are several."""
    return ", ".join(reversed(_names(entry, several)))


def _with_error(mean: float | None, standard_error: float | None) -> str:
    """Format a mean in percent with its standard error."""
    error = f" ± {100 * standard_error:.1f}" if standard_error is not None and mean is not None else ""
    return percent(mean) + error


def _number(mean: float | None, standard_error: float | None) -> str:
    return "" if mean is None else f"{mean:.3f}" + (f" ± {standard_error:.3f}" if standard_error is not None else "")
