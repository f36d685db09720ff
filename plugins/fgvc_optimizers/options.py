"""Options of the built-in optimizers; free of torch, so that `fgvc show optimizer sgd` is quick."""

from __future__ import annotations

from dataclasses import dataclass

from fgvc_cli import option


@dataclass(frozen=True)
class SgdOptions:
    """Options of `sgd`."""

    lr: float = option(
        0.003,
        "learning rate of the backbone; the default suits pretrained weights and batch sizes of 16 to 32",
        minimum=0.0,
    )
    head_lr: float | None = option(None, "learning rate of the head; none: the same as lr", minimum=0.0)
    momentum: float = option(0.9, "momentum", minimum=0.0, maximum=0.9999)
    nesterov: bool = option(True, "use Nesterov momentum")
    weight_decay: float = option(0.0005, "L2 penalty, added to the gradient", minimum=0.0)
    decay_norms: bool = option(
        True, "apply weight decay to biases and norm parameters; the published recipes of this field do"
    )


@dataclass(frozen=True)
class AdamWOptions:
    """Options of `adamw`.

    Raises:
        ValueError: the number of `betas` is not 2.
    """

    lr: float = option(
        0.0001, "learning rate of the backbone; the default keeps pretrained transformers stable", minimum=0.0
    )
    head_lr: float | None = option(None, "learning rate of the head; none: the same as lr", minimum=0.0)
    betas: tuple[float, float] = option(
        (0.9, 0.999),
        "decay rates of the averages of the gradient and its square",
        minimum=0.0,
        maximum=0.999999,
    )
    eps: float = option(1e-8, "added to the denominator for numerical stability", minimum=0.0)
    weight_decay: float = option(0.05, "decoupled weight decay", minimum=0.0)
    decay_norms: bool = option(False, "apply weight decay to biases and norm parameters; usually off for transformers")

    def __post_init__(self) -> None:
        if len(self.betas) != 2:
            raise ValueError(f"betas={list(self.betas)}: give two numbers, such as [0.9, 0.999]")


@dataclass(frozen=True)
class MuonOptions:
    """Options of `muon`.

    Raises:
        ValueError: the number of `betas` is not 2.
    """

    lr: float = option(0.0001, "learning rate of the backbone; updates are as large as those of adamw", minimum=0.0)
    head_lr: float | None = option(None, "learning rate of the head; none: the same as lr", minimum=0.0)
    momentum: float = option(0.95, "momentum of hidden matrices", minimum=0.0, maximum=0.9999)
    nesterov: bool = option(True, "use Nesterov momentum for hidden matrices")
    ns_steps: int = option(5, "Newton-Schulz iterations per update", minimum=1, maximum=20)
    betas: tuple[float, float] = option(
        (0.9, 0.95), "of AdamW, for all other parameters", minimum=0.0, maximum=0.999999
    )
    eps: float = option(1e-8, "of AdamW, added to the denominator for numerical stability", minimum=0.0)
    weight_decay: float = option(0.05, "decoupled weight decay", minimum=0.0)
    decay_norms: bool = option(False, "apply weight decay to biases and norm parameters")

    def __post_init__(self) -> None:
        if len(self.betas) != 2:
            raise ValueError(f"betas={list(self.betas)}: give two numbers, such as [0.9, 0.95]")


@dataclass(frozen=True)
class SamOptions:
    """Options of `sam`; learning rates and weight decay are those of its base optimizer."""

    rho: float | None = option(
        None, "radius of the perturbation, in units of the weights; none: 0.05, or 2 if adaptive", minimum=0.0
    )
    adaptive: bool = option(False, "ASAM: scale the perturbation by the weights")

    @property
    def radius(self) -> float:
        """The effective radius."""
        return self.rho if self.rho is not None else 2.0 if self.adaptive else 0.05
