"""Choose a launcher and connect it to where it trains runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fgvc_cli.contracts import Launcher
from fgvc_cli.enforcement import make
from fgvc_cli.errors import UsageError
from fgvc_cli.options import build, parse_setting
from fgvc_cli.registry import Registry
from fgvc_cli.specs import Kind

KIND: Kind = "launcher"


@dataclass(frozen=True)
class LaunchRequest:
    """How the runs of a study are launched.

    Attributes:
        launcher: its name.
        texts: options of the launcher, as `launcher.option=value`.
        jobs: runs to train at a time; None: 1 on this machine, elsewhere as many as there is room for.
    """

    launcher: str = "local"
    texts: Sequence[str] = ()
    jobs: int | None = None

    def connect(self, device: str, registry: Registry) -> Launcher:
        """Return the launcher, connected to where it trains runs.

        Args:
            device: of the study: "auto", "cpu", "cuda".
            registry: where it is looked up.

        Raises:
            UsageError: it does not exist, or an option is wrong.
            FgvcError: it is not installed, cannot be reached, or does not have the resources.
        """
        component = registry.find(KIND, self.launcher)
        values: dict[str, Any] = {}
        for text in self.texts:
            kind, name, value = parse_setting(text)
            if kind != KIND:
                raise UsageError(f"`{text}`: only options of the launcher can be set here")
            values[name] = value
        options: Any = build(component.options_type(), values, KIND)
        launcher: Launcher = make(component, Launcher, options=options, jobs=self.jobs, device=device)
        return launcher


def split_settings(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """Separate settings as `kind.option=value` into those of runs and those of the launcher."""
    of_launcher = [text for text in texts if text.strip().startswith(f"{KIND}.")]
    return [text for text in texts if text not in of_launcher], of_launcher
