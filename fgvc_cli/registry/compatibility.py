"""Compatibility of heads and backbones, according to their specs."""

from __future__ import annotations

from dataclasses import dataclass

from fgvc_cli.registry.lookup import Registry
from fgvc_cli.registry.records import Component
from fgvc_cli.specs import BackboneSpec, HeadSpec, Kind


@dataclass(frozen=True)
class Partners:
    """Components that another component can be combined with.

    Attributes:
        kind: kind of the partners.
        names: those that are compatible.
        unfit: those that are not.
        open: those whose compatibility is known only once they are built, and families.
    """

    kind: Kind
    names: tuple[str, ...]
    unfit: tuple[str, ...]
    open: tuple[str, ...]


def fits(head: HeadSpec, backbone: BackboneSpec) -> bool | None:
    """Return whether a backbone has the maps that a head needs; None if unknown before it is built."""
    if head.maps == 0:
        return True
    return head.accepts(backbone.strides) if backbone.strides else None


def partners(registry: Registry, component: Component) -> Partners | None:
    """Return the backbones for a head or the heads for a backbone; None for other kinds, which fit everything."""
    spec = component.spec
    other: Kind
    verdicts: list[tuple[str, bool | None]] = []
    if isinstance(spec, HeadSpec):
        other = "backbone"
        for c in registry.components(other):
            assert isinstance(c.spec, BackboneSpec)
            verdicts.append((c.name, fits(spec, c.spec)))
    elif isinstance(spec, BackboneSpec):
        other = "head"
        for c in registry.components(other):
            assert isinstance(c.spec, HeadSpec)
            verdicts.append((c.name, fits(c.spec, spec)))
    else:
        return None
    # Members of a family differ, so only a head that needs no map fits them all.
    members = True if isinstance(spec, HeadSpec) and spec.maps == 0 else None
    verdicts += [(family.pattern, members) for family in registry.families(other)]

    def having(verdict: bool | None) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for name, found in verdicts if found is verdict))

    return Partners(other, having(True), having(False), having(None))
