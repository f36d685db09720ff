"""What a plugin says about its components: small frozen records, free of torch.

A spec names its component's code as text ("package.module:Name"); the host imports it when the component is used,
so that listing a hundred plugins costs no import of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

API_VERSION = 1
"""The version of the plugin interface that this host speaks. It grows when a plugin would have to change."""

Kind = Literal["backbone", "head", "optimizer", "dataset", "explainer", "tracker", "recipe", "study"]
KINDS: tuple[Kind, ...] = ("backbone", "head", "optimizer", "dataset", "explainer", "tracker", "recipe", "study")


def plural(kind: str) -> str:
    """Return the word for several components of a kind; the hook that registers them is `fgvc_` and that word."""
    return f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"


@dataclass(frozen=True)
class ComponentSpec:
    """What every kind of component says of itself.

    Attributes:
        name: what a person types, such as "pim". Lower case, no ":"; a "/" only within a family of names.
        target: "package.module:Name" of the class or function that makes the component.
        summary: one line for `fgvc list-plugins`.
        options: "package.module:Name" of a frozen dataclass of options (see `fgvc_cli.option`) in a module that
            does not import torch; empty if the component has none.
        source: the paper or project that the component implements.
        api: the `API_VERSION` that the plugin was written for; the host checks it before it imports the target.
    """

    kind: ClassVar[Kind]
    is_file: ClassVar[bool] = False
    """Whether the target is a file of the package, "package:path/to/file.toml", and its text all there is."""

    name: str
    target: str
    summary: str = ""
    options: str = ""
    source: str = ""
    api: int = 1


@dataclass(frozen=True)
class BackboneSpec(ComponentSpec):
    """A network that turns images into feature maps and an embedding.

    Attributes:
        strides: stride of each feature map it offers, shallow to deep; empty if that is known only once it is built.
        pretrained: name of the weights that `--weights imagenet` means, for display; empty if there are none.
    """

    kind: ClassVar[Kind] = "backbone"

    strides: tuple[int, ...] = ()
    pretrained: str = ""


@dataclass(frozen=True)
class HeadSpec(ComponentSpec):
    """What turns a backbone's features into class scores.

    Attributes:
        maps: how many feature maps it needs at least; 0 if it reads the embedding alone.
        distinct_strides: whether those maps must each have a different stride.
    """

    kind: ClassVar[Kind] = "head"

    maps: int = 0
    distinct_strides: bool = False

    def accepts(self, strides: tuple[int, ...]) -> bool:
        """Say whether maps of these strides are enough; where they must differ, each stride counts once."""
        return len(set(strides) if self.distinct_strides else strides) >= self.maps


@dataclass(frozen=True)
class OptimizerSpec(ComponentSpec):
    """What minimizes an objective.

    Attributes:
        passes: evaluations (forward and backward) that one step takes. Only one of a single pass can be the base
            of another.
        base: for an optimizer built over another one, which takes the steps: the one taken by default (a person
            chooses with `--set optimizer.base=NAME`); empty: it takes its steps itself.
    """

    kind: ClassVar[Kind] = "optimizer"

    passes: int = 1
    base: str = ""


@dataclass(frozen=True)
class DatasetSpec(ComponentSpec):
    """Named splits of labeled images.

    Attributes:
        reads_folder: whether it is made from the folder that `--data` names (and needs one).
        reads_files: endings, such as ".csv", of the files that it is made from when `--data` names one.
    """

    kind: ClassVar[Kind] = "dataset"

    reads_folder: bool = False
    reads_files: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExplainerSpec(ComponentSpec):
    """What marks the pixels that a decision rests on.

    Attributes:
        baseline: whether it knows nothing of the classifier; over a dataset such a one is set beside every other.
    """

    kind: ClassVar[Kind] = "explainer"

    baseline: bool = False


@dataclass(frozen=True)
class TrackerSpec(ComponentSpec):
    """What is told how a training goes, where a person asks for it (`fgvc train --track NAME`)."""

    kind: ClassVar[Kind] = "tracker"


@dataclass(frozen=True)
class RecipeSpec(ComponentSpec):
    """A named set of training settings; its target is "package:path/to/file.toml" (see docs/recipes.md)."""

    kind: ClassVar[Kind] = "recipe"
    is_file: ClassVar[bool] = True


@dataclass(frozen=True)
class StudySpec(ComponentSpec):
    """A study for `fgvc sweep --study NAME`; its target is "package:path/to/file.toml" (see docs/studies.md)."""

    kind: ClassVar[Kind] = "study"
    is_file: ClassVar[bool] = True


@dataclass(frozen=True)
class Family:
    """A family of names, such as `timm/<any model>`, resolved when one of them is asked for.

    Attributes:
        kind: the kind of component the names stand for.
        prefix: what the names begin with, ending in "/".
        resolver: "package.module:function", called with the whole name; returns a spec of that kind, or None if
            the family has no such member.
        summary: one line for `fgvc list-plugins`.
        api: as for `ComponentSpec`.
    """

    kind: Kind
    prefix: str
    resolver: str
    summary: str = ""
    api: int = 1


SPEC_TYPES: dict[Kind, type[ComponentSpec]] = {
    "backbone": BackboneSpec,
    "head": HeadSpec,
    "optimizer": OptimizerSpec,
    "dataset": DatasetSpec,
    "explainer": ExplainerSpec,
    "tracker": TrackerSpec,
    "recipe": RecipeSpec,
    "study": StudySpec,
}
