import torch

from fgvc_cli.contracts import ComposedOptimizer, SingleEvaluation, TorchOptimizer


class Sound(TorchOptimizer):
    moves_without_grad = False

    def make(self, groups, options):
        return torch.optim.AdamW(groups, lr=options.lr, fused=True)


class OneRate(Sound):
    def __init__(self, groups, options):
        super().__init__(groups, options)
        self._rates["head"] = self._rates["backbone"]
        self.set_rate(1.0)


class Compounding(Sound):
    def set_rate(self, factor):
        for group in self.optimizer.param_groups:
            group["lr"] *= factor


class Pretending(Sound):
    factor = 1.0

    def set_rate(self, factor):
        self.factor = factor
        for group in self.optimizer.param_groups:
            group["lr"] = factor * max(self._rates.values())

    def rates(self):
        return {part: self.factor * rate for part, rate in self._rates.items()}

    def step(self, closure):
        self.set_rate(self.factor)
        return super().step(closure)


class Flat(Sound):
    def set_rate(self, factor):
        for group in self.optimizer.param_groups:
            group["lr"] = factor * self._rates[group["part"]]


class Straying(Sound):
    def step(self, closure):
        evaluation = super().step(closure)
        with torch.no_grad():
            for group in self.optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.mul_(1 - 0.01 * group["lr"])
        return evaluation


class Half(Sound):
    def make(self, groups, options):
        return super().make([{**group, "params": group["params"][:1]} for group in groups], options)


class Climbing(Sound):
    def make(self, groups, options):
        return torch.optim.AdamW(groups, lr=options.lr, fused=True, maximize=True)


class Reckless(Sound):
    def update(self, bad):
        self.optimizer.step()


class Last(Sound):
    def step(self, closure):
        closure.ascent()
        return super().step(closure)


class Still(TorchOptimizer):
    def make(self, groups, options):
        return torch.optim.SGD(groups, lr=options.lr, fused=True)


class Composed(ComposedOptimizer):
    def step(self, closure):
        return self.base.step(SingleEvaluation(closure, self.base))


class Picky(Composed):
    def step(self, closure):
        assert self.base.optimizer.param_groups[0]["momentum"] > 0
        return super().step(closure)


class Open(Composed):
    def step(self, closure):
        return self.base.step(closure)


class Waiting(Sound):
    def update(self, bad):
        if not bad.item():
            self.optimizer.step()


class Strange(Sound):
    def state_dict(self):
        return {**super().state_dict(), "parts": {"backbone", "head"}}


class Forgetful(Sound):
    def load_state_dict(self, state):
        pass


class Weak(Sound):
    """Loses its numbers where a tensor is large."""

    def update(self, bad):
        super().update(bad)
        with torch.no_grad():
            for group in self.optimizer.param_groups:
                for parameter in group["params"]:
                    if parameter.numel() > 1000:
                        parameter.fill_(float("inf"))


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
