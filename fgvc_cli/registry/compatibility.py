"""Which heads and backbones work together, according to their specs."""

from __future__ import annotations

from dataclasses import dataclass

from fgvc_cli.registry.lookup import Registry
from fgvc_cli.registry.records import Component
from fgvc_cli.specs import BackboneSpec, HeadSpec, Kind


@dataclass(frozen=True)
class Partners:
    """What a component works with.

    Attributes:
        kind: the kind of the partners.
        names: those that fit.
        unfit: those that do not.
        open: those that tell only once they are built, families of names included.
    """

    kind: Kind
    names: tuple[str, ...]
    unfit: tuple[str, ...]
    open: tuple[str, ...]


def fits(head: HeadSpec, backbone: BackboneSpec) -> bool | None:
    """Tell whether a backbone offers the maps that a head needs; None if that is not known before it is built."""
    if head.maps == 0:
        return True
    if not backbone.strides:
        return None
    return head.accepts(backbone.strides)


def partners(registry: Registry, component: Component) -> Partners | None:
    """Return the backbones for a head, the heads for a backbone, and None for the other kinds, which go with all."""
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
    # A family's members differ; only a head that needs no map is sure of them all.
    sure = True if isinstance(spec, HeadSpec) and spec.maps == 0 else None
    verdicts += [(family.pattern, sure) for family in registry.families(other)]

    def those(wanted: bool | None) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for name, verdict in verdicts if verdict is wanted))

    return Partners(other, those(True), those(False), those(None))
