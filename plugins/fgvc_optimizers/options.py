"""Options of the built-in optimizers; free of torch, so that `fgvc show optimizer sgd` is quick."""

from __future__ import annotations

from dataclasses import dataclass

from fgvc_cli import option


@dataclass(frozen=True)
class SgdOptions:
    """Options of `sgd`."""

    lr: float = option(
        0.003,
        "learning rate of the backbone; the default suits pretrained weights and batches of 16 to 32",
        minimum=0.0,
    )
    head_lr: float | None = option(None, "learning rate of the head; none: the same as lr", minimum=0.0)
    momentum: float = option(0.9, "share of the last step's direction that is kept", minimum=0.0, maximum=0.9999)
    nesterov: bool = option(True, "look ahead along the momentum (no difference without momentum)")
    weight_decay: float = option(0.0005, "L2 penalty: the gradient gets this times the weights", minimum=0.0)
    decay_norms: bool = option(
        True, "whether biases and norm parameters decay too; true as in the published recipes of this field"
    )


@dataclass(frozen=True)
class AdamWOptions:
    """Options of `adamw`.

    Raises:
        ValueError: `betas` are not two numbers.
    """

    lr: float = option(
        0.0001, "learning rate of the backbone; the default keeps pretrained transformers stable", minimum=0.0
    )
    head_lr: float | None = option(None, "learning rate of the head; none: the same as lr", minimum=0.0)
    betas: tuple[float, float] = option(
        (0.9, 0.999), "decay of the running means of the gradient and of its square", minimum=0.0, maximum=0.999999
    )
    eps: float = option(1e-8, "added to the root of the mean square, against division by zero", minimum=0.0)
    weight_decay: float = option(0.05, "each step takes lr times this off the weights", minimum=0.0)
    decay_norms: bool = option(False, "whether biases and norm parameters decay too; false as usual for transformers")

    def __post_init__(self) -> None:
        if len(self.betas) != 2:
            raise ValueError(f"betas={list(self.betas)}: give two numbers, such as [0.9, 0.999].")


@dataclass(frozen=True)
class SamOptions:
    """Options of `sam`; learning rates and decay are its base's."""

    rho: float | None = option(
        None, "radius of the climb, in the weights' own units; none: 0.05, or 2 if adaptive", minimum=0.0
    )
    adaptive: bool = option(False, "ASAM: measure the radius relative to the weights")

    @property
    def radius(self) -> float:
        """The radius that holds."""
        return self.rho if self.rho is not None else 2.0 if self.adaptive else 0.05
