"""Checks of specs, whatever the kind. Free of torch."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from typing import Any

from fgvc_cli.errors import FgvcError, cause_of
from fgvc_cli.options import NoOptions, as_toml, build, describe
from fgvc_cli.registry.loading import HEAVY_MODULES
from fgvc_cli.registry.records import signature_mismatch
from fgvc_cli.testing.check import Checks, ContractBroken, NotApplicable, expect
from fgvc_cli.testing.subject import Subject

SUMMARY_WIDTH = 120
"""Characters of a summary that `fgvc list-plugins` shows in a line or two."""

SPEC: Checks[Subject] = Checks()


@SPEC("it has a name of its own", "Of two components with one name neither wins: both need their distribution's.")
def name(subject: Subject) -> None:
    """Nobody else claims its name."""
    others = [c for c in subject.registry.components(subject.kind) if c.name == subject.name]
    clashing = [c.reference for c in others if c.origin != subject.component.origin]
    expect(
        not clashing,
        f"a {subject.kind} name that nobody else has",
        f"{', '.join(clashing)} {'has' if len(clashing) == 1 else 'have'} it too",
        f"rename {subject.component.reference}, for its bare name is refused",
    )


@SPEC("it has a summary", "`fgvc list-plugins` shows it; without one nobody knows what the component is.")
def summary(subject: Subject) -> None:
    """Summary and source are lines that a table can show."""
    spec = subject.component.spec
    text = spec.summary
    listed = spec in [component.spec for component in subject.registry.components(subject.kind)]
    expect(
        bool(text.strip()) or not listed,  # a family's members are not listed
        "a summary",
        "it is empty",
        "say in the spec, in one line, what the component is",
    )
    expect(
        text.isprintable() and len(text) <= SUMMARY_WIDTH,
        f"a summary of one line, up to {SUMMARY_WIDTH} characters, without control characters",
        f"it has {len(text)} characters in {len(text.splitlines())} lines: {text[:SUMMARY_WIDTH]!r}",
        "shorten it; the rest belongs into the target's docstring",
    )
    fits = spec.source.isprintable()
    expect(fits, "a source of one line", f"it is {spec.source!r}", "name the paper or project in one line")


@SPEC(
    "its options are documented",
    "`fgvc show` prints each option's help text, and `--set` reads its value by the field's type.",
)
def options(subject: Subject) -> None:
    """A frozen dataclass whose fields have defaults and help texts."""
    found = _some_options(subject.component.options_type())
    _expect_frozen(found)
    for field in dataclasses.fields(found):
        where = f"the option '{field.name}'"
        expect(
            field.default is not dataclasses.MISSING,
            f"a default for {where}",
            "it has none",
            f"write {field.name}: ... = option(DEFAULT, HELP)",
        )
    for info in describe(found):
        expect(
            bool(info.help.strip()) and "\n" not in info.help,
            f"a help text of one line for the option '{info.name}'",
            "it has none" if not info.help.strip() else "it has several lines",
            f"write {info.name}: ... = option(DEFAULT, 'what it does, in which unit')",
        )


@SPEC("its defaults are values that `--set` takes", "A run's config.toml holds every option, and must be read again.")
def defaults(subject: Subject) -> None:
    """Defaults survive being written as TOML and read again."""
    found = _some_options(subject.options_type())
    written = as_toml(found())
    try:
        read = build(found, written, subject.kind)
    except FgvcError as error:
        raise ContractBroken(
            "defaults within their own types and bounds", f"reading them again fails: {error}", "mend the default"
        ) from error
    expect(
        read == found(),
        "the same options after they are written and read",
        f"{_difference(found(), read)}",
        "use int, float, bool, str, Literal, tuple[...] or '... | None' for its type",
    )


@SPEC("its target is there", "The host imports it only when the component is used: a typing error shows that late.")
def target(subject: Subject) -> None:
    """What the spec names can be imported, and called as the host does."""
    try:
        found = subject.component.load()
    except FgvcError as error:
        raise ContractBroken(
            f"{subject.component.spec.target} to be importable", str(error), "mend the target or its module"
        ) from error
    if subject.component.spec.is_file:
        return
    named, arguments = subject.component.spec.target, subject.arguments()
    expect(
        callable(found),
        f"{named} to be a class or function",
        f"it is a {type(found).__name__}",
        "name what makes the component",
    )
    refusal = signature_mismatch(found, arguments)
    called = f"target({', '.join(f'{name}=...' for name in arguments)})"
    expect(not refusal, f"{named} to be called as {called}", refusal, "give its arguments those names")


@SPEC(
    "it registers without torch",
    "Every command loads every plugin: torch takes seconds, and `fgvc --help` should take none.",
)
def registration(subject: Subject) -> None:
    """The plugin, and the module of its options, import none of the heavy modules."""
    plugin = subject.plugin
    alone = register_alone(plugin.distribution, plugin.name, plugin.module, plugin.version)
    mend = "import torch only in the modules that targets name, which the package's __init__ must not import"
    expect(not alone.cause, f"{plugin.module} to register without torch, timm and torchvision", alone.cause, mend)
    cause = alone.options.get(f"{subject.kind} {subject.name}", "")
    expect(not cause, "its options to be importable without torch, timm and torchvision", cause, mend)


@SPEC("its family knows its members", "A family stands for names that nobody can list: it must tell its own ones.")
def family(subject: Subject) -> None:
    """The resolver gives one answer, and none for a name that cannot be."""
    families = [f for f in subject.plugin.families if subject.name.startswith(f.family.prefix)]
    if not families:
        raise NotApplicable("it is not of a family of names")
    registered = families[0].family
    expect(
        subject.registry.find(subject.kind, subject.component.reference).spec == subject.component.spec,
        "one spec for one name",
        f"{registered.resolver} gave two that differ",
        "let the spec follow from the name alone",
    )
    expect_no_such_member(registered.resolver, registered.prefix)


def expect_no_such_member(resolver: str, prefix: str) -> None:
    """Ask a family for a name that cannot be; None is the answer, or an error that says so."""
    from fgvc_cli.registry.records import import_name

    impossible = f"{prefix}no such member, whatever the family"
    try:
        answer = import_name(resolver)(impossible)
    except FgvcError:
        return
    except BaseException as error:
        raise ContractBroken(
            f"None (or an FgvcError) for {impossible!r}", f"{resolver} raised {cause_of(error)}", "return None"
        ) from error
    expect(answer is None, f"None for {impossible!r}", f"{resolver} returned {answer!r}", "return None")


def _some_options(found: type[Any]) -> type[Any]:
    if found is NoOptions:
        raise NotApplicable("it has no options")
    return found


def _expect_frozen(found: type) -> None:
    parameters = found.__dataclass_params__  # type: ignore[attr-defined]
    expect(
        parameters.frozen,
        f"{found.__name__} to be a frozen dataclass",
        "it can be changed",
        "write @dataclass(frozen=True)",
    )


def _difference(first: Any, second: Any) -> str:
    names = [f.name for f in dataclasses.fields(first) if getattr(first, f.name) != getattr(second, f.name)]
    shown = [f"{name} was {getattr(first, name)!r} and became {getattr(second, name)!r}" for name in names]
    return ", ".join(shown) or "they compare as different"


PATIENCE = 60.0
"""Seconds that a registration may take: far more than any should."""


PROGRAM = """
import json, sys
told = json.loads(sys.argv[1])
sys.path[:] = told["path"]

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in told["heavy"]:
            raise ImportError(f"{name} must not be imported only to register")

sys.meta_path.insert(0, Absent())
from fgvc_cli.registry.loading import InstalledPlugin, Loader
from fgvc_cli.errors import cause_of
record = Loader().load(InstalledPlugin(*told["plugin"]))
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
    """What came of it.

    Attributes:
        cause: why it failed, in one line; empty if it did not.
        options: for each component ("head pim") whose options could not be imported: why.
    """

    cause: str
    options: dict[str, str]


@cache
def register_alone(distribution: str, name: str, module: str, version: str) -> Registration:
    """Register a plugin where nothing heavy can be imported; the arguments are those of `InstalledPlugin`."""
    told = {"path": sys.path, "heavy": HEAVY_MODULES, "plugin": (distribution, name, module, version)}
    command = [sys.executable, "-c", PROGRAM, json.dumps(told)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        return Registration(f"it took longer than {PATIENCE:.0f} s", {})
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return Registration((done.stderr.strip().splitlines() or ["Python ended without a word"])[-1], {})
    return Registration(**json.loads(lines[-1]))
