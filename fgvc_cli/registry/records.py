"""What the registry holds: components, families of names, and one record per plugin."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.resources
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from fgvc_cli.errors import STOPS, FgvcError, cause_of, did_you_mean
from fgvc_cli.options import NoOptions
from fgvc_cli.specs import ComponentSpec, Family, Kind

if TYPE_CHECKING:
    from pluggy import HookImpl

BUILTIN_DISTRIBUTION = "fgvc-cli"
"""The distribution of the built-in plugins."""

Status = Literal["loaded", "failed", "disabled"]


@dataclass(frozen=True)
class Origin:
    """The distribution that something was installed with, and its version."""

    distribution: str
    version: str

    @property
    def builtin(self) -> bool:
        """Whether it is fgvc's own distribution."""
        return normalized(self.distribution) == BUILTIN_DISTRIBUTION

    def __str__(self) -> str:
        return f"{self.distribution}=={self.version}"


@dataclass(frozen=True)
class Component:
    """A registered component: its spec and its origin."""

    spec: ComponentSpec
    origin: Origin

    @property
    def name(self) -> str:
        """The name that a user types."""
        return self.spec.name

    @property
    def kind(self) -> Kind:
        """The kind of component."""
        return self.spec.kind

    @property
    def distribution(self) -> str:
        """The distribution that registers it."""
        return self.origin.distribution

    @property
    def builtin(self) -> bool:
        """Whether it is built in."""
        return self.origin.builtin

    @property
    def reference(self) -> str:
        """The unambiguous name, such as "fgvc-cli:pim"."""
        return f"{self.distribution}:{self.name}"

    def load(self) -> Any:
        """Import and return the spec's target; for a recipe or a study, read its TOML file.

        Raises:
            FgvcError: the target cannot be imported or read.
        """
        try:
            if not self.spec.is_file:
                return import_name(self.spec.target)
            return _packaged_text(self.spec.target)
        except STOPS:
            raise
        except BaseException as error:  # a module can raise anything, SystemExit included
            raise FgvcError(f"{self.title} could not be loaded: {cause_of(error)}") from error

    def page(self) -> str:
        """Return the Markdown page of the spec; empty if it names none.

        Raises:
            FgvcError: the page cannot be read.
        """
        try:
            return _packaged_text(self.spec.page) if self.spec.page else ""
        except STOPS:
            raise
        except BaseException as error:  # reading it imports the package
            raise FgvcError(f"the page of {self.title} cannot be read: {cause_of(error)}") from error

    def make(self, **arguments: Any) -> Any:
        """Call the spec's target with these arguments.

        Raises:
            FgvcError: the target cannot be imported or does not take these arguments. Errors of the call propagate.
        """
        target = self.load()
        if mismatch := signature_mismatch(target, arguments):
            given = ", ".join(f"{name}=..." for name in arguments)
            raise FgvcError(
                f"{self.title} breaks its contract: {self.spec.target} is called as target({given}), but {mismatch}. "
                "Report this to the plugin's author."
            )
        return target(**arguments)

    def options_type(self) -> type:
        """Import and return the options dataclass; `NoOptions` for a component without options.

        Raises:
            FgvcError: it cannot be imported or is not a dataclass.
        """
        if not self.spec.options:
            return NoOptions
        try:
            found = import_name(self.spec.options)
            if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
                raise TypeError(f"{self.spec.options} is not a dataclass")
        except STOPS:
            raise
        except BaseException as error:
            raise FgvcError(f"{self.title} has options that could not be loaded: {cause_of(error)}") from error
        return found

    @property
    def title(self) -> str:
        """How errors name it: kind, name, distribution and version."""
        return f"{self.kind} '{self.name}' of {self.origin}"


@dataclass(frozen=True)
class RegisteredFamily:
    """A registered family of names, such as `timm/<any model>`, and its origin."""

    family: Family
    origin: Origin

    @property
    def pattern(self) -> str:
        """How the family is displayed: "timm/<name>"."""
        return f"{self.family.prefix}<name>"


@dataclass(frozen=True)
class PluginRecord:
    """The result of loading one entry point.

    Attributes:
        name: name of the entry point.
        origin: its distribution and version.
        module: the module (or object) that the entry point names.
        status: "loaded"; "failed", then nothing of it is used; "disabled", then it was not imported.
        milliseconds: time to import it and to call its hooks.
        heavy_modules: the modules of `discovery.HEAVY_MODULES` that it was the first to import.
        cause: why it failed, in one line, or the setting that disables it.
        traceback: traceback of the failure.
        components: the components it registers.
        families: the families of names it registers.
        commands: the subcommands it adds, by name, as click commands.
        hooks: its implementations of run events, by hook name.
    """

    name: str
    origin: Origin
    module: str
    status: Status
    milliseconds: float = 0.0
    heavy_modules: tuple[str, ...] = ()
    cause: str = ""
    traceback: str = ""
    components: tuple[Component, ...] = ()
    families: tuple[RegisteredFamily, ...] = ()
    commands: Mapping[str, Any] = field(default_factory=dict)
    hooks: Mapping[str, HookImpl] = field(default_factory=dict)

    @property
    def distribution(self) -> str:
        """The distribution that it comes with."""
        return self.origin.distribution

    @property
    def builtin(self) -> bool:
        """Whether it is built in."""
        return self.origin.builtin

    @cached_property
    def failure(self) -> str:
        """One line that names the plugin and the cause of its failure."""
        entry = "" if self.name == self.distribution else f" (entry point '{self.name}')"
        return f"{self.origin}{entry} failed to load: {self.cause}"


def normalized(distribution: str) -> str:
    """Normalize a distribution's name: case, `-`, `_` and `.` make no difference."""
    return "-".join(part for part in distribution.lower().replace("_", "-").replace(".", "-").split("-") if part)


def _packaged_text(name: str) -> str:
    """Read a text file of a package, named as "package:path"."""
    package, _, path = name.partition(":")
    file = importlib.resources.files(package).joinpath(path)
    if not file.is_file():
        raise FileNotFoundError(f"package {package} has no file {path}")
    return file.read_text(encoding="utf-8")


def import_name(target: str) -> Any:
    """Import "package.module:Name" and return the object.

    Raises:
        AttributeError: the module has no such name. Errors of the import propagate.
    """
    module_name, _, names = target.partition(":")
    found: Any = importlib.import_module(module_name)
    for name in names.split("."):
        if not hasattr(found, name):
            raise AttributeError(f"{module_name} has no '{names}'.{did_you_mean(name, dir(found))}")
        found = getattr(found, name)
    return found


def signature_mismatch(target: Any, names: Iterable[str]) -> str:
    """Return why a callable does not accept keyword arguments of these names; empty if it does."""
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # no signature, as for some C functions: the call itself will fail if it must
        return ""
    try:
        signature.bind(**dict.fromkeys(names))
    except TypeError as error:
        return f"its signature is {signature}: {error}"
    return ""
