"""Specs: what a plugin declares about its components. Small frozen dataclasses that do not need torch.

A spec names a component's code as text ("package.module:Name"). The host imports it only when the component is used, so
that listing a hundred plugins imports none of their components.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

API_VERSION = 1
"""Version of the plugin interface. It is raised when plugins have to change."""

Kind = Literal[
    "backbone", "head", "optimizer", "dataset", "explainer", "tracker", "exporter", "launcher", "recipe", "study"
]
KINDS: tuple[Kind, ...] = (
    "backbone",
    "head",
    "optimizer",
    "dataset",
    "explainer",
    "tracker",
    "exporter",
    "launcher",
    "recipe",
    "study",
)
PLURALS: dict[str, str] = {kind: "studies" if kind == "study" else f"{kind}s" for kind in KINDS}
"""Plural of each kind; the hook that registers components of a kind is `fgvc_` and its plural."""


@dataclass(frozen=True)
class ComponentSpec:
    """Fields of the specs of all kinds.

    Attributes:
        name: what a user types, such as "pim". Lower case, without ":"; "/" only in members of a family.
        target: "package.module:Name" of the class or function that creates the component.
        summary: one line for `fgvc list-plugins`.
        options: "package.module:Name" of a frozen dataclass of options (see `fgvc_cli.option`), in a module that does
            not import torch; empty for a component without options.
        source: the paper or project that the component implements.
        api: the `API_VERSION` that the plugin was written for, checked before the target is imported.
        page: "package:path/to/page.md" of a Markdown file in the package, which `fgvc show` prints; empty for none.
    """

    kind: ClassVar[Kind]
    is_file: ClassVar[bool] = False
    """Whether the target is a TOML file of the package, "package:path/to/file.toml"."""

    name: str
    target: str
    summary: str = ""
    options: str = ""
    source: str = ""
    api: int = 1
    page: str = field(default="", kw_only=True)


@dataclass(frozen=True)
class BackboneSpec(ComponentSpec):
    """A network that computes feature maps and an embedding from images.

    Attributes:
        strides: stride of each feature map, shallow to deep; empty if unknown before the backbone is built.
        pretrained: name of the weights that `weights="imagenet"` loads, for display; empty if there are none.
    """

    kind: ClassVar[Kind] = "backbone"

    strides: tuple[int, ...] = ()
    pretrained: str = ""


@dataclass(frozen=True)
class HeadSpec(ComponentSpec):
    """A module that computes class scores from a backbone's features.

    Attributes:
        maps: minimum number of feature maps; 0 if the head reads only the embedding.
        distinct_strides: whether each of these maps must have a different stride.
        fitted: whether it is a `FittedHead`, which needs no epochs and no optimizer.
    """

    kind: ClassVar[Kind] = "head"

    maps: int = 0
    distinct_strides: bool = False
    fitted: bool = False

    def accepts(self, strides: tuple[int, ...]) -> bool:
        """Return whether maps of these strides suffice."""
        return len(set(strides) if self.distinct_strides else strides) >= self.maps


@dataclass(frozen=True)
class OptimizerSpec(ComponentSpec):
    """An algorithm that minimizes objectives.

    Attributes:
        passes: forward and backward passes per step. Only an optimizer with one pass can be the base of another.
        base: name of the default base optimizer, for an optimizer that wraps another one as SAM does (a user chooses
            with `optimizer.base`); empty for an optimizer that updates the parameters itself.
    """

    kind: ClassVar[Kind] = "optimizer"

    passes: int = 1
    base: str = ""


@dataclass(frozen=True)
class DatasetSpec(ComponentSpec):
    """Named splits of labeled images.

    Attributes:
        reads_folder: whether the dataset is read from the folder given as `data` (and requires one).
        reads_files: suffixes, such as ".csv", of files given as `data` that the dataset is read from.
        index: "package.module:function" that writes such a file for `fgvc data index`, called with `source`, `out`,
            `classes` and `progress`.
    """

    kind: ClassVar[Kind] = "dataset"

    reads_folder: bool = False
    reads_files: tuple[str, ...] = ()
    index: str = ""


@dataclass(frozen=True)
class ExplainerSpec(ComponentSpec):
    """A method that computes saliency maps.

    Attributes:
        baseline: whether its maps are independent of the model. Evaluations over a dataset include one for comparison.
    """

    kind: ClassVar[Kind] = "explainer"

    baseline: bool = False


@dataclass(frozen=True)
class TrackerSpec(ComponentSpec):
    """An experiment tracker, enabled per run with `train.track`."""

    kind: ClassVar[Kind] = "tracker"


@dataclass(frozen=True)
class ExporterSpec(ComponentSpec):
    """A file format that `fgvc export` writes classifiers in.

    Attributes:
        suffix: of its files, such as ".onnx".
        precisions: that it can write, the default first: "fp32", "fp16", "int8".
        safe: whether opening a file runs no code that is in the file. Only then do `fgvc predict` and `fgvc evaluate`
            open its files, which may come from strangers.
    """

    kind: ClassVar[Kind] = "exporter"

    suffix: str = ""
    precisions: tuple[str, ...] = ("fp32",)
    safe: bool = False


@dataclass(frozen=True)
class LauncherSpec(ComponentSpec):
    """What trains the runs of a study: processes of this machine, or of a cluster."""

    kind: ClassVar[Kind] = "launcher"


@dataclass(frozen=True)
class RecipeSpec(ComponentSpec):
    """A named set of training settings; its target is "package:path/to/file.toml" (see docs/recipes.md)."""

    kind: ClassVar[Kind] = "recipe"
    is_file: ClassVar[bool] = True


@dataclass(frozen=True)
class StudySpec(ComponentSpec):
    """A study for `fgvc sweep`; its target is "package:path/to/file.toml" (see docs/studies.md)."""

    kind: ClassVar[Kind] = "study"
    is_file: ClassVar[bool] = True


@dataclass(frozen=True)
class Family:
    """A family of names, such as `timm/<any model>`, that are resolved on demand.

    Attributes:
        kind: kind of the components.
        prefix: common prefix of the names, ending in "/".
        resolver: "package.module:function", called with the full name; returns a spec of that kind, or None if the
            family has no such member.
        summary: one line for `fgvc list-plugins`.
        api: see `ComponentSpec`.
    """

    kind: Kind
    prefix: str
    resolver: str
    summary: str = ""
    api: int = 1


_SPECS = (
    BackboneSpec,
    HeadSpec,
    OptimizerSpec,
    DatasetSpec,
    ExplainerSpec,
    TrackerSpec,
    ExporterSpec,
    LauncherSpec,
    RecipeSpec,
    StudySpec,
)
SPEC_TYPES: dict[Kind, type[ComponentSpec]] = {spec.kind: spec for spec in _SPECS}
