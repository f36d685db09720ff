"""Contract checks of optimizers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import torch
from torch import Tensor

from fgvc_cli.config.layering import base_component
from fgvc_cli.contracts import Closure, ComposedOptimizer, Evaluation, Optimizer, ParameterGroup
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.options import build
from fgvc_cli.registry import Component
from fgvc_cli.runs.tensors import pack, unpack
from fgvc_cli.specs import OptimizerSpec
from fgvc_cli.testing.check import Check, Checks, ContractBroken, NotApplicable, expect, some
from fgvc_cli.testing.subject import Subject
from fgvc_cli.testing.tiny import Bowl, BowlClosure, isolated
from fgvc_cli.testing.waiting import WaitWatch


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


STATE: Checks[OptimizerSubject] = Checks()

BEFORE, AFTER = 3, 3
"""Steps before and after the interruption."""


@STATE("its state can be saved", "Nothing is pickled: a state is nested dicts and lists of tensors, numbers and text.")
def plain(optimizer: OptimizerSubject) -> None:
    """What state_dict returns has a form in safetensors and JSON."""
    bowl, made = optimizer.on_bowl()
    _steps(bowl, made, 0, 2)
    _saved(made)


@STATE("it goes on where it stopped", "A resumed run must end as if it had never been interrupted, bit for bit.")
def resumes(optimizer: OptimizerSubject) -> None:
    """Another one that loads its state takes the same steps."""
    bowl, made = optimizer.on_bowl()
    made.set_rate(0.7)
    _steps(bowl, made, 0, BEFORE)
    other_bowl, other = optimizer.on_bowl()
    other_bowl.set(bowl.values())
    other.load_state_dict(_saved(made))
    for each in (made, other):  # as the schedule does before every step
        each.set_rate(0.5)
    _steps(bowl, made, BEFORE, AFTER)
    _steps(other_bowl, other, BEFORE, AFTER)
    expected, found = bowl.values(), other_bowl.values()
    differing = [name for name in expected if not torch.equal(expected[name], found[name])]
    expect(
        not differing,
        "the same steps from an optimizer that loads the state",
        f"{some(differing)} end elsewhere",
        "put into state_dict all that a step depends on, and draw random choices with torch",
    )


def _steps(bowl: Bowl, optimizer: Optimizer, start: int, count: int) -> None:
    """Step, each time from a seed of its own, as a resumed run's generators are put back."""
    for step in range(start, start + count):
        torch.manual_seed(step)
        optimizer.step(BowlClosure(bowl))


def _saved(optimizer: Optimizer) -> dict[str, Any]:
    """Return the state as a file would give it back."""
    try:
        document, tensors = _packed(optimizer.state_dict())
    except TypeError as error:
        raise ContractBroken("a state of plain values", str(error), "turn the rest into those") from error
    loaded: dict[str, Any] = unpack(
        json.loads(json.dumps(document)), {name: value.clone().contiguous() for name, value in tensors.items()}
    )
    return loaded


def _packed(state: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    tensors: dict[str, torch.Tensor] = {}
    return pack(state, tensors, "optimizer"), tensors


STEPPING: Checks[OptimizerSubject] = Checks()

STEPS = 20
"""Steps after which it must lie lower in a bowl."""


def checks(subject: Subject) -> Iterator[Check]:
    """Return the checks of an optimizer."""
    pass
    optimizer = OptimizerSubject(subject)
    found = [*STEPPING.of(optimizer), *STATE.of(optimizer)]
    for check in found:
        yield Check(check.title, check.about, isolated(check.run), check.advisory)


@STEPPING("it has a rate for each part", "Options have at least lr and head_lr; recipes and schedules set both.")
def rates(optimizer: OptimizerSubject) -> None:
    """rates() gives the options' rates, and head_lr is the head's."""
    if optimizer.base is None:
        names = {field.name for field in fields(optimizer.subject.options_type())}
        missing = [name for name in ("lr", "head_lr") if name not in names]
        expect(not missing, "the options lr and head_lr", f"{some(missing)} is missing", "add them")
    _, made = optimizer.on_bowl()
    expect(
        made.rates() == optimizer.rates(),
        f"rates() to give {optimizer.rates()}, as its options say",
        f"it gives {made.rates()}",
        "lr is the backbone's rate, head_lr the head's (None: the same)",
    )
    _, made = optimizer.on_bowl(lr=0.01, head_lr=0.03)
    expected = {"backbone": 0.01, "head": 0.03}
    expect(
        made.rates() == expected, f"rates() of {expected} when so set", f"it gives {made.rates()}", "use both options"
    )


@STEPPING("the schedule sets its rates", "Warm-up and decay are factors of the options' rates, from 0 to 1.")
def schedule(optimizer: OptimizerSubject) -> None:
    """set_rate(f) makes each rate f times its option, whatever it was before; at 0 nothing moves."""
    bowl, made = optimizer.on_bowl(lr=0.01, head_lr=0.03)
    for factor in (0.5, 0.25, 1.0, 0.0):
        made.set_rate(factor)
        expected = {"backbone": factor * 0.01, "head": factor * 0.03}
        close = all(abs(made.rates()[part] - rate) < 1e-9 for part, rate in expected.items())
        expect(close, f"rates of {expected} after set_rate({factor})", f"rates() gives {made.rates()}", _OPTION)
    before = bowl.values()
    made.step(BowlClosure(bowl))
    moved = _moved(before, bowl.values())
    expect(not moved, "nothing to move at a rate of 0", f"{some(moved)} moved", "let every change go by the rate")


@STEPPING("each part moves by its own rate", "A pretrained backbone wants a smaller rate than a new head.")
def own_rates(optimizer: OptimizerSubject) -> None:
    """With head_lr = 0 the backbone moves and the head stays; with lr = 0 the other way round."""
    for still, moving, rates_set in (
        ("head", "backbone", {"lr": 0.01, "head_lr": 0.0}),
        ("backbone", "head", {"lr": 0.0, "head_lr": 0.01}),
    ):
        try:
            bowl, made = optimizer.on_bowl(**rates_set)
        except UsageError as error:
            raise NotApplicable(f"its options refuse a rate of 0: {error}") from None
        before = bowl.values()
        for _ in range(2):
            made.step(BowlClosure(bowl))
        moved = _moved(before, bowl.values())
        wrong = [name for name in moved if name.startswith(still)]
        expect(not wrong, f"the {still} to stay at a rate of 0", f"{some(wrong)} moved", "use the group's own rate")
        right = [name for name in moved if name.startswith(moving)]
        expect(bool(right), f"the {moving} to move", "nothing of it did", "use the group's own rate")


@STEPPING("a step moves what has a gradient", "Everything that a loss reaches is trained, and nothing else.")
def moves(optimizer: OptimizerSubject) -> None:
    """Every parameter with a gradient moves; one without, and a frozen one, stay bit for bit."""
    bowl, made = optimizer.on_bowl()
    before = bowl.values()
    made.step(BowlClosure(bowl, without=("head.bias",)))
    moved = _moved(before, bowl.values())
    stuck = [name for name in before if name not in (*moved, "head.bias", "backbone.frozen")]
    expect(not stuck, "every parameter with a gradient to move", f"{some(stuck)} stayed", "update every group")
    strayed = [name for name in ("head.bias", "backbone.frozen") if name in moved]
    expect(not strayed, "a parameter without a gradient to stay", f"{some(strayed)} moved", "skip where grad is None")


@STEPPING("steps lead downhill", f"In a round bowl, {STEPS} steps of any optimizer end lower than they began.")
def downhill(optimizer: OptimizerSubject) -> None:
    """The height falls."""
    bowl, made = optimizer.on_bowl()
    first = bowl.height()
    for _ in range(STEPS):
        made.step(BowlClosure(bowl))
    last = bowl.height()
    expect(
        last < first, f"a lower loss after {STEPS} steps", f"it went from {first:.4g} to {last:.4g}", "look for a sign"
    )


@STEPPING("a bad gradient moves nothing", "One batch that overflows must not ruin a run: closure.found_inf says which.")
def found_inf(optimizer: OptimizerSubject) -> None:
    """Where closure.found_inf is 1.0 every parameter stays bit for bit, and the next good step is finite."""
    bowl, made = optimizer.on_bowl()
    made.step(BowlClosure(bowl))
    before = bowl.values()
    made.step(BowlClosure(bowl, found_inf=torch.ones(())))
    moved = _moved(before, bowl.values())
    expect(not moved, "nothing to move where closure.found_inf is 1.0", f"{some(moved)} moved", _BAD)
    made.step(BowlClosure(bowl))
    after = bowl.values()
    unfit = [name for name, value in after.items() if not value.isfinite().all()]
    expect(not unfit, "finite parameters in the step after a bad one", f"{some(unfit)} are not", _BAD)
    expect(bool(_moved(before, after)), "the step after a bad one to move something", "nothing moves any more", _BAD)


@STEPPING(
    "it evaluates as its spec says", "Benchmarks and estimates go by it, and only one of a single pass is a base."
)
def passes(optimizer: OptimizerSubject) -> None:
    """A step takes as many evaluations as spec.passes says, the one for the update last; it returns the first."""
    bowl, made = optimizer.on_bowl()
    closure = BowlClosure(bowl)
    returned = made.step(closure)
    expect(
        len(closure.calls) == optimizer.spec.passes,
        f"{optimizer.spec.passes} evaluations a step, as its spec's passes says",
        f"it takes {len(closure.calls)}",
        "correct passes in the OptimizerSpec",
    )
    expect("update" in closure.calls, "a call of closure() in a step", "it has none", "ascent() is only a look around")
    first = closure.evaluations[0]
    expect(
        returned is first,
        "the first evaluation to be returned",
        "another thing is" if returned not in closure.evaluations else "a later one is",
        "return what the first call of closure gave: metrics and heads go by it",
    )


@STEPPING("it says whether it coasts", "Where a head lets parameters coast, the host gives them zeros for gradients.")
def moves_without_grad(optimizer: OptimizerSubject) -> None:
    """If coasts is true, a zero gradient moves what moved before; all stays finite."""
    bowl, made = optimizer.on_bowl()
    expect(
        isinstance(made.moves_without_grad, bool),
        "moves_without_grad to be True or False",
        f"it is {made.moves_without_grad!r}",
        "choose one",
    )
    if not made.moves_without_grad:
        raise NotApplicable("it does not coast")
    for _ in range(2):
        made.step(BowlClosure(bowl))
    before = bowl.values()
    made.step(BowlClosure(bowl, missing_grad=("head.weight",)))
    expect(
        "head.weight" in _moved(before, bowl.values()),
        "momentum or decay to move a parameter whose gradient is zero, for coasts is True",
        "it stays",
        "set coasts = False",
    )


@STEPPING("it is built over any base of one pass", "A person chooses what takes the steps: --set optimizer.base=NAME.")
def bases(optimizer: OptimizerSubject) -> None:
    """Over every installed built-in optimizer of one pass: steps lead downhill, and the base's rates are its own."""
    if optimizer.base is None:
        raise NotApplicable("it takes its steps itself")
    registry = optimizer.subject.registry
    for component in registry.components("optimizer"):
        spec = component.spec
        if not component.builtin or spec.base or spec.passes > 1:  # type: ignore[attr-defined]
            continue
        bowl = Bowl()
        made = optimizer.make(bowl.groups(), base=component)
        first = bowl.height()
        for _ in range(STEPS):
            made.step(BowlClosure(bowl))
        expect(bowl.height() < first, f"a lower loss over {component.name}", "it rose", "leave the step to the base")


@STEPPING("a base that looks twice is refused", "It would evaluate at weights that are not the ones to be moved.")
def greedy_base(optimizer: OptimizerSubject) -> None:
    """A base that evaluates more than once a step gets an error in words."""
    if optimizer.base is None:
        raise NotApplicable("it takes its steps itself")
    bowl = Bowl()
    made = optimizer.make(bowl.groups())
    base = getattr(made, "base", None)
    expect(
        isinstance(made, ComposedOptimizer), "a ComposedOptimizer", f"a {type(made).__name__}", "derive it from that"
    )
    assert base is not None

    def greedy(closure: Closure) -> Evaluation:
        closure()
        return closure()

    base.step = greedy
    try:
        made.step(BowlClosure(bowl))
    except FgvcError:
        return
    raise ContractBroken("an FgvcError for a base that evaluates twice", "it goes on", "hand it a SingleEvaluation")


@STEPPING(
    "a step does not wait for the device",
    "Each value that is read off a GPU (.item(), a comparison in an if) lets it run dry.",
    advisory=True,
)
def no_wait(optimizer: OptimizerSubject) -> None:
    """No operation of a step reads a value off the device."""
    bowl, made = optimizer.on_bowl()
    made.step(BowlClosure(bowl))
    closure = BowlClosure(bowl)
    closure()  # beforehand, so that nothing of the closure's own is watched
    with WaitWatch() as watch:
        made.step(_Given(closure.evaluations[0], closure.found_inf))
    watch.expect_none()


class _Given:
    """A closure that leaves the gradients as they are."""

    def __init__(self, evaluation: Evaluation, found_inf: Tensor) -> None:
        self.evaluation, self.found_inf = evaluation, found_inf

    def __call__(self) -> Evaluation:
        return self.evaluation

    ascent = __call__


def _moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[str]:
    return [name for name, value in after.items() if not torch.equal(value, before[name])]


_OPTION = "keep the options' rates, and multiply them by the factor"
_BAD = "ask closure.found_inf before anything of parameters or state is changed"
