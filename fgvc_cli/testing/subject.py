"""What is being checked: a component, the options it is checked with, and the registry it was found in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fgvc_cli.options import build
from fgvc_cli.registry import Component, PluginRecord, Registry
from fgvc_cli.specs import Kind
from fgvc_cli.testing.check import ContractBroken


@dataclass(frozen=True)
class Subject:
    """A component to be checked.

    Attributes:
        component: as the registry found it.
        registry: where its partners are found.
        values: options that are set over the component's defaults, as TOML values.
        data: folder or file that a data set is made from; None: the kit writes one of its own.
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
        """
        return build(self.component.options_type(), {**self.values, **changes}, self.kind)

    def make(self, contract: type, **arguments: Any) -> Any:
        """Call its target and see that what it makes is of its kind.

        Args:
            contract: the base class of the kind.
            arguments: of the target.
        """
        made = self.component.load()(**arguments)
        if not isinstance(made, contract):
            raise ContractBroken(
                f"a {contract.__name__}",
                f"{self.component.spec.target} makes a {type(made).__name__}",
                f"derive it from fgvc_cli.contracts.{contract.__name__}",
            )
        return made
