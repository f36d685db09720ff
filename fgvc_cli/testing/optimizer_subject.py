"""An optimizer that is being checked, and what it is built over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from fgvc_cli.contracts import Optimizer, ParameterGroup
from fgvc_cli.options import build
from fgvc_cli.registry import Component
from fgvc_cli.specs import OptimizerSpec
from fgvc_cli.testing.subject import Subject
from fgvc_cli.testing.tiny.bowl import Bowl
from fgvc_cli.training.layering import base_component


@dataclass(frozen=True)
class OptimizerSubject:
    """An optimizer; one that is built over another is checked over its default base."""

    subject: Subject

    @property
    def spec(self) -> OptimizerSpec:
        """What its plugin says of it."""
        return cast(OptimizerSpec, self.subject.component.spec)

    @property
    def base(self) -> Component | None:
        """The optimizer that it is built over by default, if it is."""
        return base_component(self.subject.component, [], self.subject.registry)

    def make(self, groups: Sequence[ParameterGroup], base: Component | None = None, **rates: float) -> Optimizer:
        """Build it.

        Args:
            groups: parameters by part.
            base: what to build it over instead of the default.
            rates: `lr` and `head_lr`, which are the base's if it has one.
        """
        over = base or self.base
        if over is None:
            return self._made(groups=groups, options=self.subject.options(**rates))
        inner = over.make(groups=groups, options=build(over.options_type(), rates, "optimizer.base"))
        return self._made(groups=groups, options=self.subject.options(), base=inner)

    def rates(self) -> dict[str, float]:
        """Return the learning rates that its options (or its base's) ask for."""
        component = self.base
        options = self.subject.options() if component is None else build(component.options_type(), {}, "base")
        return {"backbone": options.lr, "head": options.lr if options.head_lr is None else options.head_lr}

    def on_bowl(self, **rates: float) -> tuple[Bowl, Optimizer]:
        """Return a problem and the optimizer of its parameters."""
        bowl = Bowl()
        return bowl, self.make(bowl.groups(), None, **rates)

    def _made(self, **arguments: Any) -> Optimizer:
        optimizer: Optimizer = self.subject.make(Optimizer, **arguments)
        return optimizer
