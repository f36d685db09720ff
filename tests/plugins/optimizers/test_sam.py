"""`sam`: against closed forms and explicit passes, and what must hold around its two evaluations."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fgvc_cli.contracts import Evaluation, Head, Loss, Objective, ParameterGroup, Reads
from fgvc_cli.runs import model_file
from fgvc_cli.training.update import Update
from fgvc_optimizers.adamw import AdamW
from fgvc_optimizers.options import AdamWOptions, SamOptions, SgdOptions
from fgvc_optimizers.sam import Sam
from fgvc_optimizers.sgd import Sgd

STEPS = 20


class Net(nn.Module):
    """What a network has that could go wrong: convolution, batch normalization, dropout, classifier."""

    def __init__(self, norm=True, drop=0.3):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6) if norm else nn.Identity(), nn.Tanh(), nn.Dropout(drop)
        )
        self.classifier = nn.Linear(6, 4)
        self.calls = 0

    def forward(self, images, part=None):
        self.calls += 1
        return self.classifier(self.backbone(images).mean((2, 3)))


class Plain(Head):
    def __init__(self):
        nn.Module.__init__(self)

    def reads(self, part=None):
        return Reads()

    def forward(self, features, part=None):
        raise NotImplementedError

    def objectives(self, images, targets):
        yield Objective(images, lambda scores: Loss(F.cross_entropy(scores.to(images.dtype), targets), scores))


def groups_of(model):
    named = dict(model.named_parameters())
    head = {name: p for name, p in named.items() if "classifier" in name}
    return [ParameterGroup("backbone", {n: p for n, p in named.items() if n not in head}), ParameterGroup("head", head)]


def sgd(groups, **options):
    return Sgd(groups=groups, options=SgdOptions(**{"lr": 0.1, "head_lr": 0.2, "weight_decay": 0.01, **options}))


def sam(model, base=sgd, **options):
    groups = groups_of(model)
    return Sam(groups=groups, options=SamOptions(**options), base=base(groups))


def make(optimizer=sam, clip_norm=0.0, autocast=nullcontext, **net):
    torch.manual_seed(0)
    model = Net(**net)
    return model, Update(model, Plain(), optimizer(model), autocast, clip_norm)


def batch(step=0, images=6):
    generator = torch.Generator().manual_seed(step)
    return torch.randn(images, 3, 6, 6, generator=generator), torch.arange(images) % 4


def weights(model):
    return [p.detach().clone() for p in model.parameters()]


def largest_difference(one, other):
    return max((a - b).abs().max().item() for a, b in zip(one, other, strict=True))


class Quadratic:
    """f(w) = w A w / 2 over two parameters, so that the one norm over both matters; its gradient is A w."""

    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        root = torch.randn(5, 5, generator=generator, dtype=torch.float64)
        self.matrix = root @ root.T / 5 + 0.1 * torch.eye(5, dtype=torch.float64)
        start = torch.randn(5, generator=generator, dtype=torch.float64)
        self.parameters = {"a": nn.Parameter(start[:2].clone()), "classifier": nn.Parameter(start[2:].clone())}
        self.found_inf, self.evaluations = torch.zeros(()), 0

    def __call__(self):
        self.evaluations += 1
        whole = torch.cat([p.detach() for p in self.parameters.values()])
        gradient = self.matrix @ whole
        self.parameters["a"].grad, self.parameters["classifier"].grad = gradient[:2].clone(), gradient[2:].clone()
        return Evaluation([self.evaluations], [Loss(whole @ gradient / 2)])

    ascent = __call__


@pytest.mark.parametrize("adaptive", [False, True])
def test_on_a_quadratic_it_is_the_closed_form(adaptive):
    f = Quadratic()
    groups = [
        ParameterGroup("backbone", {"a": f.parameters["a"]}),
        ParameterGroup("head", {"classifier": f.parameters["classifier"]}),
    ]
    base = sgd(groups, nesterov=False, momentum=0.8)
    optimizer = Sam(groups=groups, options=SamOptions(rho=0.3, adaptive=adaptive), base=base)
    w = torch.cat([p.detach() for p in f.parameters.values()])
    rates, velocity = torch.tensor([0.1, 0.1, 0.2, 0.2, 0.2], dtype=torch.float64), torch.zeros(5, dtype=torch.float64)
    for step in range(STEPS):
        assert optimizer.step(f).outputs == [2 * step + 1]  # the first evaluation of this step
        g = f.matrix @ w
        e = 0.3 * w**2 * g / (w.abs() * g).norm() if adaptive else 0.3 * g / g.norm()
        velocity = 0.8 * velocity + f.matrix @ (w + e) + 0.01 * w
        w = w - rates * velocity
        assert (torch.cat([p.detach() for p in f.parameters.values()]) - w).abs().max() < 1e-6
    assert f.evaluations == 2 * STEPS


def explicit(model, gradient_at, step, *, rho, adaptive, momenta):
    """One update, tensor by tensor: a pass, the climb, a second pass, back, and SGD with Nesterov momentum."""
    parameters = list(model.parameters())
    state, buffers = torch.get_rng_state(), None
    gradients = gradient_at(model, step)
    buffers = copy.deepcopy(dict(model.named_buffers()))
    before = weights(model)
    scale = [w.abs() if adaptive else torch.ones_like(w) for w in before]
    norm = sum(((s * g) ** 2).sum() for s, g in zip(scale, gradients, strict=True)).sqrt()
    with torch.no_grad():
        for p, s, g in zip(parameters, scale, gradients, strict=True):
            p.add_(rho * s**2 * g / norm)
    torch.set_rng_state(state)
    uphill = gradient_at(model, step)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
        for (name, p), w, g in zip(model.named_parameters(), before, uphill, strict=True):
            decayed = g + 0.01 * w
            momenta[name] = 0.9 * momenta.get(name, 0) + decayed
            p.copy_(w - (0.2 if "classifier" in name else 0.1) * (decayed + 0.9 * momenta[name]))


def gradient_at(model, step):
    images, targets = batch(step)
    return torch.autograd.grad(F.cross_entropy(model(images), targets), list(model.parameters()))


@pytest.mark.parametrize(("rho", "adaptive"), [(0.05, False), (0.5, True)])
def test_on_a_network_it_is_two_explicit_passes(rho, adaptive):
    ours, update = make(partial(sam, rho=rho, adaptive=adaptive))
    theirs, momenta = copy.deepcopy(ours), {}
    for step in range(STEPS):
        torch.manual_seed(100 + step)
        update([batch(step)])
        torch.manual_seed(100 + step)
        explicit(theirs, gradient_at, step, rho=rho, adaptive=adaptive, momenta=momenta)
        assert largest_difference(ours.parameters(), theirs.parameters()) < 1e-6
        assert largest_difference([b.float() for b in ours.buffers()], [b.float() for b in theirs.buffers()]) < 1e-6


def test_without_a_radius_it_is_its_base_to_the_bit():
    """So weights come back exactly, dropout draws alike, and batch-norm statistics move once."""
    (ours, with_sam), (theirs, with_sgd) = make(partial(sam, rho=0.0)), make(lambda model: sgd(groups_of(model)))
    for step in range(5):
        for update in (with_sam, with_sgd):
            torch.manual_seed(step)
            update([batch(step)])
    for name, value in ours.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name]), name


def test_the_metrics_are_of_the_first_pass():
    model, update = make(drop=0.0)
    first = F.cross_entropy(copy.deepcopy(model)(batch()[0]), batch()[1])
    assert torch.equal(update([batch()])[0].losses[0].value.detach(), first.detach())


@pytest.mark.parametrize("adaptive", [False, True])
def test_operations_do_not_grow_with_the_parameters(strict_device, adaptive):
    counts = []
    for tensors_of in (4, 60):
        parameters = {f"p{n}": nn.Parameter(torch.randn(3)) for n in range(tensors_of)}
        groups = [ParameterGroup("backbone", parameters)]

        def closure(parameters=parameters):
            for p in parameters.values():
                p.grad = p.detach() * 1  # counted: one operation a parameter an evaluation
            return Evaluation([], [])

        closure.ascent, closure.found_inf = closure, torch.zeros(())
        optimizer = Sam(groups=groups, options=SamOptions(adaptive=adaptive), base=sgd(groups, momentum=0.0))
        optimizer.step(closure)  # the first makes room for the copies
        with strict_device() as device:
            optimizer.step(closure)
        counts.append(sum(device.operations.values()) - 2 * 2 * tensors_of)  # detach and mul
    assert counts[0] == counts[1] <= 15


def test_a_failing_second_pass_restores_the_weights():
    model, update = make()
    before, calls = weights(model), []

    def forward(images, part=None):
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("out of memory")
        return Net.forward(model, images)

    model.forward = forward
    with pytest.raises(RuntimeError, match="out of memory"):
        update([batch()])
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize("evaluation", [1, 2])
def test_a_non_finite_gradient_in_either_pass_skips_the_update(evaluation):
    model, update = make()
    update([batch()])
    before = copy.deepcopy((model.state_dict(), update.optimizer.state_dict()["state"]))
    model.calls = 0
    model.classifier.weight.register_hook(lambda g: g * float("inf") if model.calls == evaluation else g)
    statistics = [name for name, _ in model.named_buffers()]
    assert update([batch(1)])[0].found_inf.item() == 1
    for name, value in model.state_dict().items():
        assert name in statistics or torch.equal(value, before[0][name]), name
    torch.testing.assert_close(update.optimizer.state_dict()["state"], before[1], rtol=0, atol=0)


def test_clipping_applies_to_the_update_only():
    """Clipped or not, the climb goes as far: with a tiny bound, the direction is that of the unclipped descent."""
    steps = []
    for clip_norm in (0.0, 1e-3):
        model, update = make(
            lambda m: sam(m, partial(sgd, momentum=0.0, weight_decay=0.0, head_lr=0.1), rho=1.0),
            clip_norm,
            norm=False,
            drop=0.0,
        )
        before = weights(model)
        update([batch()])
        steps.append(torch.cat([(a - b.detach()).flatten() for a, b in zip(before, model.parameters(), strict=True)]))
    assert F.cosine_similarity(*steps, dim=0) > 0.9999
    assert steps[1].norm() == pytest.approx(0.1 * 1e-3, rel=1e-3)


def test_under_bf16_the_second_pass_uses_the_perturbed_weights():
    """Autocast keeps casts of the weights; kept over both passes, they would make SAM plain SGD."""
    autocast = partial(torch.autocast, "cpu", torch.bfloat16)
    (ours, with_sam), (theirs, with_sgd) = (
        make(partial(sam, rho=0.5), autocast=autocast, drop=0.0),
        make(lambda model: sgd(groups_of(model)), autocast=autocast, drop=0.0),
    )
    for update in (with_sam, with_sgd):
        update([batch()])
    reference, update = make(partial(sam, rho=0.5), drop=0.0)
    update([batch()])
    assert largest_difference(ours.parameters(), theirs.parameters()) > 1e-3
    assert largest_difference(ours.parameters(), reference.parameters()) < 1e-2
    assert all(p.dtype == torch.float32 for p in ours.parameters())


@pytest.mark.parametrize("base", [sgd, lambda groups: AdamW(groups=groups, options=AdamWOptions(lr=0.01))])
def test_resumes_from_a_file(base, tmp_path):
    (straight, whole), (stopped, first) = make(partial(sam, base=base)), make(partial(sam, base=base))
    for step in range(6):
        torch.manual_seed(step)
        whole([batch(step)])
    for step in range(3):
        torch.manual_seed(step)
        first([batch(step)])
    found = {}
    document = model_file.pack(first.optimizer.state_dict(), found, "optimizer")
    model_file.save(tmp_path / "state.safetensors", found, document)
    again, rest = make(partial(sam, base=base))
    again.load_state_dict(stopped.state_dict())
    found, document = model_file.load(tmp_path / "state.safetensors")
    rest.optimizer.load_state_dict(model_file.unpack(document, found))
    for step in range(3, 6):
        torch.manual_seed(step)
        rest([batch(step)])
    for name, value in straight.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def over(parameters, **options):
    groups = [ParameterGroup("backbone", parameters)]
    return Sam(groups=groups, options=SamOptions(**options), base=sgd(groups, momentum=0.0))


@pytest.mark.parametrize("adaptive", [False, True])
def test_the_memory_format_of_a_weight_makes_no_difference(adaptive, parameters, given):
    """Launches for many tensors may walk through memory: a copy in another format would mix up the entries."""
    plain = {
        name: nn.Parameter(p.detach().clone(memory_format=torch.contiguous_format)) for name, p in parameters.items()
    }
    assert plain["conv.weight"].stride() != parameters["conv.weight"].stride()
    seen = []
    for each in (parameters, plain):
        optimizer, weights = over(each, rho=0.3, adaptive=adaptive), []
        for step in range(3):
            evaluate = given(each, step)

            def closure(evaluate=evaluate, each=each, weights=weights):
                weights.append([p.detach().clone(memory_format=torch.contiguous_format) for p in each.values()])
                return evaluate()

            closure.ascent, closure.found_inf = closure, evaluate.found_inf
            optimizer.step(closure)
        seen.append(weights)
    for ours, theirs in zip(*seen, strict=True):  # at the weights and uphill, in turn
        assert largest_difference(ours, theirs) < 1e-6
    assert largest_difference(seen[0][0], seen[0][1]) > 1e-3
    assert parameters["conv.weight"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_weights_are_restored_bit_for_bit_in_every_dtype(dtype):
    weight = nn.Parameter(torch.randn(50, generator=torch.Generator().manual_seed(0)).to(dtype) / 3)
    before, seen = weight.detach().clone(), []

    def closure():
        seen.append(weight.detach().clone())
        weight.grad = torch.linspace(-1, 1, 50).to(dtype)
        return Evaluation([], [])

    closure.ascent, closure.found_inf = closure, torch.zeros(())
    optimizer = over({"weight": weight}, rho=0.7)
    optimizer.set_rate(0.0)
    optimizer.step(closure)
    assert torch.equal(weight, before) and not torch.equal(seen[1], before)
