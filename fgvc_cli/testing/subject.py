"""What is being checked: a component, the options it is checked with, and the registry it was found in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgvc_cli.errors import FgvcError
from fgvc_cli.options import build
from fgvc_cli.registry import Component, PluginRecord, Registry
from fgvc_cli.registry.records import signature_mismatch
from fgvc_cli.specs import Kind
from fgvc_cli.testing.check import ContractBroken, NotApplicable

ARGUMENTS: dict[Kind, tuple[str, ...]] = {
    "backbone": ("name", "image_size", "options"),
    "head": ("backbone", "classes", "options"),
    "optimizer": ("groups", "options"),
    "dataset": ("request", "options"),
    "explainer": ("options",),
    "tracker": ("options",),
    "recipe": (),
    "study": (),
}
"""What the host gives the target of each kind, by name."""


def section_of(component: Component) -> str:
    """Return what stands before a component's options in `--set`: "head", "tracker.mlflow"."""
    return f"tracker.{component.name}" if component.kind == "tracker" else component.kind


@dataclass(frozen=True)
class Subject:
    """A component to be checked.

    Attributes:
        component: as the registry found it.
        registry: where its partners are found.
        values: options that are set over the component's defaults, as TOML values.
        data: folder or file that a dataset is made from; None: the kit writes one of its own.
    """

    component: Component
    registry: Registry
    values: Mapping[str, Any] = field(default_factory=dict)
    data: Path | None = None

    @property
    def kind(self) -> Kind:
        """Which kind of component it is."""
        return self.component.kind

    @property
    def name(self) -> str:
        """What a person types."""
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

    def options(self, **changes: Any) -> Any:
        """Return its options dataclass: defaults, then `values`, then `changes`.

        Raises:
            UsageError: there is no such option, or a value does not fit.
            NotApplicable: as for `options_type`.
        """
        return build(self.options_type(), {**self.values, **changes}, section_of(self.component))

    def options_type(self) -> type[Any]:
        """Return the dataclass of its options.

        Raises:
            NotApplicable: it cannot be imported, which is for the check of options to say.
        """
        try:
            return self.component.options_type()
        except FgvcError:
            raise NotApplicable("its options are not there") from None

    def target(self) -> Any:
        """Return what makes the component.

        Raises:
            NotApplicable: it cannot be imported, which is for the check of the target to say.
        """
        try:
            return self.component.load()
        except FgvcError:
            raise NotApplicable("its target is not there") from None

    def arguments(self) -> tuple[str, ...]:
        """Name what the host gives its target."""
        over = ("base",) if getattr(self.component.spec, "base", "") else ()
        return (*ARGUMENTS[self.kind], *over)

    def make(self, contract: type, **arguments: Any) -> Any:
        """Call its target and see that what it makes is of its kind.

        Args:
            contract: the base class of the kind.
            arguments: of the target.
        """
        target = self.target()
        if signature_mismatch(target, arguments):
            raise NotApplicable("its target does not take what it is given")
        made = target(**arguments)
        if not isinstance(made, contract):
            raise ContractBroken(
                f"a {contract.__name__}",
                f"{self.component.spec.target} makes a {type(made).__name__}",
                f"derive it from fgvc_cli.contracts.{contract.__name__}",
            )
        return made
