import torch

from fgvc_cli.contracts import Optimizer, SingleEvaluation
from fgvc_flawed.optimizers import Composed, Sound


class Doubling(Sound):
    """Doubles the rate that it has by default."""

    def __init__(self, groups, options):
        super().__init__(groups, options)
        if options.lr == options.head_lr or options.head_lr is None:
            self._rates["head"] *= 2
            self.set_rate(1.0)


class Everywhere(Sound):
    """What does something to all parameters after a step."""

    calls = 0

    def update(self, found_inf):
        super().update(found_inf)
        self.calls += 1
        with torch.no_grad():
            for group in self.optimizer.param_groups:
                for parameter in group["params"]:
                    self.touch(parameter, found_inf)


class Restless(Everywhere):
    def touch(self, parameter, found_inf):
        parameter.add_(0.001 * (1 - found_inf))


class Headless(Sound):
    def set_rate(self, factor):
        super().set_rate(factor)
        for group in self.optimizer.param_groups:
            group["lr"] *= group["part"] != "head"

    def rates(self):
        return dict(self._rates)

    def step(self, closure):
        self.set_rate(1.0)
        return super().step(closure)


class Poisoned(Sound):
    """Leaves the parameters alone where the gradient is bad, but not the state."""

    def update(self, found_inf):
        super().update(found_inf)
        for state in self.optimizer.state.values():
            state["exp_avg"].div_(1 - found_inf)


class GivingUp(Sound):
    given_up = None

    def update(self, found_inf):
        self.given_up = found_inf if self.given_up is None else torch.maximum(found_inf, self.given_up)
        super().update(self.given_up)


class LookingAround(Sound):
    def step(self, closure):
        evaluation = closure.ascent()
        self.update(closure.found_inf)
        return evaluation


class ReturningNothing(Sound):
    def step(self, closure):
        super().step(closure)


class Undecided(Sound):
    moves_without_grad = None


class Uphill(Composed):
    def step(self, closure):
        evaluation = SingleEvaluation(closure, self.base)
        base = self.base.step(evaluation)
        with torch.no_grad():
            for group in self.groups:
                for parameter in group.parameters.values():
                    parameter.mul_(1.1)
        return base


class HomeMade(Optimizer):
    """Steps by its base, without being what the host takes for that."""

    def __init__(self, groups, options, base):
        self.base = base

    def step(self, closure):
        return self.base.step(closure)

    def set_rate(self, factor):
        self.base.set_rate(factor)

    def rates(self):
        return self.base.rates()

    def state_dict(self):
        return self.base.state_dict()

    def load_state_dict(self, state):
        self.base.load_state_dict(state)


class Late(Everywhere):
    """Loses its numbers in the second step."""

    def touch(self, parameter, found_inf):
        if self.calls == 2:
            parameter.fill_(float("inf"))


class Lazy(Sound):
    """Does nothing where there is much to do."""

    def update(self, found_inf):
        if sum(p.numel() for group in self.optimizer.param_groups for p in group["params"]) < 1000:
            super().update(found_inf)
