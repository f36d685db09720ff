"""The contract between heads and optimizers: five objectives, two passes, and the traps of evaluating twice."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.nn import functional as F

from fgvc_cli.contracts import (
    BackboneInfo,
    Features,
    Head,
    Loss,
    MapInfo,
    Objective,
    ParameterGroup,
    Reads,
    TorchOptimizer,
)
from fgvc_cli.data.staging import soft_targets
from fgvc_cli.devices import compile_in_place
from fgvc_cli.errors import FgvcError
from fgvc_cli.training.state import Progress, load_state_file, save_state
from fgvc_cli.training.update import Update, detached

INFO = BackboneInfo("toy", "convolutional", 8, (MapInfo(4, 2, (4, 4)),), 4, (0.5,) * 3, (0.5,) * 3)


class Trunk(nn.Module):
    """A backbone in small: one convolution, batch normalization and dropout."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.Dropout(0.5)

    def forward(self, images):
        return self.drop(self.norm(self.conv(images)))


class FiveFold(Head):
    """Five objectives; each looks at what the one before put out."""

    def __init__(self, backbone=INFO, classes=3, options=None, missing_grad="skip"):
        super().__init__(backbone, classes, options)
        self.experts = nn.ModuleDict({name: nn.Linear(4, classes) for name in "abc"})
        self.missing_grad, self.received = missing_grad, []

    def reads(self, part=None):
        return Reads(maps=(0,))

    def forward(self, features, part=None):
        pooled = features.maps[0].mean((2, 3))
        return {name: expert(pooled) for name, expert in self.experts.items() if part in (None, name)}

    def objectives(self, images, targets):
        scale = 1.0
        for part in ("a", "b", "c", None, "a"):
            output = yield Objective(
                images * scale,
                lambda out: self.loss(out, targets),
                part,
                missing_grad=self.missing_grad,
                name=str(part),
            )
            self.received.append(output)
            scale = 1 + next(iter(output.values())).abs().mean()  # the next objective depends on this one's output

    def loss(self, output, targets):
        total = sum(F.cross_entropy(scores, targets) for scores in output.values())
        return Loss(total, next(iter(output.values())), {"ce": total.detach()})


class Whole(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.backbone, self.head = Trunk(), head

    def forward(self, images, part=None):
        return self.head(Features({0: self.backbone(images)}, None), part)


class Plain(TorchOptimizer):
    def make(self, groups, options):
        return torch.optim.SGD(groups, momentum=0.9, weight_decay=0.01)


class TwoPass(Plain):
    """Sharpness-aware in small: climb along the gradient, come back, descend with the gradient found there."""

    def step(self, closure):
        first = closure.ascent()
        parameters = [p for g in self.optimizer.param_groups for p in g["params"] if p.grad is not None]
        before = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for p in parameters:
                p += 0.1 * p.grad
        self.second = closure()
        with torch.no_grad():
            for p, kept in zip(parameters, before, strict=True):
                p.copy_(kept)
        self.update(closure.found_inf)
        return first


def make(optimizer=Plain, missing_grad="skip", clip_norm=0.0, **kwargs):
    torch.manual_seed(0)
    model = Whole(FiveFold(missing_grad=missing_grad))
    groups = [ParameterGroup(p, dict(getattr(model, p).named_parameters())) for p in ("backbone", "head")]
    steps = optimizer(groups, SimpleNamespace(lr=0.1, head_lr=0.2))
    return model, Update(model, model.head, steps, nullcontext, clip_norm, **kwargs)


def batch(n=6, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, 8, 8, generator=generator), torch.arange(n) % 3


def test_five_objectives_give_five_steps_and_hear_their_detached_outputs():
    model, update = make()
    done = update([batch()])
    assert len(done) == 5
    assert len(model.head.received) == 5
    assert [step.name for step in done] == ["a", "b", "c", "None", "a"]
    for step, heard in zip(done, model.head.received, strict=True):
        assert step.found_inf.item() == 0
        assert not any(scores.requires_grad for scores in heard.values())
        assert torch.equal(next(iter(heard.values())), step.losses[0].scores)
    assert set(model.head.received[1]) == {"b"} and set(model.head.received[3]) == {"a", "b", "c"}


def test_two_passes_with_five_objectives_are_ten_evaluations_and_return_the_first():
    model, update = make(TwoPass)
    calls = []
    model.register_forward_hook(lambda *a: calls.append(1))
    done = update([batch()])
    assert len(calls) == 10
    second = update.optimizer.second
    assert not torch.equal(done[-1].losses[0].value, second.losses[0].value)


def test_a_second_pass_draws_the_same_dropout_and_leaves_statistics_alone():
    model, update = make(TwoPass)
    masks, tracked = [], []
    model.backbone.drop.register_forward_hook(lambda _m, _i, out: masks.append(out == 0))
    update([batch()])
    for first, second in zip(masks[::2], masks[1::2], strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(masks[0], masks[2])
    tracked = model.backbone.norm.num_batches_tracked.item()
    assert tracked == 5  # one a step, not one a pass


class Skipping(Plain):
    moves_without_grad = False


def only(head, part, missing_grad="zero"):
    """Leave the head one objective, of a part."""

    def objectives(images, targets):
        yield Objective(images, lambda out: head.loss(out, targets), part, missing_grad=missing_grad)

    head.objectives = objectives


@pytest.mark.parametrize(
    ("optimizer", "missing_grad", "reached", "moves"),
    [
        (Plain, "skip", True, False),
        (Plain, "zero", True, True),
        (Plain, "zero", False, False),  # one that never had a gradient has no momentum
        (Skipping, "zero", True, False),
    ],
)
def test_idle_parameters_skip_or_coast(optimizer, missing_grad, reached, moves):
    model, update = make(optimizer, missing_grad=missing_grad)
    if reached:
        update([batch()])
    only(model.head, "a", missing_grad)
    weight = model.head.experts["b"].weight
    before = weight.detach().clone()
    update([batch(seed=2)])
    assert torch.equal(weight, before) != moves


@pytest.mark.parametrize("lit", [1.0, float("nan")], ids=["finite", "not finite"])
def test_what_coasts_has_zeros_that_lie_like_the_weights(lit):
    """Fused kernels walk through both as they lie in memory; and clipping by a norm of nan leaves zeros zeros."""
    model, update = make(missing_grad="zero", clip_norm=1.0)
    weight = model.head.experts["b"].weight
    weight.data = weight.data.t().contiguous().t()  # dense, the other way around
    update([batch()])
    only(model.head, "a")
    images, targets = batch(seed=2)
    (done,) = update([(images * lit, targets)])
    assert done.found_inf.item() == (lit != lit)
    assert weight.grad.stride() == weight.stride() == (1, 3)
    assert weight.grad.eq(0).all() and not model.head.experts["a"].weight.grad.eq(0).all()


def test_what_coasts_is_known_again_after_a_resume(tmp_path):
    def step(model, update):
        only(model.head, "a")
        update([batch(seed=2)])
        return {name: p.detach().clone() for name, p in model.named_parameters()}

    model, update = make(missing_grad="zero")
    model.device = torch.device("cpu")
    update([batch()])
    save_state(tmp_path / "state.safetensors", model, update.optimizer, update, Progress())
    straight = step(model, update)
    other, resumed = make(missing_grad="zero")
    other.device = torch.device("cpu")
    load_state_file(tmp_path / "state.safetensors", other, resumed.optimizer, resumed)
    before = other.head.experts["b"].weight.detach().clone()
    gone_on = step(other, resumed)
    assert not torch.equal(gone_on["head.experts.b.weight"], before)
    for name, parameter in gone_on.items():
        assert torch.equal(parameter, straight[name]), name


@pytest.mark.parametrize("optimizer", [Plain, TwoPass])
def test_accumulated_micro_batches_equal_the_whole_batch(optimizer):
    whole_images, whole_targets = batch(9)
    states = []
    for cuts in ([9], [4, 4, 1]):
        model, update = make(optimizer)
        model.backbone.drop.p = 0.0
        model.backbone.norm.eval()  # its statistics are of the micro-batch, which is not what is tested here
        only(model.head, None, "skip")
        parts = list(zip(whole_images.split(cuts), whole_targets.split(cuts), strict=True))
        for _ in range(3):
            update(parts)
        states.append([p.detach().clone() for p in model.parameters()])
    for a, b in zip(*states, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_clipping_bounds_the_gradient_that_is_descended():
    model, update = make(clip_norm=0.01)
    update([batch()])
    norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
    assert norm <= 0.0101


@pytest.mark.parametrize("optimizer", [Plain, TwoPass])
def test_what_is_not_finite_moves_no_weight(optimizer):
    model, update = make(optimizer, clip_norm=1.0)
    update([batch()])
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    images, targets = batch()
    images[0, 0, 0, 0] = float("nan")
    done = update([(images, targets)])
    assert all(step.found_inf.item() == 1 for step in done)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]), name


@pytest.mark.parametrize("optimizer", [Plain, TwoPass])
def test_a_loss_that_is_not_finite_moves_nothing_though_its_gradient_is(optimizer):
    model, update = make(optimizer)
    update([batch()])
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    head = model.head

    def loss(output, targets):
        found = FiveFold.loss(head, output, targets)
        return Loss(found.value + float("inf"), found.scores)

    head.loss = loss
    done = update([batch()])
    assert all(step.found_inf.item() == 1 for step in done)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_heads_with_differing_numbers_of_objectives_are_refused():
    model, update = make()
    head = model.head

    def objectives(images, targets):
        for _ in range(len(images)):
            yield Objective(images, lambda out: head.loss(out, targets))

    head.objectives = objectives
    images, targets = batch(5)
    with pytest.raises(FgvcError, match="objectives.*different numbers"):
        update([(images[:3], targets[:3]), (images[3:], targets[3:])])


def test_a_compiled_model_runs_every_part_compiled_and_keeps_its_names():
    torch._dynamo.reset()
    counters.clear()
    (model, update), (eager, plain) = make(TwoPass), make(TwoPass)
    compile_in_place(model, backend="eager")  # the graphs are captured, and run without waiting for a compiler
    for images in (6, 5):
        for one in (update, plain):
            torch.manual_seed(3)
            one([batch(images)])
    model.eval()
    with torch.inference_mode():
        for images in (6, 5):
            model(batch(images)[0])
    assert counters["frames"]["total"] == counters["frames"]["ok"] > 8
    assert not counters["graph_break"] and not counters["unimplemented"]
    assert list(model.state_dict()) == list(eager.state_dict())
    for ours, theirs in zip(model.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_soft_targets_are_label_smoothing():
    labels, scores = torch.tensor([0, 2]), torch.randn(2, 3)
    assert soft_targets(labels, 3, 0.0) is labels
    ours = F.cross_entropy(scores, soft_targets(labels, 3, 0.1))
    torch.testing.assert_close(ours, F.cross_entropy(scores, labels, label_smoothing=0.1))


def test_detached_keeps_the_form():
    from typing import NamedTuple

    class Pair(NamedTuple):
        a: torch.Tensor
        b: tuple

    x = torch.ones(1, requires_grad=True) * 2
    out = detached(Pair(x, (x, [x], {"k": x}, 3)))
    assert isinstance(out, Pair) and not out.a.requires_grad and not out.b[2]["k"].requires_grad and out.b[3] == 3
