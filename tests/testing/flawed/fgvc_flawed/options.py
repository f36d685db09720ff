from dataclasses import dataclass

from fgvc_cli import option


@dataclass(frozen=True)
class Rates:
    lr: float = option(0.01, "learning rate of the backbone", minimum=0)
    head_lr: float | None = option(None, "learning rate of the head", minimum=0)


@dataclass(frozen=True)
class OneRate:
    lr: float = option(0.01, "learning rate", minimum=0)


@dataclass(frozen=True)
class NoHelp:
    width: int = 3


@dataclass
class Thawed:
    width: int = option(3, "width")


@dataclass(frozen=True)
class Out:
    width: int = option(0, "width", minimum=1)
