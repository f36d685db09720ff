"""Rows and sections of a comparison as text, the same in the terminal, in Markdown and in the report."""

from __future__ import annotations

from fgvc_cli.experiments.comparison import Row, Section, Spread
from fgvc_cli.experiments.statistics import resamples_of
from fgvc_cli.formatting import count, rate
from fgvc_cli.scoring.metrics import LEVEL

ONE_SEED = "One seed tells trainings apart, not methods: another seed may turn the order (fgvc sweep --seeds 3)."


def share_text(spread: Spread | None) -> str:
    """Write a share as "56.1 %", with several seeds as "56.1 ± 1.2 %" (mean and standard deviation)."""
    if spread is None:
        return ""
    deviation = "" if spread.deviation is None else f" ± {100 * spread.deviation:.1f}"
    return f"{100 * spread.mean:.1f}{deviation} %"


def behind_text(section: Section, place: int) -> str:
    """Write how far a row is behind the best, in points, with its 95 % interval; nothing for the best itself."""
    difference = section.behind(place)
    if difference is None:
        return ""
    return f"{_signed(-difference.points)} ({_signed(-difference.high)} to {_signed(-difference.low)})"


def parameters_text(row: Row) -> str:
    """Write parameters as "11.2 M + 0.5 M": backbone and head."""
    return f"{count(row.parameters['backbone']) or '0'} + {count(row.parameters['head']) or '0'}"


def minutes_text(row: Row) -> str:
    """Write the training time, minutes, with three figures or so."""
    if row.minutes is None:
        return ""
    mean = row.minutes.mean
    return f"{mean:.{0 if mean >= 99.95 else 1 if mean >= 0.995 else 2}f}"


def speed_text(row: Row) -> str:
    """Write images a second in training."""
    return "" if row.images_per_second is None else rate(row.images_per_second.mean)


def settings_text(section: Section, place: int) -> str:
    """Write the settings of a row that others have otherwise: "train.epochs 60, head.fpn_size 128"."""
    return ", ".join(f"{name} {texts[place]}" for name, texts in section.settings.items() if texts[place])


def seeds_text(row: Row) -> str:
    """Write the number of seeds, or the one there is: "3 seeds", "seed 0"."""
    return f"seed {row.seeds[0]}" if len(row.seeds) == 1 else f"{len(row.seeds)} seeds"


def images_text(section: Section) -> str:
    """Name the images of a section."""
    return section.rows[0].runs[0].described


def meanings(section: Section) -> list[str]:
    """Return what the columns mean; of one row there is nothing to say."""
    error = f"{100 * section.standard_error:.1f}"
    seeds = [len(row.runs) for row in section.rows]
    several = max(seeds) > 1
    lines = ["± : standard deviation over seeds."] if several else []
    lines.append(f"With so many images, a top-1 has a standard error of up to {error} points from them alone.")
    if len(section.rows) < 2:
        return lines
    exact = "McNemar's exact test" + (" (one seed), else a bootstrap over images and seeds" if several else "")
    behind = f"top-1 points behind the best, with 95 % interval ({resamples_of(seeds)} resamples)"
    return [
        *lines,
        f"behind: {behind}.",
        f"alike: rows that share a letter differ by no more than noise ({exact}; p < {LEVEL:g} by Holm's correction).",
        *([ONE_SEED] if min(seeds) == 1 else []),
    ]


def _signed(share: float) -> str:
    """Write a fraction as signed points; what rounds to zero has no sign."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "−")
