"""Build explainers by name, with their options, and check what they return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import Tensor

from fgvc_cli.contracts import Classifier, Explainer
from fgvc_cli.enforcement import make, violation
from fgvc_cli.errors import FgvcError, UsageError, did_you_mean
from fgvc_cli.options import as_toml, build, parse_setting
from fgvc_cli.registry import Component, Registry
from fgvc_cli.specs import ExplainerSpec, Kind

KIND: Kind = "explainer"

ROUNDING = 1e-3
"""Tolerance of the range [0, 1]: interpolation rounds."""


@dataclass(frozen=True)
class NamedExplainer:
    """An explainer with its requested name and options (TOML values); maps of a baseline ignore the classifier."""

    name: str
    explainer: Explainer
    options: Mapping[str, Any]
    is_baseline: bool = False

    def explain(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Compute saliency maps B,S,S in [0, 1]; see `Explainer.explain`.

        Raises:
            FgvcError: the component raises, or does not return one map per image at the size of the images.
        """
        return self.explainer.explain(classifier, images, targets)

    def out_of_range(self) -> FgvcError:
        """Return the error for maps that fail `is_in_range`."""
        return violation(self.explainer, "explain()", "maps in [0, 1]", "values that are NaN or outside of it")

    def check(self, classifier: Classifier) -> None:
        """Raise `UsageError` if the explainer cannot explain this classifier."""
        self.explainer.check(classifier)

    def notes(self, classifier: Classifier) -> list[str]:
        """Return notes on how it explains this classifier."""
        return self.explainer.notes(classifier)


def is_in_range(maps: Tensor) -> Tensor:
    """Return whether all values of each map B,S,S are in [0, 1]: bool B. NaN is not.

    NaN is the explainer's fault only if the classifier's scores are finite.
    """
    return ((maps >= -ROUNDING) & (maps <= 1 + ROUNDING)).flatten(1).all(dim=1)


def with_baseline(
    explainers: Sequence[NamedExplainer], registry: Registry
) -> tuple[list[NamedExplainer], NamedExplainer]:
    """Append a baseline explainer unless there is one already; return all explainers and the baseline.

    Raises:
        FgvcError: no baseline explainer is installed, because the built-in one is disabled or failed to load.
    """
    requested = next((explainer for explainer in explainers if explainer.is_baseline), None)
    if requested is not None:
        return list(explainers), requested
    known = sorted(filter(_is_baseline, registry.components(KIND)), key=lambda component: not component.builtin)
    if not known:
        raise FgvcError("No baseline explainer is installed to compare with (the built-in one is `random`)")
    baseline = make_explainer(known[0].reference, {}, registry)
    baseline = replace(baseline, name=known[0].name)
    return [*explainers, baseline], baseline


def explainer_settings(texts: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Separate settings `explainer.option=value` from others; return the explainer options, and the other texts.

    Raises:
        UsageError: a text does not have the form `kind.option=value`.
    """
    settings: dict[str, Any] = {}
    others = []
    for text in texts:
        kind, name, value = parse_setting(text)
        if kind == KIND:
            settings[name] = value
        else:
            others.append(text)
    return settings, others


def make_explainer(name: str, settings: Mapping[str, Any], registry: Registry) -> NamedExplainer:
    """Build a registered explainer with options as TOML values, by name.

    Raises:
        UsageError: the explainer or an option does not exist, or a value is invalid.
        FgvcError: the component cannot be loaded, or is not an `Explainer`.
    """
    component = registry.find(KIND, name)
    options: Any = build(component.options_type(), settings, KIND)
    explainer = make(component, Explainer, options=options)
    return NamedExplainer(name, explainer, as_toml(options), _is_baseline(component))


def make_explainers(names: Sequence[str], settings: Mapping[str, Any], registry: Registry) -> list[NamedExplainer]:
    """Build several explainers, each once; each option is passed to the explainers that have it.

    Raises:
        UsageError: an explainer does not exist, none of them has an option, or a value is invalid.
        FgvcError: a component cannot be loaded, or is not an `Explainer`.
    """
    requested = list(dict.fromkeys(names))
    known = {name: [field.name for field in fields(registry.find(KIND, name).options_type())] for name in requested}
    everything = dict.fromkeys(option for options in known.values() for option in options)
    for option in settings:
        if option not in everything:
            listed = ", ".join(f"{name}: {', '.join(options) or 'none'}" for name, options in known.items())
            raise UsageError(
                f"`explainer.{option}` does not exist.{did_you_mean(option, everything)} Options of {listed}"
            )
    return [
        make_explainer(name, {option: settings[option] for option in settings if option in known[name]}, registry)
        for name in requested
    ]


def _is_baseline(component: Component) -> bool:
    return isinstance(component.spec, ExplainerSpec) and component.spec.baseline
