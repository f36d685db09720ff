"""CMAL against a plain reading of the method: one image at a time, every region found and cut by itself."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fgvc_cli.contracts import BackboneInfo, Features, MapInfo, ParameterGroup, Reads
from fgvc_cli.training.update import Update
from fgvc_heads.cmal import CmalHead
from fgvc_heads.options import CmalOptions
from fgvc_optimizers.adamw import AdamW
from fgvc_optimizers.options import AdamWOptions, SamOptions, SgdOptions
from fgvc_optimizers.sam import Sam
from fgvc_optimizers.sgd import Sgd

SIZE, CLASSES, IMAGES = 40, 5, 4
INFO = BackboneInfo(
    "trunk",
    "convolutional",
    SIZE,
    (MapInfo(6, 4, (10, 10)), MapInfo(8, 8, (5, 5)), MapInfo(10, 16, (3, 3))),
    10,
    (0.5,) * 3,
    (0.5,) * 3,
)
SMALL = {"expert_width": 6, "map_channels": 8, "hidden_width": 7}


class Trunk(nn.Module):
    """A backbone of three stages that stops after the deepest map asked for."""

    def __init__(self) -> None:
        super().__init__()
        channels = (3, 6, 8, 10)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels[i], channels[i + 1], 3, 4 if i == 0 else 2, 1, bias=False),
                nn.BatchNorm2d(channels[i + 1]),
            )
            for i in range(3)
        )

    def forward(self, images: Tensor, reads: Reads) -> Features:
        maps, x = {}, images
        for level in range(max(reads.maps) + 1):
            x = self.stages[level](x).relu()
            maps[level] = x
        return Features({level: maps[level] for level in reads.maps}, None)


class Whole(nn.Module):
    def __init__(self, options: CmalOptions) -> None:
        super().__init__()
        self.backbone, self.head = Trunk(), CmalHead(INFO, CLASSES, options)

    def forward(self, images: Tensor, part: str | None = None):
        return self.head(self.backbone(images, self.head.reads(part)), part)


# ------------------------------------------------------------------------------------------ the plain reading


def slow_norm(norm, x: Tensor, training: bool) -> Tensor:
    dims = [d for d in range(x.ndim) if d != 1]
    mean, variance = norm.running_mean, norm.running_var
    if training:
        mean, variance = x.mean(dims), x.var(dims, unbiased=False)
    shape = [1, -1] + [1] * (x.ndim - 2)
    scaled = (x - mean.view(shape)) / (variance.view(shape) + 1e-5).sqrt()
    return scaled * norm.weight.view(shape) + norm.bias.view(shape)


def slow_classifier(classifier, pooled: Tensor, training: bool) -> Tensor:
    x = slow_norm(classifier.norm, pooled, training)
    x = torch.stack([classifier.hidden.weight @ row + classifier.hidden.bias for row in x])
    x = slow_norm(classifier.hidden_norm, x, training)
    x = torch.where(x > 0, x, x.exp() - 1)
    return torch.stack([classifier.output.weight @ row + classifier.output.bias for row in x])


def slow_forward(model: Whole, images: Tensor, training: bool = True):
    """Scores of e1, e2, e3 and their concatenation, and the experts' maps: the whole network."""
    features = model.backbone(images, Reads(maps=(0, 1, 2)))
    scores, maps, vectors = [], [], []
    for level, expert in enumerate(model.head.experts):
        x = features.maps[level]
        x = slow_norm(expert.reduce.norm, F.conv2d(x, expert.reduce.conv.weight), training).relu()
        x = slow_norm(expert.expand.norm, F.conv2d(x, expert.expand.conv.weight, padding=1), training).relu()
        pooled = torch.stack([torch.stack([channel.flatten().max() for channel in image]) for image in x])
        maps.append(x.detach())
        vectors.append(pooled)
        scores.append(slow_classifier(expert.classifier, pooled, training))
    scores.append(slow_classifier(model.head.concat, torch.cat(vectors, 1), training))
    return scores, maps


def slow_attention(own_map: Tensor, scores: Tensor, classifier) -> list[Tensor]:
    """One h,w map an image: W2's row of the predicted class times (W1 times each point)."""
    maps = []
    for image, row in zip(own_map, scores, strict=True):
        predicted = row.argmax().item()
        points = image.flatten(1).T
        values = [classifier.output.weight[predicted] @ (classifier.hidden.weight @ point) for point in points]
        maps.append(torch.stack(values).view(image.shape[1:]).detach())
    return maps


def slow_scaled(attention: Tensor) -> Tensor:
    return (attention - attention.min()) / (attention.max() - attention.min() + 1e-6)


def slow_enlarged(attention: Tensor) -> Tensor:
    grown = F.interpolate(attention[None, None], (SIZE, SIZE), mode="bilinear", align_corners=True)[0, 0]
    return slow_scaled(grown)


def slow_box(attention: Tensor) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of one image-sized map."""
    height, width = attention.shape
    rows = [y for y in range(height) if any((attention[y] >= 0.5).tolist())]
    columns = [x for x in range(width) if any((attention[:, x] >= 0.5).tolist())]
    if not rows:
        return 0, 0, width, height
    return (
        max(int(columns[0] - 0.1 * width), 0),
        max(int(rows[0] - 0.1 * height), 0),
        min(int(columns[-1] + 0.1 * width), width),
        min(int(rows[-1] + 0.1 * height), height),
    )


def slow_crop(images: Tensor, boxes: list[tuple[int, int, int, int]]) -> Tensor:
    cut = [image[None, :, y0:y1, x0:x1] for image, (x0, y0, x1, y1) in zip(images, boxes, strict=True)]
    return torch.cat([F.interpolate(c, images.shape[2:], mode="bilinear", align_corners=True) for c in cut])


def slow_regions(head: CmalHead, scores, maps):
    """Maps and boxes of e1, e2, e3 and of the three together: a list of four, each a list of images."""
    found = []
    for level in range(3):
        small = slow_attention(maps[level], scores[level], head.experts[level].classifier)
        found.append([slow_enlarged(m) for m in small])
    found.append([slow_scaled(a + b + c) for a, b, c in zip(*found, strict=True)])
    return found, [[slow_box(m) for m in maps_of_one] for maps_of_one in found]


def slow_cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    total = 0
    for row, target in zip(scores, targets, strict=True):
        log_probabilities = row - row.exp().sum().log()
        total = total - (log_probabilities[target] if target.ndim == 0 else (target * log_probabilities).sum())
    return total / len(scores)


def slow_losses(model: Whole, images: Tensor, targets: Tensor, after_first=lambda loss: None, seen=None):
    """Yield the five losses as functions to be evaluated when their turn has come; the draws are torch's next two."""
    first = {}

    def e3():
        scores, maps = slow_forward(model, images)
        first.setdefault("forward", ([s.detach() for s in scores], maps))
        return slow_cross_entropy(scores[2], targets)

    yield "e3", e3
    _, boxes = slow_regions(model.head, *first["forward"])

    def drawn(other: int) -> Tensor:
        draw = torch.rand(1).item()
        choice = 2 if draw < 1 / 3 else other if draw < 2 / 3 else None
        if seen is not None:
            seen.add((other, choice))
        return images if choice is None else slow_crop(images, boxes[choice])

    for level, other in ((1, 0), (0, 1)):
        shown = drawn(other)
        yield f"e{level + 1}", lambda s=shown, i=level: slow_cross_entropy(slow_forward(model, s)[0][i], targets)
    region = slow_crop(images, boxes[3])

    def overall():
        e1, e2, e3, concat = (slow_cross_entropy(s, targets) for s in slow_forward(model, region)[0])
        return e1 + e2 + e3 + 2 * concat

    yield "overall", overall
    yield "concat", lambda: 2 * slow_cross_entropy(slow_forward(model, images)[0][3], targets)


# ------------------------------------------------------------------------------------------------- comparisons


def built(dtype=torch.float32, **options) -> Whole:
    torch.manual_seed(0)
    model = Whole(CmalOptions(**SMALL, **options)).to(dtype)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):  # away from the start, where it scales by 1
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.3)
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, nn.Conv2d | nn.Linear):  # so that what is seen comes through to the scores
            nn.init.kaiming_normal_(module.weight)
    return model


def batch(seed: int = 1, dtype=torch.float32, soft: bool = False) -> tuple[Tensor, Tensor]:
    """Noise, with one colored blob an image: there is something to attend to."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(IMAGES, 3, SIZE, SIZE, generator=generator)
    at = torch.arange(SIZE)
    for image in images:
        (y, x), color = torch.rand(2, 1, generator=generator) * SIZE, torch.randn(3, 1, 1, generator=generator)
        image += 6 * color * torch.exp(-((at[:, None] - y) ** 2 + (at - x) ** 2) / 60)
    targets = torch.randint(0, CLASSES, (IMAGES,), generator=generator)
    if soft:
        return images.to(dtype), torch.rand(IMAGES, CLASSES, generator=generator).softmax(1).to(dtype)
    return images.to(dtype), targets


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_attention_maps_and_boxes(training):
    model, distinct = built().train(training), set()
    for seed in range(6):
        images, _ = batch(seed)
        with torch.no_grad():
            maps, boxes = slow_regions(model.head, *slow_forward(model, images, training))
        attention = model.head.attend(model, images)
        ours = [*attention.expert_maps.unbind(1), attention.overall_map]
        for found, expected in zip(ours, maps, strict=True):
            torch.testing.assert_close(found, torch.stack(expected), rtol=0, atol=1e-5)
        assert attention.expert_boxes.transpose(0, 1).tolist() == [[list(b) for b in of_one] for of_one in boxes[:3]]
        assert attention.overall_box.tolist() == [list(box) for box in boxes[3]]
        distinct |= {box for of_one in boxes for box in of_one}
    assert len(distinct) > 20  # else boxes that never change could pass


def test_prediction_is_the_mean_of_eight_scores():
    model, (images, _) = built().eval(), batch()
    with torch.no_grad():
        scores, maps = slow_forward(model, images, training=False)
        boxes = slow_regions(model.head, scores, maps)[1][3]
        again, _ = slow_forward(model, slow_crop(images, boxes), training=False)
        expected = sum([*scores, *again]) / 8
        torch.testing.assert_close(model.head.predict(model, images), expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(expected, sum(scores) / 4, atol=1e-3)


@pytest.mark.parametrize("soft", [False, True], ids=["classes", "probabilities"])
@pytest.mark.parametrize("full", [False, True], ids=["needed", "full"])
def test_the_five_losses_and_their_gradients(soft, full):
    """Without updates between them, so that each is compared by itself."""
    model, (images, targets) = built(torch.float64, full_passes=full), batch(3, torch.float64, soft)
    plain, seed = copy.deepcopy(model), 5
    generators, values = (model.head.objectives(images, targets), slow_losses(plain, images, targets)), {}
    torch.manual_seed(seed)
    objective = next(generators[0])
    while objective:
        model.zero_grad()
        output = model(objective.images, objective.part)
        loss = objective.loss(output)
        loss.value.backward()
        values[objective.name] = (loss, [p.grad for p in model.parameters()])
        try:
            objective = generators[0].send(output)
        except StopIteration:
            objective = None
    torch.manual_seed(seed)
    for name, evaluate in generators[1]:
        plain.zero_grad()
        value = evaluate()
        value.backward()
        loss, gradients = values.pop(name)
        torch.testing.assert_close(loss.value, value.float(), rtol=1e-5, atol=1e-5, check_dtype=False)
        for gradient, parameter in zip(gradients, plain.parameters(), strict=True):
            assert (gradient is None) == (parameter.grad is None)
            if gradient is not None:
                torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-5)
        assert (loss.scores is not None) == (name == "concat")
        assert set(loss.parts) == ({"e1", "e2", "e3", "concat"} if name == "overall" else set())
    assert values == {}


@torch.no_grad()
def climb(parameters) -> list[Tensor]:
    """Move up the gradient by SAM's radius; return the weights before."""
    kept = [p.clone() for p in parameters]
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters])
    for p in parameters:
        p += 0.05 * p.grad / norm
    return kept


@torch.no_grad()
def come_back(parameters, kept) -> None:
    for p, value in zip(parameters, kept, strict=True):
        p.copy_(value)


RATE, MOMENTUM, DECAY = 0.001, 0.9, 5e-3


def ours(model: Whole, kind: str) -> Update:
    groups = [ParameterGroup(p, dict(getattr(model, p).named_parameters())) for p in ("backbone", "head")]
    if kind == "adamw":
        optimizer = AdamW(groups, AdamWOptions(lr=RATE, weight_decay=DECAY, decay_norms=True))
    else:
        options = SgdOptions(lr=RATE, momentum=MOMENTUM, nesterov=False, weight_decay=DECAY)
        optimizer = Sgd(groups, options)
    if kind == "sam":
        optimizer = Sam(groups, SamOptions(rho=0.05), optimizer)
    return Update(model, model.head, optimizer, nullcontext)


def by_hand(model: Whole, batches, kind: str, missing_grad: str, seen: set) -> None:
    """The five-step loop written out, with torch's own optimizers."""
    parameters = list(model.parameters())
    if kind == "adamw":
        optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=DECAY, foreach=False)
    else:
        optimizer = torch.optim.SGD(parameters, lr=RATE, momentum=MOMENTUM, weight_decay=DECAY, foreach=False)
    moved = set()
    for images, targets in batches:
        for _, loss in slow_losses(model, images, targets, seen=seen):
            optimizer.zero_grad(set_to_none=True)
            loss().backward()
            if kind == "sam":
                there = [p for p in parameters if p.grad is not None]
                kept = climb(there)
                optimizer.zero_grad(set_to_none=True)
                loss().backward()
                come_back(there, kept)
            for p in parameters:
                if p.grad is not None:
                    moved.add(p)
                elif missing_grad == "zero" and p in moved and kind != "adamw":
                    p.grad = torch.zeros_like(p)
            optimizer.step()


@pytest.mark.parametrize("missing_grad", ["zero", "skip"])
@pytest.mark.parametrize("kind", ["sgd", "sam", "adamw"])
def test_updates_move_the_weights_as_a_loop_written_by_hand(kind, missing_grad):
    model = built(torch.float64, missing_grad=missing_grad)
    start, plain, seen = copy.deepcopy(model), copy.deepcopy(model), set()
    batches = [batch(seed, torch.float64) for seed in range(5)]
    torch.manual_seed(1)
    update = ours(model, kind)
    for one in batches:
        update([one])
    torch.manual_seed(1)
    by_hand(plain, batches, kind, missing_grad, seen)
    assert seen == {(0, 2), (0, 0), (0, None), (1, 2), (1, 1), (1, None)}  # each draw of each expert occurred
    for (name, p), q, before in zip(model.named_parameters(), plain.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=0, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
        assert (p - q).abs().max() < 1e-2 * (p - before).abs().max(), name  # small beside the way it went
