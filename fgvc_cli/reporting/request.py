"""What a person wants to see of each run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fgvc_cli.evaluation.computing import Computing
from fgvc_cli.evaluation.subject import SubjectRequest

DEFAULT_EXPLAINER = "gradcam"
IMAGES = 6
"""Mistakes, and as many occlusion panels, in the section of a run: with these it stays below 450 kB."""


@dataclass(frozen=True)
class ReportRequest:
    """What is reported of each run.

    Attributes:
        subject: the images that it is scored on.
        explainer: what draws the heat maps; None: `DEFAULT_EXPLAINER`, where it can explain the run.
        settings: options of the explainer.
        images: how many of the most confident mistakes, and how many occlusion panels.
        computing: where and how.
    """

    subject: SubjectRequest = field(default_factory=SubjectRequest)
    explainer: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    images: int = IMAGES
    computing: Computing = field(default_factory=Computing)
