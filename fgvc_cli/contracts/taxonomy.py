"""Taxonomies: the classes of a dataset with their ancestors, a tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_LEVELS = 64
"""Maximum number of levels; a model file with more is damaged."""

Node = tuple[int, str]
"""A class or a group: index of its level, and its name, which is unique on that level."""


@dataclass(frozen=True)
class Taxonomy:
    """A tree whose leaves are the classes.

    Groups are identified by level and name: a genus may be called like its only species.

    Attributes:
        levels: names of the levels, from the classes upward, such as ("species", "genus", "family").
        ancestors: by class name, its ancestor at each level above it, parent first; "" at a level where it has none.
    """

    levels: tuple[str, ...]
    ancestors: Mapping[str, tuple[str, ...]]

    @classmethod
    def of_columns(cls, levels: Sequence[str], ancestors: Mapping[str, Sequence[str]]) -> Taxonomy | None:
        """Order columns of groups so that each group is in one of the next column, and leave out empty columns.

        Args:
            levels: name of the classes' level, then of each column; columns that are in each other keep their order.
            ancestors: by class name, its group in each column, "" for none.

        Returns:
            The taxonomy, which may still be no tree (see `fault`); None if no column has a group.
        """
        used = [i for i in range(len(levels) - 1) if any(of[i] for of in ancestors.values())]
        if not used:
            return None

        def above(i: int) -> int:
            """Return the number of columns that its groups are in."""
            pairs = ({(of[i], of[j]) for of in ancestors.values() if of[i]} for j in used)
            groups = len({of[i] for of in ancestors.values() if of[i]})
            return sum(len(each) == groups for each in pairs)

        order = sorted(used, key=above, reverse=True)
        ordered = {name: tuple(of[i] for i in order) for name, of in ancestors.items()}
        return cls((levels[0], *(levels[i + 1] for i in order)), ordered)

    @classmethod
    def of_paths(
        cls, paths: Mapping[str, Sequence[str]], levels: Sequence[str] = (), class_level: str = "class"
    ) -> Taxonomy | None:
        """Build the taxonomy of classes at any depth below the root.

        Args:
            paths: by class name, the groups that it is in, outermost first. Groups of the same name in different places
                are told apart by the groups above them, in parentheses.
            levels: names of the outer levels, outermost first; others are called "level 1" and so on.
            class_level: name of the classes' level.

        Returns:
            The taxonomy; None if no class is in a group.
        """
        depth = max(map(len, paths.values()), default=0)
        if not depth:
            return None
        places: dict[Node, set[tuple[str, ...]]] = {}
        for path in paths.values():
            for i, name in enumerate(path):
                places.setdefault((i, name), set()).add(tuple(path[:i]))

        def unique(path: Sequence[str], i: int) -> str:
            return path[i] if len(places[i, path[i]]) == 1 else f"{path[i]} ({'/'.join(path[:i])})"

        named = [*levels[:depth], *(f"level {i + 1}" for i in range(len(levels), depth))]
        ancestors = {
            name: tuple(unique(path, i) if i < len(path) else "" for i in reversed(range(depth)))
            for name, path in paths.items()
        }
        return cls((class_level, *reversed(named)), ancestors)

    @classmethod
    def of_parents(cls, class_names: Sequence[str], parents: Mapping[str, str]) -> Taxonomy | None:
        """Build the taxonomy of classes from the parent of each class and of each group.

        A class that is its own parent is in a group of its own name.

        Raises:
            ValueError: the parents form a loop; names it.
        """
        paths = {}
        for name in class_names:
            path = [name]
            while (parent := parents.get(path[-1])) and (parent != path[-1] or len(path) == 1):
                if parent in path[:-1]:
                    loop = [*path[path.index(parent) :], parent]
                    raise ValueError(f"a loop: {' in '.join(repr(group) for group in loop)}")
                path.append(parent)
            paths[name] = path[:0:-1]
        return cls.of_paths(paths)

    def fault(self, class_names: Sequence[str]) -> str:
        """Return what is wrong with it, in words; "" if it is a tree over these classes."""
        known = set(class_names)
        missing = [name for name in class_names if name not in self.ancestors]
        unknown = [name for name in self.ancestors if name not in known]
        repeated = [level for i, level in enumerate(self.levels) if level in self.levels[:i]]
        lengths = {len(ancestors) for ancestors in self.ancestors.values()} - {len(self.levels) - 1}
        if not 1 < len(self.levels) <= MAX_LEVELS:
            return f"it has {len(self.levels)} levels; 2 to {MAX_LEVELS} are possible, that of the classes included"
        if repeated or not all(self.levels):
            return f"two levels are called '{repeated[0]}'" if repeated else "a level has no name"
        if missing or unknown:
            return f"class '{missing[0]}' is missing" if missing else f"there is no class '{unknown[0]}'"
        if lengths:
            return f"a class has {lengths.pop()} ancestors where there are {len(self.levels) - 1} levels above it"
        return self._two_parents()

    def with_classes(self, names: Sequence[str]) -> Taxonomy:
        """Return it with more classes, which are in no group."""
        none = ("",) * (len(self.levels) - 1)
        return Taxonomy(self.levels, {**self.ancestors, **dict.fromkeys(names, none)})

    def path(self, name: str) -> list[Node]:
        """Return a class and its ancestors, from the class upward, as level and name; levels without one are left out.

        Raises:
            KeyError: there is no such class.
        """
        return [(0, name), *((i, group) for i, group in enumerate(self.ancestors[name], 1) if group)]

    def as_json(self) -> dict[str, Any]:
        """Return the form that model files have."""
        return {"levels": list(self.levels), "ancestors": {name: list(of) for name, of in self.ancestors.items()}}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Taxonomy:
        """Undo `as_json`.

        Raises:
            KeyError: something is missing.
        """
        return cls(tuple(document["levels"]), {name: tuple(of) for name, of in document["ancestors"].items()})

    def _two_parents(self) -> str:
        parents: dict[Node, str] = {}
        for name in self.ancestors:
            path = self.path(name)
            for node, (_, parent) in zip(path, [*path[1:], (0, "")], strict=True):
                other = parents.setdefault(node, parent)
                if other != parent:
                    both = " and ".join(f"'{each}'" if each else "none" for each in (other, parent))
                    return f"{self.levels[node[0]]} '{node[1]}' has two parents, {both}"
        return ""
