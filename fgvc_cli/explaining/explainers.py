"""From the names of explainers to explainers with their options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from torch import Tensor

from fgvc_cli.contracts import Classifier, Explainer
from fgvc_cli.devices import is_out_of_memory
from fgvc_cli.errors import FgvcError, UsageError, cause_of, did_you_mean
from fgvc_cli.options import as_toml, build, parse_setting
from fgvc_cli.registry import Component, Registry
from fgvc_cli.specs import ExplainerSpec, Kind

KIND: Kind = "explainer"

ROUNDING = 1e-3
"""How far outside of [0, 1] a map's values may lie: interpolation rounds."""


@dataclass(frozen=True)
class NamedExplainer:
    """An explainer, and what a person calls it.

    Attributes:
        name: as it was asked for.
        explainer: the component.
        options: its options, as TOML values.
        is_baseline: whether it knows nothing of the classifier.
    """

    name: str
    explainer: Explainer
    options: Mapping[str, Any]
    is_baseline: bool = False

    def explain(self, classifier: Classifier, images: Tensor, targets: Tensor) -> Tensor:
        """Return saliency maps B,S,S in [0, 1]; see `Explainer.explain`.

        Raises:
            FgvcError: the component fails, or gives something else than one map an image, of the size of the images.
        """
        try:
            maps = self.explainer.explain(classifier, images, targets)
        except FgvcError:
            raise
        except Exception as error:  # a component can raise anything; the person who reads it chose a name
            if is_out_of_memory(error):
                raise
            raise FgvcError(
                f"explainer {self.name} failed: {cause_of(error)}. Its author can mend it (--debug shows where); "
                "another --explainer may do."
            ) from error
        expected = (len(images), *images.shape[-2:])
        if not isinstance(maps, Tensor) or maps.shape != expected:
            found = f"a tensor of shape {tuple(maps.shape)}" if isinstance(maps, Tensor) else f"a {type(maps).__name__}"
            raise FgvcError(
                f"explainer {self.name} breaks its contract: it gave {found} where maps of shape {expected} are meant. "
                "Its author can mend it."
            )
        return maps

    def out_of_range(self) -> FgvcError:
        """Return the error of maps that `is_in_range` finds wanting."""
        return FgvcError(
            f"explainer {self.name} breaks its contract: its maps have values outside of [0, 1], or that are not "
            "numbers. Its author can mend it."
        )

    def check(self, classifier: Classifier) -> None:
        """Raise `UsageError`, saying why, if this classifier cannot be explained by it."""
        self.explainer.check(classifier)

    def notes(self, classifier: Classifier) -> list[str]:
        """Return lines a person should know of how it explains that classifier."""
        return self.explainer.notes(classifier)


def is_in_range(maps: Tensor) -> Tensor:
    """Return whether all values of each of the maps B,S,S lie in [0, 1], as the contract has it: bool B.

    What is not a number does not. That is the explainer's fault only where the classifier's own scores are numbers.
    """
    return ((maps >= -ROUNDING) & (maps <= 1 + ROUNDING)).flatten(1).all(dim=1)


def with_baseline(
    explainers: Sequence[NamedExplainer], registry: Registry
) -> tuple[list[NamedExplainer], NamedExplainer]:
    """Add an explainer that knows nothing of the classifier, if none is among them, last; return all, and it.

    Raises:
        FgvcError: there is none; the built-in one was disabled or failed.
    """
    asked = next((explainer for explainer in explainers if explainer.is_baseline), None)
    if asked is not None:
        return list(explainers), asked
    known = sorted(filter(_is_baseline, registry.components(KIND)), key=lambda component: not component.builtin)
    if not known:
        raise FgvcError("No explainer that knows nothing of the model is installed to compare with: fgvc list-plugins.")
    baseline = make_explainer(known[0].reference, {}, registry)
    baseline = replace(baseline, name=known[0].name)
    return [*explainers, baseline], baseline


def explainer_settings(texts: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """Pick `explainer.option=value` out of the texts of `--set`; return the options, and the other texts.

    Raises:
        UsageError: a text has not the form `kind.option=value`.
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
    """Build an explainer.

    Args:
        name: of a registered explainer.
        settings: options as TOML values, by name.
        registry: finds it.

    Raises:
        UsageError: there is no such explainer or option, or a value does not fit.
        FgvcError: the component cannot be loaded, or is none.
    """
    component = registry.find(KIND, name)
    options: Any = build(component.options_type(), settings, KIND)
    explainer = component.make(options=options)
    if not isinstance(explainer, Explainer):
        raise FgvcError(
            f"{component.reference} {component.version} breaks its contract: {component.spec.target} makes a "
            f"{type(explainer).__name__}, not an Explainer. Its author can mend it."
        )
    return NamedExplainer(name, explainer, as_toml(options), _is_baseline(component))


def make_explainers(names: Sequence[str], settings: Mapping[str, Any], registry: Registry) -> list[NamedExplainer]:
    """Build several explainers to be compared; an option goes to each of them that has it.

    Args:
        names: of registered explainers; one that is named twice counts once.
        settings: options as TOML values, by name.
        registry: finds them.

    Raises:
        UsageError: there is no such explainer, none of them has an option, or a value does not fit.
        FgvcError: a component cannot be loaded, or is none.
    """
    asked = list(dict.fromkeys(names))
    known = {name: _option_names(registry.find(KIND, name)) for name in asked}
    everything = dict.fromkeys(option for options in known.values() for option in options)
    for option in settings:
        if option not in everything:
            listed = ", ".join(f"{name}: {', '.join(options) or 'none'}" for name, options in known.items())
            raise UsageError(
                f"explainer.{option}: no such option.{did_you_mean(option, everything)} Options of {listed}."
            )
    return [
        make_explainer(name, {option: settings[option] for option in settings if option in known[name]}, registry)
        for name in asked
    ]


def _option_names(component: Component) -> list[str]:
    return [field.name for field in fields(component.options_type())]


def _is_baseline(component: Component) -> bool:
    return isinstance(component.spec, ExplainerSpec) and component.spec.baseline
