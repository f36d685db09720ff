"""What an update of CMAL costs and touches: operations, MACs, batch-norm statistics, compiled graphs."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from fgvc_backbones.options import TimmOptions
from fgvc_backbones.timm_backbone import TimmBackbone
from fgvc_cli.contracts import Classifier, ParameterGroup, Preprocessing
from fgvc_cli.training.update import Update
from fgvc_heads.cmal import CmalHead
from fgvc_heads.cmal.objectives import PARTS
from fgvc_heads.options import CmalOptions
from fgvc_optimizers.options import SgdOptions
from fgvc_optimizers.sgd import Sgd

SMALL = {"expert_width": 8, "map_channels": 16, "hidden_width": 12}
SIZE = 64


def classifier_of(backbone: str = "timm/test_resnet", size: int = SIZE, classes: int = 5, **options) -> Classifier:
    torch.manual_seed(0)
    body = TimmBackbone(backbone, size, TimmOptions())
    head = CmalHead(body.info, classes, CmalOptions(**options))
    body.prune(head.reads())
    preprocessing = Preprocessing(size, size, body.info.mean, body.info.std)
    return Classifier(body, head, [str(k) for k in range(classes)], preprocessing).train()


def batch(images: int):
    return torch.randn(images, 3, SIZE, SIZE), torch.arange(images) % 5


def update_of(model: Classifier) -> Update:
    groups = [ParameterGroup(p, dict(getattr(model, p).named_parameters())) for p in ("backbone", "head")]
    return Update(model, model.head, Sgd(groups, SgdOptions(lr=0.01)), nullcontext, clip_norm=1.0)


class TestOperations:
    """What the options of CMAL change; `tests/training/test_no_sync.py` has the optimizers and precisions."""

    def test_no_synchronization_and_no_loop_over_images_in_full_passes(self, strict_device):
        model = classifier_of(**SMALL, full_passes=True)
        update = update_of(model)
        operations = {}
        for images in (2, 8):
            one = batch(images)
            update([one])  # makes the optimizer's state
            with strict_device() as device:
                done = update([one])
            operations[images] = device.operations
            assert [step.name for step in done] == ["e3", "e2", "e1", "overall", "concat"]
            assert not any(step.found_inf for step in done)
        assert any("backward" in name for name in operations[2])  # the backward pass was watched too
        assert operations[2] == operations[8]


class TestMacs:
    @staticmethod
    def counted(backbone: str, full_passes: bool) -> dict[str, int]:
        """MACs of a batch by objective, forward and backward; no number is computed, only shapes."""
        model = classifier_of(backbone, 448, 100, full_passes=full_passes)
        fake = FakeTensorMode()
        with FakeCopyMode(fake):
            model = copy.deepcopy(model)
        counts = {}
        with fake:
            model.head._draw_region = lambda images, *_: (
                images
            )  # a draw is a number, too; a region costs what images cost
            generator = model.head.objectives(torch.empty(2, 3, 448, 448), torch.zeros(2, dtype=torch.int64))
            objective = next(generator)
            while objective:
                model.zero_grad()
                with FlopCounterMode(display=False) as counter:
                    output = model(objective.images, objective.part)
                    objective.loss(output).value.backward()
                counts[objective.name] = counter.get_total_flops() // 2
                objective = generator.send(output) if objective.name != "concat" else None
        return counts

    @pytest.mark.slow
    @pytest.mark.parametrize("backbone", ["resnet50", "swin_t"])
    def test_are_at_most_093_of_five_full_passes(self, backbone):
        needed, full = self.counted(backbone, False), self.counted(backbone, True)
        assert sum(needed.values()) <= 0.93 * sum(full.values())
        assert needed["e2"] < 0.75 * full["e2"] and needed["e1"] < 0.85 * full["e1"]
        assert all(needed[name] <= full[name] for name in needed)


def moved_norms(model: Classifier, part: str) -> set[str]:
    """Name the batch norms whose statistics a forward pass of that part moves."""
    norms = {n: m for n, m in model.named_modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)}
    before = {n: (m.running_mean.clone(), m.running_var.clone(), int(m.num_batches_tracked)) for n, m in norms.items()}
    model(batch(4)[0], part)
    moved = set()
    for name, norm in norms.items():
        mean, variance, batches = before[name]
        same = torch.equal(norm.running_mean, mean) and torch.equal(norm.running_var, variance)
        assert same == (int(norm.num_batches_tracked) == batches), name
        if not same:
            moved.add(name)
    return moved


class TestStatistics:
    def test_statistics_of_skipped_modules_stay(self):
        model = classifier_of(**SMALL)
        moved = {part: moved_norms(model, part) for part in PARTS if part}
        stages = {part: {n.split(".")[2] for n in names if "model.layer" in n} for part, names in moved.items()}
        every = {"layer1", "layer2", "layer3", "layer4"}
        assert stages["e2"] == every - {"layer4"}
        assert stages["e1"] == {"layer1", "layer2"}
        assert stages["e3"] == stages["overall"] == stages["concat"] == every
        heads = {part: {n for n in names if n.startswith("head.")} for part, names in moved.items()}
        assert {n.split(".")[2] for n in heads["e2"]} == {"1"} and {n.split(".")[2] for n in heads["e1"]} == {"0"}
        assert heads["e3"] == {n for n in heads["overall"] if "concat" not in n}
        assert heads["concat"] == {n for n in heads["overall"] if "classifier" not in n}


class TestTraining:
    def test_the_metrics_scores_are_the_concatenations(self):
        model = classifier_of(**SMALL)
        done = update_of(model)([batch(4)])
        assert [step.losses[0].scores is not None for step in done] == [False] * 4 + [True]
        assert set(done[3].losses[0].parts) == {"e1", "e2", "e3", "concat"}
