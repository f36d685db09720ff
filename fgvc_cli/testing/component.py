"""The component under test, and the checks of specs that apply to every kind. Free of torch."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from fgvc_cli.errors import FgvcError, cause_of
from fgvc_cli.options import NoOptions, as_toml, build, describe
from fgvc_cli.registry import Component, PluginRecord, Registry
from fgvc_cli.registry.loading import HEAVY_MODULES
from fgvc_cli.registry.records import import_name, signature_mismatch
from fgvc_cli.specs import Kind
from fgvc_cli.testing.check import Checks, ContractError, NotApplicable, expect

ARGUMENTS: dict[Kind, tuple[str, ...]] = {
    "backbone": ("name", "image_size", "options"),
    "head": ("backbone", "classes", "options"),
    "optimizer": ("groups", "options"),
    "dataset": ("request", "options"),
    "explainer": ("options",),
    "tracker": ("options",),
    "exporter": ("options",),
    "launcher": ("options", "jobs", "device"),
}
"""Keyword arguments that the host passes to the target of each kind."""

MAX_SUMMARY = 120
"""Maximum length of a summary: `fgvc list-plugins` shows it in one or two lines."""


def section_of(component: Component) -> str:
    """Return the section of a component's options: "head", "tracker.mlflow"."""
    return f"tracker.{component.name}" if component.kind == "tracker" else component.kind


@dataclass(frozen=True)
class ComponentUnderTest:
    """A component under test.

    Attributes:
        component: as registered.
        registry: where its partners are found.
        values: options to set over the component's defaults, as TOML values.
        data: folder or file that a dataset is read from; None: a small generated one.
    """

    component: Component
    registry: Registry
    values: Mapping[str, Any] = field(default_factory=dict)
    data: Path | None = None

    @property
    def kind(self) -> Kind:
        """The kind of component."""
        return self.component.kind

    @property
    def name(self) -> str:
        """The name that a user types."""
        return self.component.name

    @property
    def plugin(self) -> PluginRecord:
        """The plugin that registers it, or its family."""
        name, origin = self.component.name, self.component.origin
        for plugin in self.registry.plugins:
            families = [f.family for f in plugin.families if f.family.kind == self.kind]
            registers = any(c.kind == self.kind and c.name == name for c in plugin.components)
            if plugin.origin == origin and (registers or any(name.startswith(f.prefix) for f in families)):
                return plugin
        raise LookupError(f"no plugin registers {self.component.reference}")

    @property
    def arguments(self) -> tuple[str, ...]:
        """Keyword arguments that the host passes to its target."""
        base = ("base",) if getattr(self.component.spec, "base", "") else ()
        return (*ARGUMENTS.get(self.kind, ()), *base)

    def options(self, **changes: Any) -> Any:
        """Return its options: defaults, updated with `values` and `changes`.

        Raises:
            UsageError: an option does not exist or a value is invalid.
            NotApplicable: see `options_type`.
        """
        return build(self.options_type(), {**self.values, **changes}, section_of(self.component))

    def options_type(self) -> type[Any]:
        """Return its options dataclass.

        Raises:
            NotApplicable: it cannot be imported, which another check reports.
        """
        try:
            return self.component.options_type()
        except FgvcError:
            raise NotApplicable("its options cannot be imported") from None

    def target(self) -> Any:
        """Return its target.

        Raises:
            NotApplicable: it cannot be imported, which another check reports.
        """
        try:
            return self.component.load()
        except FgvcError:
            raise NotApplicable("its target cannot be imported") from None

    def make(self, contract: type, **arguments: Any) -> Any:
        """Call its target and check that it creates an instance of its kind's base class."""
        target = self.target()
        if signature_mismatch(target, arguments):
            raise NotApplicable("its target does not accept the host's arguments")
        instance = target(**arguments)
        expect(
            isinstance(instance, contract),
            f"a {contract.__name__}",
            f"{self.component.spec.target} returns a {type(instance).__name__}",
            f"derive it from fgvc_cli.contracts.{contract.__name__}",
        )
        return instance


SPEC: Checks[ComponentUnderTest] = Checks(lambda component: component)


@SPEC("name is unique", "If two plugins register a name, users must write distribution:name for both.")
def name(subject: ComponentUnderTest) -> None:
    """No other plugin registers its name."""
    others = [c for c in subject.registry.components(subject.kind) if c.name == subject.name]
    same = [c.reference for c in others if c.origin != subject.component.origin]
    expect(
        not same,
        f"a {subject.kind} name that no other plugin has",
        f"{', '.join(same)} {'has' if len(same) == 1 else 'have'} it too",
        f"rename {subject.component.reference}, because its bare name is refused",
    )


@SPEC("summary is one line", "`fgvc list-plugins` shows it to users who look for a component.")
def summary(subject: ComponentUnderTest) -> None:
    """Summary and source are single printable lines."""
    spec = subject.component.spec
    text = spec.summary
    listed = spec in [component.spec for component in subject.registry.components(subject.kind)]
    expect(
        bool(text.strip()) or not listed,  # members of a family are not listed
        "a summary",
        "it is empty",
        "describe the component in the spec, in one line",
    )
    expect(
        text.isprintable() and len(text) <= MAX_SUMMARY,
        f"a summary of one line, up to {MAX_SUMMARY} characters, without control characters",
        f"it has {len(text)} characters in {len(text.splitlines())} lines: {text[:MAX_SUMMARY]!r}",
        "shorten it; details belong in the target's docstring",
    )
    expect(
        spec.source.isprintable(),
        "a source of one line",
        f"it is {spec.source!r}",
        "name the paper or project in one line",
    )


@SPEC("options are documented", "`fgvc show` prints each option's help, and values are parsed by the field's type.")
def options(subject: ComponentUnderTest) -> None:
    """Options are a frozen dataclass whose fields have defaults and help texts."""
    found = _with_fields(subject.component.options_type())
    frozen = found.__dataclass_params__.frozen
    expect(frozen, f"{found.__name__} to be frozen", "it is mutable", "write @dataclass(frozen=True)")
    for item in dataclasses.fields(found):
        has_default = item.default is not dataclasses.MISSING
        fix = f"write {item.name}: ... = option(DEFAULT, HELP)"
        expect(has_default, f"a default for option '{item.name}'", "it has none", fix)
    for info in describe(found):
        expect(
            bool(info.help.strip()) and "\n" not in info.help,
            f"a help text of one line for option '{info.name}'",
            "it has several lines" if info.help.strip() else "it has none",
            f"write {info.name}: ... = option(DEFAULT, 'what it does, with its unit')",
        )


@SPEC("defaults survive a TOML round trip", "A run's config.toml holds every option and is read again.")
def defaults(subject: ComponentUnderTest) -> None:
    """Default options are equal after they are written as TOML values and read again."""
    found = _with_fields(subject.options_type())
    try:
        read = build(found, as_toml(found()), subject.kind)
    except FgvcError as error:
        raise ContractError(
            "defaults within their own types and bounds", f"reading them fails: {error}", "correct the default"
        ) from error
    names = [f.name for f in dataclasses.fields(found) if getattr(found(), f.name) != getattr(read, f.name)]
    changes = [f"{n} was {getattr(found(), n)!r} and became {getattr(read, n)!r}" for n in names]
    expect(
        read == found(),
        "the same options after writing and reading them",
        ", ".join(changes) or "they compare as different",
        "use int, float, bool, str, Literal, tuple[...] or '... | None' as the type",
    )


@SPEC("target can be imported and called", "The host imports it only when the component is used, so errors show late.")
def target(subject: ComponentUnderTest) -> None:
    """The target can be imported and accepts the host's arguments."""
    spec, arguments = subject.component.spec, subject.arguments
    try:
        found = subject.component.load()
    except FgvcError as error:
        raise ContractError(f"{spec.target} to be importable", str(error), "fix the target or its module") from error
    try:
        subject.component.page()
    except FgvcError as error:
        raise ContractError(f"the page {spec.page}", str(error), "add the file to the package") from error
    if spec.is_file:
        return
    kind = f"it is a {type(found).__name__}"
    expect(callable(found), f"{spec.target} to be a class or function", kind, "name what creates the component")
    mismatch = signature_mismatch(found, arguments)
    called = f"target({', '.join(f'{name}=...' for name in arguments)})"
    expect(not mismatch, f"{spec.target} to be called as {called}", mismatch, "use these argument names")


NO_TORCH = "Every command loads every plugin, and importing torch takes seconds."
LIGHT_FIX = "import torch only in the modules of targets, and do not import those in the package's __init__"


@SPEC("registers without importing torch", NO_TORCH)
def registration(subject: ComponentUnderTest) -> None:
    """The plugin's module and the module of the options import no heavy module."""
    alone = expect_registers_without_torch(subject.plugin)
    cause = alone.options.get(f"{subject.kind} {subject.name}", "")
    expect(not cause, "options to be importable without torch, timm and torchvision", cause, LIGHT_FIX)


@SPEC("family resolves its members", "Names of a family are not listed: its resolver must recognize them.")
def family(subject: ComponentUnderTest) -> None:
    """The resolver returns the same spec each time, and None for an impossible name."""
    families = [f for f in subject.plugin.families if subject.name.startswith(f.family.prefix)]
    if not families:
        raise NotApplicable("it is not a member of a family")
    registered = families[0].family
    expect(
        subject.registry.find(subject.kind, subject.component.reference).spec == subject.component.spec,
        "one spec for one name",
        f"{registered.resolver} returned two different ones",
        "derive the spec from the name alone",
    )
    expect_no_such_member(registered.resolver, registered.prefix)


def expect_no_such_member(resolver: str, prefix: str) -> None:
    """Raise `ContractError` unless a resolver returns None (or raises an `FgvcError`) for an impossible name."""
    impossible = f"{prefix}no such member, whatever the family"
    try:
        answer = import_name(resolver)(impossible)
    except FgvcError:
        return
    except BaseException as error:
        raise ContractError(
            f"None (or an FgvcError) for {impossible!r}", f"{resolver} raised {cause_of(error)}", "return None"
        ) from error
    expect(answer is None, f"None for {impossible!r}", f"{resolver} returned {answer!r}", "return None")


def _with_fields(found: type[Any]) -> type[Any]:
    if found is NoOptions:
        raise NotApplicable("it has no options")
    return found


TIMEOUT = 60.0
"""Seconds until registering a plugin is given up."""

PROGRAM = """
import json, sys
given = json.loads(sys.argv[1])
sys.path[:] = given["path"]

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in given["heavy"]:
            raise ImportError(f"{name} must not be imported to register")

sys.meta_path.insert(0, Blocked())
from fgvc_cli.errors import cause_of
from fgvc_cli.registry.loading import InstalledPlugin, Loader
record = Loader().load(InstalledPlugin(*given["plugin"]))
options = {}
for component in record.components:
    try:
        component.options_type()
    except BaseException as error:
        options[f"{component.kind} {component.name}"] = cause_of(error)
print(json.dumps({"cause": record.cause, "options": options}))
"""


@dataclass(frozen=True)
class Registration:
    """Result of registering a plugin in a process where heavy modules cannot be imported.

    Attributes:
        cause: why it failed, in one line; empty if it did not.
        options: why the options of a component ("head pim") could not be imported, for those that failed.
    """

    cause: str
    options: dict[str, str]


def expect_registers_without_torch(plugin: PluginRecord) -> Registration:
    """Register a plugin in a process without heavy modules; raise `ContractError` if that fails."""
    alone = _register_alone(plugin.distribution, plugin.name, plugin.module, plugin.origin.version)
    expected = f"{plugin.module} to register without torch, timm and torchvision"
    expect(not alone.cause, expected, alone.cause, LIGHT_FIX)
    return alone


@cache
def _register_alone(*plugin: str) -> Registration:
    given = {"path": sys.path, "heavy": HEAVY_MODULES, "plugin": plugin}
    command = [sys.executable, "-c", PROGRAM, json.dumps(given)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        return Registration(f"it took longer than {TIMEOUT:.0f} s", {})
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return Registration((done.stderr.strip().splitlines() or ["the process exited without output"])[-1], {})
    return Registration(**json.loads(lines[-1]))
