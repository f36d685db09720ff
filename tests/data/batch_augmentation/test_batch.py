"""The same draw gives the pixels that torchvision v2 gives for that image alone as a uint8 tensor."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from fgvc_cli.config.train_options import AugmentOptions
from fgvc_cli.contracts import Preprocessing
from fgvc_cli.data.augmentation import Augmentation
from fgvc_cli.data.batch_augmentation.draws import BatchOp, Draw, Draws, to_device
from fgvc_cli.data.batch_augmentation.recording import record
from fgvc_cli.data.order import seeded
from fgvc_cli.data.staging import BatchAugmentation

MEAN = (0.5, 0.4, 0.3)
POLICIES = {
    "none": None,
    "autoaugment": v2.AutoAugment(),
    "randaugment": v2.RandAugment(3, 17),
    "trivialaugment": v2.TrivialAugmentWide(),
}


def differences(ours: Tensor, theirs: Tensor) -> Tensor:
    return (ours.int() - theirs.int()).abs()


def batched(pixels: Tensor, transform: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Return our result for a batch, and that of the transform for each image; seeds 0, 1, ..."""
    draws, theirs = [], []
    for seed, image in enumerate(pixels):
        with seeded(seed):
            draws.append(Draw(record(transform, pixels.shape[3])))
        with seeded(seed):
            theirs.append(transform(image))
    return BatchAugmentation(MEAN)(pixels, Draws.of(draws)), torch.stack(theirs)


@pytest.mark.parametrize(("policy", "side"), list(zip(POLICIES, (33, 64, 33, 64), strict=True)))
def test_policies(policy: str, side: int, pictures) -> None:
    transform = v2.Compose([v2.RandomHorizontalFlip(), *([POLICIES[policy]] if POLICIES[policy] else [])])
    pixels = pictures(40, side)
    before = pixels.clone()
    ours, theirs = batched(pixels, transform)
    assert ours.dtype == torch.uint8
    assert differences(ours, theirs).max() <= 1
    assert (ours == theirs).float().mean() > 0.999
    assert torch.equal(pixels, before)
    assert not torch.equal(ours, pixels)


def test_options_besides_a_policy(pictures) -> None:
    preprocessing = Preprocessing(33, 33, MEAN, (0.2, 0.2, 0.2))
    options = AugmentOptions(policy="autoaugment", color_jitter=0.4, sharpen=0.5, erase=0.5, where="device")
    later = Augmentation(options, preprocessing)._later
    assert later is not None
    ours, theirs = batched(pictures(40, 33), later)
    assert differences(ours, theirs).max() <= 1
    assert (ours == theirs).float().mean() > 0.999


OPERATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "flip": F.horizontal_flip,
    "invert": F.invert,
    "autocontrast": F.autocontrast,
    "equalize": F.equalize,
    **{f"posterize {bits}": lambda x, b=bits: F.posterize(x, b) for bits in range(9)},
    **{f"solarize {t}": lambda x, t=t: F.solarize(x, t) for t in (0.0, 28.33, 128.0, 200.5, 255.0)},
    **{f"brightness {f}": lambda x, f=f: F.adjust_brightness(x, f) for f in (0.0, 0.1, 0.37, 1.0, 1.9)},
    **{f"saturation {f}": lambda x, f=f: F.adjust_saturation(x, f) for f in (0.0, 0.1, 0.37, 1.0, 1.9)},
    **{f"contrast {f}": lambda x, f=f: F.adjust_contrast(x, f) for f in (0.0, 0.1, 0.37, 1.0, 1.9)},
    **{f"sharpness {f}": lambda x, f=f: F.adjust_sharpness(x, f) for f in (0.0, 0.1, 0.37, 1.0, 1.5, 1.99)},
    **{f"blur {s}": lambda x, s=s: F.gaussian_blur(x, [5, 5], [s, s]) for s in (0.1, 0.5, 1.3, 5.0)},
    **{f"rotate {a}": lambda x, a=a: F.rotate(x, a) for a in (-135, -90, -30, -8, 0, 0.5, 3, 45, 90, 120)},
    **{
        f"shear {m} {n}": lambda x, m=m, n=n: F.affine(
            x, 0.0, [0, 0], 1.0, [math.degrees(math.atan(m)), math.degrees(math.atan(n))], center=[0, 0]
        )
        # 0.09 and 0.25 put whole rows halfway between two pixels. With two shears at once the neighbor that
        # torchvision takes depends on the processor.
        for m, n in [(0.09, 0.0), (-0.25, 0.0), (0.99, 0.0), (0.0, 0.09), (0.0, -0.25), (0.0, 0.3), (0.1037, 0.2219)]
    },
    **{
        f"translate {x} {y}": lambda i, x=x, y=y: F.affine(i, 0.0, [x, y], 1.0, [0.0, 0.0])
        for x, y in [(7, 0), (0, -9)]
    },
    "erase": lambda x: F.erase(x, 4, 6, 9, 12, torch.tensor([255 * m for m in MEAN]).view(3, 1, 1)),
}


@pytest.mark.parametrize("kind", sorted({name.split()[0] for name in OPERATIONS}))
def test_each_operation(kind: str, pictures) -> None:
    for name, operation in OPERATIONS.items():
        for side in (32, 57):
            if name.split()[0] == kind:
                ours, theirs = batched(pictures(3, side), operation)
                assert differences(ours, theirs).max() <= 1, (name, side)
                assert (ours == theirs).float().mean() > 0.999, (name, side)


def test_every_image_has_its_own_draw(pictures, drawn) -> None:
    """The result for an image does not depend on the rest of the batch."""
    options = AugmentOptions(policy="randaugment", color_jitter=0.3, blur=0.3, erase=0.5, where="device")
    pixels, draws = pictures(40, 32), drawn(options, 32, 40)
    assert len({draw.ops for draw in draws}) > 35
    augment = BatchAugmentation(MEAN)
    together = augment(pixels, Draws.of(draws))
    for index in (0, 7, 39):
        alone = augment(pixels[index : index + 1], Draws.of(draws[index : index + 1]))
        assert torch.equal(alone[0], together[index])


def test_without_operations_pixels_are_unchanged(pictures) -> None:
    pixels = pictures(3, 32)
    for draws in (Draws.of([Draw()] * 3), Draws.of([])):
        count = len(draws.operations)
        assert torch.equal(BatchAugmentation(MEAN)(pixels[:count], draws), pixels[:count])


def test_merged_geometry_is_one_smooth_resampling(pictures) -> None:
    pixels = pictures(20, 64)[:19]
    rotate_and_back = lambda x: F.rotate(F.rotate(x, 20.0), -20.0)  # noqa: E731
    draws = Draws.of([Draw(record(rotate_and_back, 64))] * len(pixels))
    merged = BatchAugmentation(MEAN, merge_geometry=True)(pixels, draws)
    assert torch.equal(merged, pixels)  # together they move nothing
    assert not torch.equal(BatchAugmentation(MEAN)(pixels, draws), pixels)

    flip_and_turn = lambda x: F.rotate(F.horizontal_flip(x), 20.0)  # noqa: E731
    draws = Draws.of([Draw(record(flip_and_turn, 64))] * len(pixels))
    merged = BatchAugmentation(MEAN, merge_geometry=True)(pixels, draws)
    smooth = F.rotate(F.horizontal_flip(pixels), 20.0, interpolation=v2.InterpolationMode.BILINEAR)
    assert differences(merged, smooth).max() <= 1


def test_merging_changes_nothing_else(pictures, drawn) -> None:
    """Where there is no affine operation, a flip stays exact."""
    draws = drawn(AugmentOptions(policy="autoaugment", where="device"), 32, 60)
    flat = [draw for draw in draws if all(op.operation.name != "AFFINE" for op in draw.ops)]
    pixels = pictures(len(flat), 32)
    assert 20 < len(flat) < 60
    plain, merged = (BatchAugmentation(MEAN, merge)(pixels, Draws.of(flat)) for merge in (False, True))
    assert torch.equal(plain, merged)


@pytest.mark.parametrize("policy", ["autoaugment", "randaugment", "trivialaugment"])
def test_never_synchronizes_and_launches_few_kernels(policy, pictures, drawn, strict_device) -> None:
    options = AugmentOptions(policy=policy, where="device")
    pixels, draws = pictures(128, 32), Draws.of(drawn(options, 32, 128))
    for merge in (False, True):
        augment = BatchAugmentation(MEAN, merge)
        with strict_device() as device:
            augment(pixels, draws)
        assert sum(number for name, number in device.operations.items() if not is_view(name)) < 300


def test_all_operations_together_never_synchronize(pictures, drawn, strict_device) -> None:
    options = AugmentOptions(
        policy="randaugment", color_jitter=0.4, blur=0.5, sharpen=0.5, erase=0.5, mixup=0.2, where="device"
    )
    pixels, draws = pictures(32, 32), Draws.of(drawn(options, 32, 32))
    with strict_device() as device:
        BatchAugmentation(MEAN)(pixels, draws)
    assert {"aten.scatter_add_.default", "aten.gather.default", "aten.index_copy_.default"} <= set(device.operations)


def is_view(name: str) -> bool:
    packet, _, overload = name.removeprefix("aten.").partition(".")
    results = getattr(getattr(torch.ops.aten, packet), overload)._schema.returns
    return any(result.alias_info is not None and not result.alias_info.is_write for result in results)


def test_tensors_reach_the_device_unchanged() -> None:
    def function(pixels, *_):
        return pixels

    single = torch.arange(6.0).view(1, 6)[:, :1].view(1, 1, 1, 1)  # one element, with an odd stride
    parameters = (
        torch.tensor([True, False, True]),
        single,
        torch.rand(3, 2, 3),
        torch.arange(7, dtype=torch.uint8),
        torch.rand(4, 3).T,
        torch.rand(2, dtype=torch.float64),
    )
    ops = [BatchOp(function, torch.tensor([3, 1])), BatchOp(function, torch.tensor([0]), parameters)]
    moved = to_device(ops, torch.device("cpu"))
    assert [op.function for op in moved] == [function, function]
    assert torch.equal(moved[0].images, ops[0].images) and torch.equal(moved[1].images, ops[1].images)
    for there, here in zip(moved[1].parameters, parameters, strict=True):
        assert there.dtype == here.dtype and torch.equal(there, here)
    assert len({op.images.untyped_storage().data_ptr() for op in moved}) == 1  # one transfer
    assert to_device([], torch.device("cpu")) == []


@pytest.mark.gpu
@pytest.mark.parametrize("policy", ["autoaugment", "randaugment", "trivialaugment"])
@pytest.mark.parametrize("merge", [False, True])
def test_a_gpu_computes_the_same(policy, merge, pictures, drawn) -> None:
    options = AugmentOptions(policy=policy, color_jitter=0.3, sharpen=0.3, erase=0.5, where="device")
    pixels, draws = pictures(128, 65), Draws.of(drawn(options, 65, 128))
    augment = BatchAugmentation(MEAN, merge)
    here, there = augment(pixels, draws), augment(pixels.cuda(), draws).cpu()
    if not merge:
        assert differences(here, there).max() <= 1
    assert (here == there).float().mean() > (0.99 if merge else 0.9999)


@pytest.mark.gpu
def test_torch_detects_no_synchronization_on_a_gpu(pictures, drawn) -> None:
    options = AugmentOptions(policy="randaugment", color_jitter=0.4, blur=0.5, sharpen=0.5, erase=0.5, where="device")
    pixels, draws = pictures(64, 64).cuda(), Draws.of(drawn(options, 64, 64))
    augment = BatchAugmentation(MEAN)
    expected = augment(pixels, draws)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        again = augment(pixels, draws)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(again, expected)
