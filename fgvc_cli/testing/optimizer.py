"""Contract checks of optimizers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from torch import Tensor

from fgvc_cli.config.layering import base_component
from fgvc_cli.contracts import Closure, ComposedOptimizer, Evaluation, Optimizer, ParameterGroup
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.options import build
from fgvc_cli.registry import Component
from fgvc_cli.runs.model_file import pack, unpack
from fgvc_cli.specs import OptimizerSpec
from fgvc_cli.testing.check import Checks, ContractError, NotApplicable, expect, some
from fgvc_cli.testing.component import ComponentUnderTest
from fgvc_cli.testing.device import ABOUT_SYNC, SyncDetector
from fgvc_cli.testing.tiny import Quadratic, QuadraticClosure, isolated

STEPS = 20
"""Steps after which the loss must have decreased."""

RESUMED_STEPS = 3
"""Steps before and after an interruption."""

RATES_FIX = "keep the rates of the options, and multiply them by the factor"
FOUND_INF_FIX = "check closure.found_inf before changing parameters or state"


@dataclass(frozen=True)
class OptimizerUnderTest:
    """An optimizer, checked with its default base if it has one."""

    subject: ComponentUnderTest

    @property
    def spec(self) -> OptimizerSpec:
        """Its spec."""
        return cast(OptimizerSpec, self.subject.component.spec)

    @property
    def base(self) -> Component | None:
        """Its default base optimizer, if it has one."""
        return base_component(self.subject.component, [], self.subject.registry)

    def make(self, groups: Sequence[ParameterGroup], base: Component | None = None, **rates: float) -> Optimizer:
        """Build it; `rates` are `lr` and `head_lr`, which are options of the base if it has one."""
        base = base or self.base
        arguments: dict[str, Any] = {"groups": groups}
        if base is None:
            arguments["options"] = self.subject.options(**rates)
        else:
            arguments["options"] = self.subject.options()
            arguments["base"] = base.make(groups=groups, options=build(base.options_type(), rates, "optimizer.base"))
        optimizer: Optimizer = self.subject.make(Optimizer, **arguments)
        return optimizer

    def rates(self) -> dict[str, float]:
        """Return the learning rates in its options (or those of its base)."""
        component = self.base
        options = self.subject.options() if component is None else build(component.options_type(), {}, "base")
        return {"backbone": options.lr, "head": options.lr if options.head_lr is None else options.head_lr}

    def on_quadratic(self, **rates: float) -> tuple[Quadratic, Optimizer]:
        """Return a problem and the optimizer of its parameters."""
        problem = Quadratic()
        return problem, self.make(problem.groups(), None, **rates)


CHECKS: Checks[OptimizerUnderTest] = Checks(OptimizerUnderTest, isolated)


@CHECKS("has learning rates for backbone and head", "Recipes and schedules set the options lr and head_lr.")
def rates(optimizer: OptimizerUnderTest) -> None:
    """rates() returns the learning rates of the options."""
    if optimizer.base is None:
        names = {field.name for field in fields(optimizer.subject.options_type())}
        missing = [name for name in ("lr", "head_lr") if name not in names]
        expect(not missing, "the options lr and head_lr", f"{some(missing)} is missing", "add them")
    for given, expected in (
        ({}, optimizer.rates()),
        ({"lr": 0.01, "head_lr": 0.03}, {"backbone": 0.01, "head": 0.03}),
    ):
        found = optimizer.on_quadratic(**given)[1].rates()
        fix = "use lr for the backbone and head_lr for the head (None: the same)"
        expect(found == expected, f"rates() of {expected}, as in the options", f"it returned {found}", fix)


@CHECKS("set_rate() scales the learning rates", "Warm-up and decay multiply the options by a factor from 0 to 1.")
def schedule(optimizer: OptimizerUnderTest) -> None:
    """set_rate(f) sets each rate to f times its option, whatever it was before; at 0 nothing changes."""
    problem, instance = optimizer.on_quadratic(lr=0.01, head_lr=0.03)
    for factor in (0.5, 0.25, 1.0, 0.0):
        instance.set_rate(factor)
        expected = {"backbone": factor * 0.01, "head": factor * 0.03}
        close = all(abs(instance.rates()[part] - rate) < 1e-9 for part, rate in expected.items())
        expect(
            close, f"rates of {expected} after set_rate({factor})", f"rates() returned {instance.rates()}", RATES_FIX
        )
    before = problem.values()
    instance.step(QuadraticClosure(problem))
    moved = _moved(before, problem.values())
    fix = "scale every change by the rate"
    expect(not moved, "unchanged parameters at a rate of 0", f"{some(moved)} changed", fix)


@CHECKS("each part uses its own learning rate", "A pretrained backbone needs a smaller rate than a new head.")
def rate_per_part(optimizer: OptimizerUnderTest) -> None:
    """With head_lr = 0 only the backbone changes, with lr = 0 only the head."""
    for still, moving, rates_set in (
        ("head", "backbone", {"lr": 0.01, "head_lr": 0.0}),
        ("backbone", "head", {"lr": 0.0, "head_lr": 0.01}),
    ):
        try:
            problem, instance = optimizer.on_quadratic(**rates_set)
        except UsageError as error:
            raise NotApplicable(f"its options refuse a rate of 0: {error}") from None
        before = problem.values()
        for _ in range(2):
            instance.step(QuadraticClosure(problem))
        moved = _moved(before, problem.values())
        wrong = [name for name in moved if name.startswith(still)]
        fix = "use the rate of the parameter's group"
        expect(not wrong, f"an unchanged {still} at a rate of 0", f"{some(wrong)} changed", fix)
        right = any(name.startswith(moving) for name in moved)
        expect(right, f"the {moving} to change", "nothing in it did", fix)


@CHECKS("each layer uses its own learning rate", "train.layer_decay gives shallow layers a smaller one.")
def rate_per_layer(optimizer: OptimizerUnderTest) -> None:
    """A group with `lr_scale=0` stays unchanged, also after `set_rate`; not applicable without `scales_rates`."""
    problem = Quadratic()
    backbone, head = problem.groups()
    names = list(backbone.parameters)
    layers = [
        ParameterGroup("backbone", {name: backbone.parameters[name] for name in part}, scale)
        for part, scale in ((names[:1], 0.0), (names[1:], 1.0))
    ]
    instance = optimizer.make([*layers, head])
    if not instance.scales_rates:
        raise NotApplicable("it does not support train.layer_decay (scales_rates=False)")
    instance.set_rate(0.5)
    before = problem.values()
    instance.step(QuadraticClosure(problem))
    moved = _moved(before, problem.values())
    still = f"backbone.{names[0]}"
    expect(still not in moved, "an unchanged layer at a scale of 0", f"{still} changed", "multiply by group.lr_scale")
    expect(f"backbone.{names[1]}" in moved, "the other layers to change", "they did not", "update every group")


@CHECKS("step updates exactly the parameters with gradients", "Frozen and unused parameters must not change.")
def updated_parameters(optimizer: OptimizerUnderTest) -> None:
    """Every parameter with a gradient changes; one without, and a frozen one, stay equal bit for bit."""
    problem, instance = optimizer.on_quadratic()
    before = problem.values()
    instance.step(QuadraticClosure(problem, without=("head.bias",)))
    moved = _moved(before, problem.values())
    stuck = [name for name in before if name not in (*moved, "head.bias", "backbone.frozen")]
    expect(not stuck, "every parameter with a gradient to change", f"{some(stuck)} did not", "update every group")
    wrong = [name for name in ("head.bias", "backbone.frozen") if name in moved]
    expect(not wrong, "unchanged parameters without a gradient", f"{some(wrong)} changed", "skip where grad is None")


@CHECKS("loss decreases", f"{STEPS} steps on a quadratic problem must decrease the loss.")
def loss_decreases(optimizer: OptimizerUnderTest) -> None:
    """The loss after some steps is lower than before."""
    problem, instance = optimizer.on_quadratic()
    first, last = _run(problem, instance)
    found = f"it went from {first:.4g} to {last:.4g}"
    expect(last < first, f"a lower loss after {STEPS} steps", found, "look for a wrong sign")


@CHECKS("skips steps with non-finite gradients", "One batch that overflows must not ruin a run.")
def found_inf(optimizer: OptimizerUnderTest) -> None:
    """If closure.found_inf is 1.0, nothing changes, and the next step is finite and changes something."""
    problem, instance = optimizer.on_quadratic()
    instance.step(QuadraticClosure(problem))
    before = problem.values()
    instance.step(QuadraticClosure(problem, found_inf=torch.ones(())))
    moved = _moved(before, problem.values())
    expect(not moved, "unchanged parameters if closure.found_inf is 1.0", f"{some(moved)} changed", FOUND_INF_FIX)
    instance.step(QuadraticClosure(problem))
    after = problem.values()
    wrong = [name for name, value in after.items() if not value.isfinite().all()]
    expect(not wrong, "finite parameters in the step after a skipped one", f"{some(wrong)}: not finite", FOUND_INF_FIX)
    expect(bool(_moved(before, after)), "the step after a skipped one to change something", "none does", FOUND_INF_FIX)


@CHECKS("number of evaluations matches the spec", "Benchmarks use it, and a base optimizer must have one.")
def passes(optimizer: OptimizerUnderTest) -> None:
    """A step makes spec.passes evaluations, calls closure(), and returns the first evaluation."""
    problem, instance = optimizer.on_quadratic()
    closure = QuadraticClosure(problem)
    returned = instance.step(closure)
    expect(
        len(closure.calls) == optimizer.spec.passes,
        f"{optimizer.spec.passes} evaluations per step, as in the spec's passes",
        f"there are {len(closure.calls)}",
        "correct passes in the OptimizerSpec",
    )
    fix = "use ascent() only for additional evaluations"
    expect("update" in closure.calls, "a call of closure() in a step", "there is none", fix)
    expect(
        returned is closure.evaluations[0],
        "the first evaluation to be returned",
        "a later one is" if returned in closure.evaluations else "another value is",
        "return the result of the first call of closure, which metrics and heads use",
    )


@CHECKS("moves_without_grad is accurate", 'Objectives with missing_grad="zero" depend on it.')
def moves_without_grad(optimizer: OptimizerUnderTest) -> None:
    """If moves_without_grad is true, a zero gradient changes a parameter that changed before."""
    problem, instance = optimizer.on_quadratic()
    flag = instance.moves_without_grad
    expect(isinstance(flag, bool), "moves_without_grad to be True or False", f"it is {flag!r}", "choose one")
    if not flag:
        raise NotApplicable("moves_without_grad is False")
    for _ in range(2):
        instance.step(QuadraticClosure(problem))
    before = problem.values()
    instance.step(QuadraticClosure(problem, zero_grad=("head.weight",)))
    expect(
        "head.weight" in _moved(before, problem.values()),
        "momentum or weight decay to change a parameter with a zero gradient",
        "it stays",
        "set moves_without_grad = False",
    )


@CHECKS("works with every single-pass base", "Users choose the base with optimizer.base.")
def bases(optimizer: OptimizerUnderTest) -> None:
    """With every built-in optimizer that evaluates once, the loss decreases."""
    if optimizer.base is None:
        raise NotApplicable("it has no base")
    for component in optimizer.subject.registry.components("optimizer"):
        spec = cast(OptimizerSpec, component.spec)
        if component.builtin and not spec.base and spec.passes == 1:
            problem = Quadratic()
            first, last = _run(problem, optimizer.make(problem.groups(), base=component))
            expect(last < first, f"a lower loss with base {component.name}", "it rose", "leave the step to the base")


@CHECKS("refuses a base that evaluates twice", "Its second evaluation would be at other weights than those updated.")
def multi_pass_base(optimizer: OptimizerUnderTest) -> None:
    """A base that evaluates more than once per step raises an FgvcError."""
    if optimizer.base is None:
        raise NotApplicable("it has no base")
    problem = Quadratic()
    instance = optimizer.make(problem.groups())
    composed = isinstance(instance, ComposedOptimizer)
    expect(composed, "a ComposedOptimizer", f"a {type(instance).__name__}", "derive it from that")

    def greedy(closure: Closure) -> Evaluation:
        closure()
        return closure()

    cast(Any, instance).base.step = greedy
    try:
        instance.step(QuadraticClosure(problem))
    except FgvcError:
        return
    raise ContractError("an FgvcError for a base that evaluates twice", "none is raised", "pass a SingleEvaluation")


@CHECKS("step does not synchronize with the device", ABOUT_SYNC, advisory=True)
def no_sync(optimizer: OptimizerUnderTest) -> None:
    """No operation of a step reads a value off the device."""
    problem, instance = optimizer.on_quadratic()
    instance.step(QuadraticClosure(problem))
    closure = QuadraticClosure(problem)
    closure()  # before the detector is active, which would find operations of the closure itself
    with SyncDetector() as detector:
        instance.step(_Evaluated(closure.evaluations[0], closure.found_inf))
    detector.expect_none()


@CHECKS(
    "state can be serialized", "Nothing is pickled: a state is nested dicts and lists of tensors, numbers and text."
)
def serializable(optimizer: OptimizerUnderTest) -> None:
    """The state dict can be written as safetensors and JSON."""
    problem, instance = optimizer.on_quadratic()
    _steps(problem, instance, 0, 2)
    _saved(instance)


@CHECKS("resumes bit for bit", "A resumed run must be equal to one that was never interrupted.")
def resume(optimizer: OptimizerUnderTest) -> None:
    """Another instance that loads the state takes the same steps."""
    problem, instance = optimizer.on_quadratic()
    instance.set_rate(0.7)
    _steps(problem, instance, 0, RESUMED_STEPS)
    other_problem, other = optimizer.on_quadratic()
    other_problem.set(problem.values())
    other.load_state_dict(_saved(instance))
    for each in (instance, other):  # the schedule sets the rate before every step
        each.set_rate(0.5)
    _steps(problem, instance, RESUMED_STEPS, RESUMED_STEPS)
    _steps(other_problem, other, RESUMED_STEPS, RESUMED_STEPS)
    differing = _moved(problem.values(), other_problem.values())
    expect(
        not differing,
        "the same steps from an optimizer that loads the state",
        f"{some(differing)} differ",
        "put everything that a step depends on into state_dict, and draw random numbers with torch",
    )


class _Evaluated:
    """A closure that leaves the gradients unchanged."""

    def __init__(self, evaluation: Evaluation, found_inf: Tensor) -> None:
        self.evaluation, self.found_inf = evaluation, found_inf

    def __call__(self) -> Evaluation:
        return self.evaluation

    ascent = __call__


def _run(problem: Quadratic, optimizer: Optimizer) -> tuple[float, float]:
    """Return the losses before and after some steps."""
    first = problem.loss()
    for _ in range(STEPS):
        optimizer.step(QuadraticClosure(problem))
    return first, problem.loss()


def _steps(problem: Quadratic, optimizer: Optimizer, start: int, count: int) -> None:
    """Step with a seed per step, as a resumed run restores the generators."""
    for step in range(start, start + count):
        torch.manual_seed(step)
        optimizer.step(QuadraticClosure(problem))


def _saved(optimizer: Optimizer) -> dict[str, Any]:
    """Return the state dict as read back from a file."""
    tensors: dict[str, Tensor] = {}
    try:
        document = pack(optimizer.state_dict(), tensors, "optimizer")
    except TypeError as error:
        raise ContractError("a state of plain values", str(error), "convert other values to those") from error
    loaded: dict[str, Any] = unpack(
        json.loads(json.dumps(document)), {name: value.clone().contiguous() for name, value in tensors.items()}
    )
    return loaded


def _moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    return [name for name, value in after.items() if not torch.equal(value, before[name])]
