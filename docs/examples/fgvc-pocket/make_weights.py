"""Train `pocket` on the dataset `demo`, and write the weights that the package ships."""

from __future__ import annotations

import tempfile
from pathlib import Path

import fgvc_pocket
from safetensors.torch import save_file

import fgvc_cli


def main() -> None:
    """Write `fgvc_pocket/pocket.safetensors`."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        fgvc_cli.train(
            backbone="pocket",
            head="linear",
            recipe="scratch",
            out=run,
            weights="none",
            image_size=64,
            epochs=8,
            lr=0.05,
            seed=1,
            settings={"dataset.size": 64, "dataset.train": 20, "dataset.test": 2},
        )
        state = fgvc_cli.load(run).backbone.state_dict()
        save_file(state, Path(fgvc_pocket.__file__).with_name("pocket.safetensors"))


if __name__ == "__main__":
    main()
