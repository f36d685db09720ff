"""The machine that a benchmark runs on, told so that two reports can be compared."""

from __future__ import annotations

import platform
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from fgvc_cli._version import __version__
from fgvc_cli.cores import usable_cores
from fgvc_cli.devices import describe_device


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Return the device, what it is called, and the versions of what computes on it."""
    return {
        "device": device.type,
        "device_name": processor_name() if device.type == "cpu" else describe_device(device),
        "threads": torch.get_num_threads(),
        "cores": usable_cores(),
        **{name: metadata.version(name) for name in ("torch", "torchvision", "timm")},
        "python": platform.python_version(),
        "fgvc": __version__,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def processor_name() -> str:
    """Return what the processor is called, as far as the system tells."""
    listed = Path("/proc/cpuinfo")
    if listed.is_file():
        for line in listed.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()
