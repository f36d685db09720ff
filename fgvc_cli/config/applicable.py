"""Which settings apply to which components."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from fgvc_cli.config.layering import base_component
from fgvc_cli.config.recipes import Recipe
from fgvc_cli.config.run_config import person_settings
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_cli.options import parse_setting
from fgvc_cli.registry import Component, Registry
from fgvc_cli.specs import Kind

MEASURED: tuple[Kind, ...] = ("backbone", "head", "optimizer")
"""Kinds whose components are combined."""


@dataclass(frozen=True)
class Settings:
    """Settings of a benchmark or a study: one of a component is for each that has such an option, the rest do without.

    Attributes:
        texts: `--set` as typed.
        recipe: may say what an optimizer is built over.
        registry: finds that.
    """

    texts: Sequence[str]
    recipe: Recipe
    registry: Registry

    def of(self, components: Mapping[Kind, Component]) -> list[str]:
        """Return the texts that are for a combination of components, by kind."""
        names = {str(kind): self._option_names(component) for kind, component in components.items()}
        return [text for text in self.texts if _is_for(text, names)]

    def check(self, asked: Mapping[Kind, Sequence[Component]]) -> None:
        """Raise `UsageError` if a setting is for none of the components, or names one."""
        for text in self.texts:
            kind, name, _ = parse_setting(text)
            components = {str(k): found for k, found in asked.items()}.get(kind)
            if components is None:
                continue
            if name == "name":
                raise UsageError(f"--set {text}: name components with --{kind}.")
            of_kind = {c.name: self._option_names(c) for c in components}
            if not any(_first(name) in options for options in of_kind.values()):
                known = dict.fromkeys(option for options in of_kind.values() for option in options)
                listed = "; ".join(f"{c}: {', '.join(options) or 'none'}" for c, options in of_kind.items())
                raise UsageError(f"{kind}.{name}: no such option.{did_you_mean(name, known)} Options of {listed}.")

    def _option_names(self, component: Component) -> list[str]:
        """Return the options of a component, and of what it is built over; none if they cannot be loaded."""
        try:
            own = [field.name for field in fields(component.options_type())]
            base = self._base(component) if component.kind == "optimizer" else None
            return own if base is None else [*own, "base", *(f.name for f in fields(base.options_type()))]
        except UsageError:
            raise
        except FgvcError:
            return []

    def _base(self, optimizer: Component) -> Component | None:
        layers = [self.recipe.settings, *person_settings(None, {}, self.texts)[0]]
        return base_component(
            optimizer, [layer["optimizer"] for layer in layers if "optimizer" in layer], self.registry
        )


def _is_for(text: str, names: Mapping[str, Sequence[str]]) -> bool:
    kind, name, _ = parse_setting(text)
    return kind not in names or _first(name) in names[kind]


def _first(name: str) -> str:
    """Return the option that a dotted name is of: `base.lr` is of `base`."""
    return name.partition(".")[0]
