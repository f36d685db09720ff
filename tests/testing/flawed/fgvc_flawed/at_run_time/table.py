"""Components that misbehave when they are used: how to use them, and what the error must say."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Misbehavior:
    """A component that misbehaves at run time.

    Attributes:
        kind: kind of the component.
        made_by: its class or function in `fgvc_flawed.at_run_time`.
        use: what reveals it: "train", with settings, or another use that the test knows.
        says: part of the error.
        check: title of the check of `fgvc check-plugin` that finds it beforehand.
        spec: fields of its spec that differ from those of the sound one.
        name: name of the component.
    """

    kind: str
    made_by: str
    use: str
    says: str
    check: str
    spec: dict[str, Any] = field(default_factory=dict)
    name: str = ""

    @property
    def target(self) -> str:
        return f"fgvc_flawed.at_run_time.{self.kind}s:{self.made_by}"


PRETRAINED = {"pretrained": "sound.in1k"}
SPECS = {
    **{f"backbone {name}": PRETRAINED for name in ("Pretrained", "PretrainedText", "FetchesList", "FetchFails")},
    "optimizer OneOption": {"options": "fgvc_flawed.options:OneRate"},
    "head FitsNothing": {"fitted": True, "maps": 0},
    "head FitFails": {"fitted": True, "maps": 0},
}
"""Fields of specs that differ from those of the sound component."""


def _row(row: str) -> Misbehavior:
    """Read a row: kind, class, use, part of the error, and the check."""
    kind, made_by, use, says, check = (cell.strip() for cell in row.split(" |"))
    words = "".join(f"-{c.lower()}" if c.isupper() else c for c in made_by).strip("-").replace("_", "-")
    return Misbehavior(kind, made_by, use, says, check, SPECS.get(f"{kind} {made_by}", {}), f"run-{words}")


MISBEHAVIORS = [_row(row) for row in (Path(__file__).parent / "misbehaviors.txt").read_text().splitlines()]
