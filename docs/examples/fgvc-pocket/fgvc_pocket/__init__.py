"""The backbone `pocket`, whose weights are in this package."""

from __future__ import annotations

from fgvc_cli import BackboneSpec, hookimpl


@hookimpl
def fgvc_backbones() -> list[BackboneSpec]:
    """Register the backbone."""
    return [
        BackboneSpec(
            "pocket",
            "fgvc_pocket.backbone:Pocket",
            "Four strided convolutions with weights from the dataset demo",
            strides=(2, 4, 8, 16),
            pretrained="pocket.demo",
            page="fgvc_pocket:pocket.md",
        )
    ]
