"""The taxonomy of a dataset's classes: from a file of the user, or from the dataset."""

from __future__ import annotations

import csv
import logging
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from fgvc_cli.contracts import Dataset, Taxonomy
from fgvc_cli.data.splits import quoted_names
from fgvc_cli.errors import FgvcError, did_you_mean
from fgvc_cli.formatting import counted

logger = logging.getLogger(__name__)

COLUMNS = "a class per line, then its groups in one or more columns; the first line names the levels"
DELIMITERS = ",;\t"


def taxonomy_of(dataset: Dataset, file: Path | None = None) -> Taxonomy | None:
    """Return the taxonomy of a dataset's classes: that of a file if one is given, else the dataset's own, if any.

    A dataset's own one that is no tree over its classes is not used, with a warning.

    Raises:
        FgvcError: the file cannot be read or is not a taxonomy of these classes.
    """
    if file is not None:
        return read_taxonomy(file, dataset.class_names)
    taxonomy = dataset.taxonomy()
    if taxonomy is None or len(taxonomy.levels) < 2:
        return None
    if fault := taxonomy.fault(dataset.class_names):
        logger.warning(f"the taxonomy of {dataset.name} is not used: {fault}")
        return None
    return taxonomy


def read_taxonomy(file: Path, class_names: Sequence[str]) -> Taxonomy | None:
    """Read the taxonomy of classes from a CSV or TSV file.

    The first line names the levels, the first column has the classes, the others their groups, in any order of the
    columns; an empty cell is no group. With two columns, lines for groups give their parents in turn. Lines for other
    classes are ignored, with a note.

    Returns:
        The taxonomy; None if the file has no groups.

    Raises:
        FgvcError: the file does not exist or is not such a table, a class is missing, has two parents, or is in a loop.
    """
    levels, found = _read(file)
    normal = {_normal(name): of for name, of in found.items()}
    missing = [name for name in class_names if _normal(name) not in normal]
    if missing:
        near = did_you_mean(missing[0], found)
        more = f" and {counted(len(missing) - 1, 'other class', 'other classes')}" * (len(missing) > 1)
        raise FgvcError(
            f"{file}: no line for class '{missing[0]}'{more}; add it, without a group if it has none.{near}"
        )
    known = set(map(_normal, class_names))
    other = [name for name in found if _normal(name) not in known]
    if len(levels) == 2:
        parents = {_normal(name): _normal(of[0]) for name, of in found.items()}
        other = [name for name in other if _normal(name) not in parents.values()]
        taxonomy = _of_parents(file, levels, class_names, parents)
    else:
        taxonomy = Taxonomy.of_columns(levels, {name: normal[_normal(name)] for name in class_names})
    if other:
        logger.info(
            f"{file}: ignored {counted(len(other), 'line')} for classes that are not in use: {quoted_names(other)}"
        )
    if taxonomy is None:
        logger.warning(f"{file}: none of the classes is in a group, so there is no taxonomy")
    elif fault := taxonomy.fault(class_names):
        raise FgvcError(f"{file}: {fault}; correct it")
    return taxonomy


def _of_parents(
    file: Path, levels: Sequence[str], class_names: Sequence[str], parents: dict[str, str]
) -> Taxonomy | None:
    own = {_normal(name): name for name in class_names}
    try:
        taxonomy = Taxonomy.of_parents(list(own), parents)
    except ValueError as error:
        raise FgvcError(f"{file}: {error}; remove one of these lines") from error
    if taxonomy is None:
        return None
    named = tuple(levels) if len(taxonomy.levels) == 2 else (levels[0], *taxonomy.levels[1:])
    return Taxonomy(named, {own[name]: of for name, of in taxonomy.ancestors.items()})


def _read(file: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Return the names of the columns, and the groups of each name in the first column."""
    lines = _lines(file)
    _, levels = next(lines, (0, []))
    if len(levels) < 2 or not all(levels):
        raise FgvcError(f"{file}: not a taxonomy, which has {COLUMNS}")
    if repeated := [name for i, name in enumerate(levels) if name in levels[:i]]:
        raise FgvcError(f"{file}: two columns are called '{repeated[0]}'; rename one")
    found: dict[str, tuple[int, list[str]]] = {}
    for number, (name, *groups) in lines:
        groups += [""] * (len(levels) - 1 - len(groups))
        if not name or len(groups) >= len(levels):
            wrong = (
                f"{len(groups) + 1} columns where the first line has {len(levels)}" if name else "the class is empty"
            )
            raise FgvcError(f"{file}, line {number}: {wrong}")
        earlier, before = found.setdefault(name, (number, groups))
        if before != groups:
            level, (one, two) = next(
                (n, pair) for n, *pair in zip(levels[1:], before, groups, strict=True) if len(set(pair)) > 1
            )
            raise FgvcError(
                f"{file}, line {number}: '{name}' has two parents, {level} '{two}' here and '{one}' in line {earlier}"
            )
    return levels, {name: groups for name, (_, groups) in found.items()}


def _lines(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the cells of each line that is not blank."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as text:
            first = text.readline()
            text.seek(0)
            reader = csv.reader(text, delimiter=max(DELIMITERS, key=first.count), strict=True, skipinitialspace=True)
            for cells in reader:
                if any(map(str.strip, cells)):
                    yield reader.line_num, [cell.strip() for cell in cells]
    except FileNotFoundError:
        near = did_you_mean(file.name, [path.name for path in file.parent.iterdir()]) if file.parent.is_dir() else ""
        raise FgvcError(f"taxonomy {file}: no such file.{near}" if near else f"taxonomy {file}: no such file") from None
    except OSError as error:
        raise FgvcError(f"taxonomy {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FgvcError(f"{file}: not UTF-8 text (byte {error.start}); save it as CSV in UTF-8") from error
    except csv.Error as error:
        raise FgvcError(f"{file}: {error}; close quotes, and double a quote inside quotes") from error


def _normal(name: str) -> str:
    """Return a name in the Unicode form that it is compared in: file systems differ in it."""
    return unicodedata.normalize("NFC", name)
