"""Small timm backbones, and a Hugging Face cache made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from fgvc_backbones import timm_backbone
from fgvc_backbones.options import TimmOptions
from fgvc_backbones.timm_backbone import TimmBackbone

Build = Callable[..., TimmBackbone]
Store = Callable[[str, dict[str, torch.Tensor]], Path]


@pytest.fixture(scope="session")
def build() -> Build:
    """Makes a backbone from a seed, in evaluation mode."""

    def make(name: str, image_size: int = 64, **options: object) -> TimmBackbone:
        torch.manual_seed(0)
        return TimmBackbone(name=name, image_size=image_size, options=TimmOptions(**options)).eval()

    return make


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty cache; the function stores a state dict in it as the hub's client would."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "torch"))

    def store(full_name: str, state: dict[str, torch.Tensor]) -> Path:
        folder = tmp_path / "hub" / f"models--timm--{full_name}"
        file = folder / "snapshots" / ("0" * 40) / "model.safetensors"
        file.parent.mkdir(parents=True)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text("0" * 40)
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, file)
        return file

    return store


@pytest.fixture
def nothing_seen() -> None:
    """No model was looked at before, as in a new process."""
    timm_backbone._examined.cache_clear()
    timm_backbone._reached.cache_clear()
