"""Options of the Mammalia dataset."""

from __future__ import annotations

from dataclasses import dataclass

from fgvc_cli import option


@dataclass(frozen=True)
class MammaliaOptions:
    """How a test split is made where the class folders are not divided into train/ and test/."""

    test_images: int = option(10, "images of each class held out as test if there is no train/; 0: none", minimum=0)
    test_seed: int = option(42, "decides which images those are")
