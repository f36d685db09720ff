"""A contact sheet of the twelve species, for the documentation."""

from __future__ import annotations

import numpy as np
from PIL import Image

from fgvc_datasets.demo.scene import draw_scene
from fgvc_datasets.demo.species import SPECIES

_COLUMNS, _GAP = 4, 4


def contact_sheet(seed: int = 12, side: int = 196) -> Image.Image:
    """One image of each species, `side` pixels wide, a group of siblings in each row."""
    rows = -(-len(SPECIES) // _COLUMNS)
    step = side + _GAP
    sheet = Image.new("RGB", (_COLUMNS * step - _GAP, rows * step - _GAP), "white")
    for index, traits in enumerate(SPECIES.values()):
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index])))
        image, _ = draw_scene(rng, traits, 2 * side)
        sheet.paste(image.reduce(2), (index % _COLUMNS * step, index // _COLUMNS * step))
    return sheet
