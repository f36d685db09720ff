from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from fgvc_cli.data.batch_augmentation.draws import Draw, Draws, Mix
from fgvc_cli.data.batch_augmentation.recording import Mixing
from fgvc_cli.data.order import seeded
from fgvc_cli.data.staging import mix_batch, probabilities

SIDE, CLASSES = 16, 4


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(5, 3, SIDE, SIDE, generator=generator)  # an odd number of them
    return images, torch.tensor([0, 1, 2, 3, 1])


def mixes(mixing: Mixing, count: int) -> list[Mix]:
    drawn = []
    for seed in range(count):
        with seeded(seed):
            mix = mixing.draw()
            assert mix is not None
            drawn.append(mix)
    return drawn


@pytest.mark.parametrize("kind", [v2.MixUp, v2.CutMix])
@pytest.mark.parametrize("seed", range(3))
def test_equal_draws_give_torchvisions_result(kind, seed: int, batch) -> None:
    images, labels = batch
    ours = Mixing(1.0, 0.0, SIDE) if kind is v2.MixUp else Mixing(0.0, 1.0, SIDE)
    with seeded(seed):
        expected_images, expected_targets = kind(alpha=1.0, num_classes=CLASSES)(images, labels)
    with seeded(seed):
        mix = ours.draw()
    draws = Draws.of([Draw((), mix)] * 5)
    got_images, got_targets = mix_batch(images, probabilities(labels, CLASSES, 0.0), draws.boxes, draws.weights)
    assert torch.equal(got_images, expected_images)
    assert torch.allclose(got_targets, expected_targets, atol=1e-7)
    assert not torch.equal(got_images, images)


def test_each_image_has_its_own_draw(batch) -> None:
    images, labels = batch
    five = mixes(Mixing(0.8, 0.8, SIDE), 12)[7:]
    draws = Draws.of([Draw((), mix) for mix in five])
    targets = probabilities(labels, CLASSES, 0.1)
    together = mix_batch(images, targets, draws.boxes, draws.weights)
    assert torch.allclose(together[1].sum(1), torch.ones(5))
    for index, mix in enumerate(five):
        same = Draws.of([Draw((), mix)] * 5)
        images_alone, targets_alone = mix_batch(images, targets, same.boxes, same.weights)
        assert torch.equal(together[0][index], images_alone[index])
        assert torch.equal(together[1][index], targets_alone[index])


def test_with_both_one_of_them_is_chosen_at_random() -> None:
    both = mixes(Mixing(1.0, 1.0, SIDE), 800)
    cut = [mix for mix in both if mix.box != (0, 0, 0, 0)]
    assert abs(len(cut) - 400) < 45  # three standard deviations
    assert all(not any(mix.box) for mix in mixes(Mixing(1.0, 0.0, SIDE), 20))


@pytest.mark.parametrize("alpha", [0.2, 4.0])
def test_weights_follow_the_beta_distribution(alpha: float) -> None:
    weights = torch.tensor([mix.weight for mix in mixes(Mixing(alpha, 0.0, SIDE), 800)])
    assert abs(float(weights.mean()) - 0.5) < 0.05
    assert abs(float(weights.var()) - 1 / (4 * (2 * alpha + 1))) < 0.02


def test_the_label_follows_the_area_of_the_box(batch) -> None:
    images, labels = torch.stack([torch.zeros(3, SIDE, SIDE), torch.ones(3, SIDE, SIDE)]), torch.tensor([0, 1])
    for mix in mixes(Mixing(0.0, 1.0, SIDE), 30):
        draws = Draws.of([Draw((), mix)] * 2)
        got, targets = mix_batch(images, probabilities(labels, 2, 0.0), draws.boxes, draws.weights)
        assert torch.allclose(got.mean(dim=(1, 2, 3)), targets[:, 1], atol=1e-6)


def test_one_image_is_mixed_with_itself(batch) -> None:
    images, labels = batch[0][:1], batch[1][:1]
    draws = Draws.of([Draw((), Mix((0, 0, 0, 0), 0.25))])
    got, targets = mix_batch(images, probabilities(labels, CLASSES, 0.0), draws.boxes, draws.weights)
    assert torch.allclose(got, images) and torch.equal(targets, probabilities(labels, CLASSES, 0.0))


def test_nothing_is_drawn_without_an_alpha() -> None:
    with seeded(1):
        before = torch.get_rng_state()
        assert Mixing(0.0, 0.0, SIDE).draw() is None
        assert torch.equal(torch.get_rng_state(), before)


def test_mixing_never_waits_for_the_device(batch, strict_device) -> None:
    images, labels = batch
    draws = Draws.of([Draw((), mix) for mix in mixes(Mixing(1.0, 1.0, SIDE), 5)])
    targets = probabilities(labels, CLASSES, 0.1)
    with strict_device():
        mix_batch(images, targets, draws.boxes, draws.weights)
