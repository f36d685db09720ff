"""Settings that several combinations of components share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fgvc_cli.config.layering import Recipe, base_component
from fgvc_cli.config.run_config import user_settings
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_cli.options import option_names, parse_setting
from fgvc_cli.registry import Component, Registry
from fgvc_cli.specs import Kind

MEASURED: tuple[Kind, ...] = ("backbone", "head", "optimizer")
"""Kinds that a benchmark or a study combines."""


@dataclass(frozen=True)
class SharedSettings:
    """Settings of a benchmark or a study; an option of a component applies to each component that has it.

    Attributes:
        texts: settings as `kind.option=value`.
        recipe: may name the optimizer that another one wraps.
        registry: where components are looked up.
    """

    texts: Sequence[str]
    recipe: Recipe
    registry: Registry

    def of(self, components: Mapping[Kind, Component]) -> list[str]:
        """Return the texts that apply to a combination of components, given by kind."""
        names = {str(kind): self._option_names(component) for kind, component in components.items()}
        parsed = [(text, *parse_setting(text)) for text in self.texts]
        return [text for text, kind, name, _ in parsed if kind not in names or _option(name) in names[kind]]

    def check(self, combined: Mapping[Kind, Sequence[Component]]) -> None:
        """Raise `UsageError` if a setting applies to none of the components, or names a component."""
        for text in self.texts:
            kind, name, _ = parse_setting(text)
            components = {str(k): found for k, found in combined.items()}.get(kind)
            if components is None:
                continue
            if name == "name":
                raise UsageError(f"`{text}`: name components with `{kind}`")
            of_kind = {c.name: self._option_names(c) for c in components}
            if not any(_option(name) in options for options in of_kind.values()):
                known = dict.fromkeys(option for options in of_kind.values() for option in options)
                listed = "; ".join(f"{c}: {', '.join(options) or 'none'}" for c, options in of_kind.items())
                raise UsageError(f"{kind}.{name}: no such option.{did_you_mean(name, known)} Options of {listed}")

    def _option_names(self, component: Component) -> list[str]:
        """Return the options of a component and of the optimizer it wraps; none if they cannot be loaded."""
        try:
            own = option_names(component.options_type())
            layers = [self.recipe.settings, *user_settings(None, {}, self.texts)[0]]
            tables = [layer["optimizer"] for layer in layers if "optimizer" in layer]
            base = base_component(component, tables, self.registry) if component.kind == "optimizer" else None
            return own if base is None else [*own, "base", *option_names(base.options_type())]
        except UsageError:
            raise
        except FgvcError:
            return []


def _option(name: str) -> str:
    """Return the option that a dotted name begins with: `base` of `base.lr`."""
    return name.partition(".")[0]
