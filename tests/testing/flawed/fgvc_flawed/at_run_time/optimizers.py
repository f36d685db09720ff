import math

from fgvc_cli.contracts import Evaluation
from fgvc_flawed.optimizers import Sound


class StepsToNone(Sound):
    def step(self, closure):
        super().step(closure)


class StepsToLoss(Sound):
    def step(self, closure):
        return super().step(closure).losses[0].value


class NoClosure(Sound):
    def step(self, closure):
        return Evaluation([], [])


class FailsLater(Sound):
    steps = 0

    def step(self, closure):
        self.steps += 1
        return {}["momentum"] if self.steps > 2 else super().step(closure)


class RatesNone(Sound):
    def rates(self):
        pass


class RatesText(Sound):
    def rates(self):
        return {"backbone": "low", "head": "high"}


class RatesEndless(Sound):
    def rates(self):
        return {"backbone": math.inf, "head": 0.1}


class RateFails(Sound):
    def set_rate(self, factor):
        raise KeyError("lr")


class StateNone(Sound):
    def state_dict(self):
        pass


class StateList(Sound):
    def state_dict(self):
        return [super().state_dict()]


class StateSet(Sound):
    def state_dict(self):
        return {**super().state_dict(), "seen": {1, 2}}


class StateObject(Sound):
    def state_dict(self):
        return {"optimizer": self.optimizer}


class StateFails(Sound):
    def state_dict(self):
        raise NotImplementedError


class LoadFails(Sound):
    def load_state_dict(self, state):
        raise KeyError("momentum")


class OneOption(Sound):
    """Its options lack `head_lr`."""


class Unbuilt(Sound):
    def make(self, groups, options):
        raise TypeError("unexpected keyword argument 'part'")


def not_one(groups, options):
    return Sound(groups, options).optimizer
