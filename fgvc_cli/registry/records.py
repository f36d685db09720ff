"""What the registry knows: components, families of names, and a record of each plugin."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from fgvc_cli.errors import FgvcError, did_you_mean
from fgvc_cli.options import NoOptions
from fgvc_cli.specs import ComponentSpec, Family, Kind

if TYPE_CHECKING:
    from pluggy import HookImpl

BUILTIN_DISTRIBUTION = "fgvc-cli"
"""The distribution whose plugins are the built-in ones."""

HEAVY_MODULES = ("torch", "timm", "torchvision")
"""What a plugin must not import only to register; the record says when it did."""

Status = Literal["loaded", "failed", "disabled"]


@dataclass(frozen=True)
class Origin:
    """Where something comes from: a distribution and its version."""

    distribution: str
    version: str

    @property
    def builtin(self) -> bool:
        """Whether it belongs to fgvc itself."""
        return normalized(self.distribution) == BUILTIN_DISTRIBUTION

    def __str__(self) -> str:
        return f"{self.distribution}=={self.version}"


@dataclass(frozen=True)
class Component:
    """One registered component: what its plugin says of it, and where it comes from."""

    spec: ComponentSpec
    origin: Origin

    @property
    def name(self) -> str:
        """What a person types."""
        return self.spec.name

    @property
    def kind(self) -> Kind:
        """Which kind of component it is."""
        return self.spec.kind

    @property
    def distribution(self) -> str:
        """The distribution that it comes with."""
        return self.origin.distribution

    @property
    def version(self) -> str:
        """The version of that distribution."""
        return self.origin.version

    @property
    def builtin(self) -> bool:
        """Whether it comes with fgvc itself."""
        return self.origin.builtin

    @property
    def reference(self) -> str:
        """The name that is never ambiguous, such as "fgvc-cli:pim"."""
        return f"{self.distribution}:{self.name}"

    def load(self) -> Any:
        """Import and return what the spec's target names; for a recipe or a study, the text of its TOML file.

        Raises:
            FgvcError: it cannot be imported, or is not there.
        """
        try:
            return _resource(self.spec.target) if self.spec.is_file else import_name(self.spec.target)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a module can raise anything, SystemExit included
            raise self._broken("could not be loaded", error) from error

    def make(self, **arguments: Any) -> Any:
        """Call what the spec's target names; arguments are passed by name.

        Raises:
            FgvcError: it cannot be imported, or does not take these arguments. The call raises what the target raises.
        """
        target = self.load()
        if refusal := refusal_of(target, arguments):
            given = ", ".join(f"{name}=..." for name in arguments)
            raise FgvcError(
                f"{self.kind} '{self.name}' of {self.origin} breaks its contract: {self.spec.target} is called as "
                f"target({given}) and {refusal}. Its author can mend it."
            )
        return target(**arguments)

    def options_type(self) -> type:
        """Import and return the dataclass of the component's options, `NoOptions` if it has none.

        Raises:
            FgvcError: it cannot be imported, is not there, or is no dataclass.
        """
        if not self.spec.options:
            return NoOptions
        try:
            found = import_name(self.spec.options)
            if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
                raise TypeError(f"{self.spec.options} is not a dataclass")
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise self._broken("has options that could not be loaded", error) from error
        return found

    def _broken(self, what: str, error: BaseException) -> FgvcError:
        return FgvcError(f"{self.kind} '{self.name}' of {self.origin} {what}: {cause_of(error)}")


@dataclass(frozen=True)
class RegisteredFamily:
    """A family of names such as `timm/<any model>`, and where it comes from."""

    family: Family
    origin: Origin

    @property
    def pattern(self) -> str:
        """How the family is shown: "timm/<name>"."""
        return f"{self.family.prefix}<name>"


@dataclass(frozen=True)
class PluginRecord:
    """What became of one entry point.

    Attributes:
        name: the entry point's name.
        origin: its distribution and version.
        module: what the entry point names.
        status: "loaded"; "failed", and then nothing of it is used; or "disabled", and then it was not imported.
        milliseconds: what importing it and calling its hooks took.
        heavy_modules: those of `HEAVY_MODULES` that it was the first to import.
        cause: one line on why it failed, or what disables it.
        traceback: where it failed, for `--debug`.
        components: what it registered.
        families: the families of names that it registered.
        commands: the subcommands that it adds, by name, as click commands.
        hooks: its implementations of the run events, by hook.
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
    def version(self) -> str:
        """The version of that distribution."""
        return self.origin.version

    @property
    def builtin(self) -> bool:
        """Whether it comes with fgvc itself."""
        return self.origin.builtin

    @cached_property
    def failure(self) -> str:
        """One line that names it and says why it failed."""
        entry = "" if self.name == self.distribution else f" (entry point '{self.name}')"
        return f"{self.origin}{entry} failed to load: {self.cause}"


def normalized(distribution: str) -> str:
    """Write a distribution's name in the one form that `-`, `_`, `.` and case do not change."""
    return "-".join(part for part in distribution.lower().replace("_", "-").replace(".", "-").split("-") if part)


def import_name(target: str) -> Any:
    """Import "package.module:Name" and return what it names.

    Raises:
        AttributeError: the module has no such name. An import raises what the module raises.
    """
    module_name, _, names = target.partition(":")
    found: Any = importlib.import_module(module_name)
    for name in names.split("."):
        if not hasattr(found, name):
            raise AttributeError(f"{module_name} has no '{names}'.{did_you_mean(name, dir(found))}")
        found = getattr(found, name)
    return found


def refusal_of(target: Any, names: Iterable[str]) -> str:
    """Say why something cannot be called with arguments of these names, such as "lacks 'options'"; empty: it can be."""
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):  # it is not to be known, as of what is written in C; the call itself will tell
        return ""
    try:
        signature.bind(**dict.fromkeys(names))
    except TypeError as error:
        return f"its signature is {signature}: {error}"
    return ""


def cause_of(error: BaseException) -> str:
    """Say in one line what was raised."""
    if isinstance(error, SystemExit):
        return f"it called sys.exit({'' if error.code is None else repr(error.code)})"
    text = " ".join(_own_words(error).split())
    text = text if len(text) <= 300 else text[:297] + "..."
    if isinstance(error, FgvcError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _own_words(error: BaseException) -> str:
    """Return an exception's message; none where asking for it raises, as those of other people's classes may."""
    try:
        return str(error)
    except Exception:
        return ""


def _resource(target: str) -> str:
    """Read the text file that "package:path/to/file" names."""
    import importlib.resources

    package, _, path = target.partition(":")
    resource = importlib.resources.files(package).joinpath(path)
    if not resource.is_file():
        raise FileNotFoundError(f"the package {package} has no file {path}")
    return resource.read_text(encoding="utf-8")
