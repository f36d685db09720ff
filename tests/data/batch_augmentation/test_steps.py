from __future__ import annotations

import torch

from fgvc_cli.data.batch_augmentation.draws import Step, sent


def test_tensors_arrive_as_they_were() -> None:
    def change(pixels, *_):
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
    steps = [Step(change, torch.tensor([3, 1])), Step(change, torch.tensor([0]), parameters)]
    arrived = sent(steps, torch.device("cpu"))
    assert [step.change for step in arrived] == [change, change]
    assert torch.equal(arrived[0].images, steps[0].images) and torch.equal(arrived[1].images, steps[1].images)
    for there, here in zip(arrived[1].parameters, parameters, strict=True):
        assert there.dtype == here.dtype and torch.equal(there, here)
    assert len({step.images.untyped_storage().data_ptr() for step in arrived}) == 1  # one transfer
    assert sent([], torch.device("cpu")) == []
