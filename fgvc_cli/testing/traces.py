"""What an explanation could leave behind, and a module that fails on purpose."""

from __future__ import annotations

from typing import Any

from torch import nn

from fgvc_cli.contracts import Classifier
from fgvc_cli.testing.check import expect, some
from fgvc_cli.testing.models import changed, copied_state

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Traces:
    """What an explanation could have changed of a classifier."""

    def __init__(self, classifier: Classifier) -> None:
        self.state = copied_state(classifier)
        self.facts = self._facts(classifier)

    def expect_none(self, classifier: Classifier) -> None:
        """Raise `ContractBroken` if anything of the classifier is not as it was."""
        moved = changed(self.state, copied_state(classifier))
        expect(
            not moved, "weights and buffers as they were", f"explain changes {some(moved)}", "work in evaluation mode"
        )
        for (what, mend), before in self.facts.items():
            after = self._facts(classifier)[(what, mend)]
            differing = [name for name, value in after.items() if before.get(name) != value]
            expect(not differing, f"{what} as they were", f"they are changed at {some(differing)}", mend)

    @staticmethod
    def _facts(classifier: Classifier) -> dict[tuple[str, str], dict[str, Any]]:
        modules, parameters = dict(classifier.named_modules()), dict(classifier.named_parameters())
        return {
            ("hooks", "remove them in a finally block"): {
                name or "the classifier": _hooks(m) for name, m in modules.items()
            },
            ("modes (train, eval)", "put back each module's own"): {name: m.training for name, m in modules.items()},
            ("requires_grad", "put back each parameter's own"): {n: p.requires_grad for n, p in parameters.items()},
            (".grad of parameters", "use torch.autograd.grad instead of backward()"): {
                name: parameter.grad is None for name, parameter in parameters.items()
            },
        }


class DeliberateError(RuntimeError):
    """Raised on purpose within the model."""


class Failing:
    """Makes a module's forward raise until it is restored."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        module.forward = self._fail

    def _fail(self, *_: object, **__: object) -> None:
        raise DeliberateError("a module of the model fails on purpose")

    def restore(self) -> None:
        """Let it run again."""
        del self.module.forward


def _hooks(module: nn.Module) -> int:
    return sum(len(getattr(module, kind)) for kind in HOOKS)
