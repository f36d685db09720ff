"""What CMAL builds, reads, says, returns and refuses."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from fgvc_cli import UsageError
from fgvc_cli.contracts import MapInfo, Reads
from fgvc_cli.options import build
from fgvc_cli.registry import get_registry
from fgvc_heads.cmal import CmalHead
from fgvc_heads.cmal.objectives import CmalOutput, concat_loss, expert_loss
from fgvc_heads.options import CmalOptions

SMALL = {"expert_width": 6, "map_channels": 16, "hidden_width": 12}
ALL = (None, "e3", "e2", "e1", "overall", "concat")


def head_of(info, classes: int = 5, **options) -> CmalHead:
    torch.manual_seed(0)
    return CmalHead(info, classes, CmalOptions(**{**SMALL, **options}))


def with_strides(info, *strides: int):
    maps = tuple(MapInfo(4 + index, stride, (9, 9)) for index, stride in enumerate(strides))
    return dataclasses.replace(info, maps=maps)


class TestMaps:
    @pytest.mark.parametrize(
        ("strides", "chosen"),
        [
            ((4, 8, 16, 32), (1, 2, 3)),
            ((4, 8, 16, 16), (0, 1, 3)),  # the deepest of each stride
            ((8, 16, 32, 32), (0, 1, 3)),  # Swin's maps as PIM's published code has them
            ((8, 16, 32), (0, 1, 2)),
            ((16, 16, 32, 32), (1, 2, 3)),
            ((16, 16, 16, 16), (1, 2, 3)),
            ((2, 4, 8, 8, 16, 16, 32), (3, 5, 6)),
        ],
    )
    def test_the_deepest_of_the_last_three_strides_or_else_the_last_three(self, cnn, strides, chosen):
        head = head_of(with_strides(cnn, *strides))
        assert head.reads() == Reads(maps=chosen)
        assert head.cam_map() == chosen[-1]
        channels = [expert.reduce.conv.in_channels for expert in head.experts]
        assert channels == [4 + index for index in chosen]

    def test_each_part_reads_what_its_experts_read(self, cnn):
        head = head_of(with_strides(cnn, 4, 8, 16, 32))
        reads = {part: head.reads(part).maps for part in ALL}
        whole = (1, 2, 3)
        assert reads == {None: whole, "e3": whole, "e2": (2,), "e1": (1,), "overall": whole, "concat": whole}
        assert not any(head.reads(part).embedding for part in ALL)
        full = head_of(with_strides(cnn, 4, 8, 16, 32), full_passes=True)
        assert {full.reads(part).maps for part in ALL} == {whole}

    def test_notes_maps_of_equal_stride(self, cnn):
        assert head_of(cnn).notes() == []
        (note,) = head_of(with_strides(cnn, 16, 16, 16, 16)).notes()
        assert "fake" in note and "16, 16, 16" in note and "depth" in note

    @pytest.mark.parametrize("strides", [(), (32,), (16, 32)])
    def test_rejects_fewer_than_three(self, cnn, strides):
        with pytest.raises(UsageError, match=f"fake has {len(strides)};.*head=linear"):
            head_of(with_strides(cnn, *strides))
        spec = get_registry().find("head", "cmal").spec
        assert not spec.accepts(strides) and spec.accepts((16, 16, 16))

    def test_rejects_rows_of_tokens(self, vit):
        with pytest.raises(UsageError, match=r"rows of 10 tokens.*`backbone\.maps=stages`"):
            head_of(vit)


class TestModules:
    def test_have_the_sizes_of_the_paper_by_default(self, cnn):
        head = CmalHead(cnn, 7, CmalOptions())
        for expert, channels in zip(head.experts, (4, 6, 10), strict=True):
            assert expert.reduce.conv.weight.shape == (512, channels, 1, 1)
            assert expert.expand.conv.weight.shape == (1024, 512, 3, 3)
            assert expert.reduce.conv.bias is None and expert.expand.conv.bias is None
            assert expert.reduce.norm.momentum == expert.expand.norm.momentum == 0.01
            assert expert.classifier.norm.momentum == expert.classifier.hidden_norm.momentum == 0.1
            assert expert.classifier.hidden.weight.shape == (512, 1024)
            assert expert.classifier.output.weight.shape == (7, 512)
        assert head.concat.norm.num_features == 3072
        assert head.concat.hidden.weight.shape == (512, 3072)
        assert {name.split(".")[0] for name in head.state_dict()} == {"experts", "concat"}

    def test_pooling_sends_the_gradient_to_one_point(self, cnn):
        expert = head_of(cnn).experts[0].eval()
        flat = torch.ones(1, 4, 9, 9, requires_grad=True)
        own_map, pooled = expert(flat)
        torch.testing.assert_close(pooled, own_map.flatten(2).max(dim=2).values)
        own_map.retain_grad()
        pooled.sum().backward()
        assert set(own_map.grad.flatten().tolist()) <= {0.0, 1.0}


PRESENT = {  # experts' scores, the concatenation's scores, maps
    None: ((True,) * 3, True, True),
    "e3": ((True,) * 3, False, True),
    "e2": ((False, True, False), False, False),
    "e1": ((True, False, False), False, False),
    "overall": ((True,) * 3, True, False),
    "concat": ((False,) * 3, True, False),
}


class TestParts:
    @pytest.mark.parametrize("part", ALL)
    def test_compute_what_their_loss_needs(self, part, cnn, features_of):
        head = head_of(cnn)
        features = features_of(cnn, 3)
        read = features._replace(maps={index: features.maps[index] for index in head.reads(part).maps})
        output = head(read, part)
        experts, concat, maps = PRESENT[part]
        assert tuple(scores is not None for scores in output.expert_scores) == experts
        assert (output.concat_scores is not None, output.expert_maps is not None) == (concat, maps)
        assert len(output.all_scores()) == sum(experts) + concat

    @pytest.mark.parametrize("full", [False, True])
    def test_scores_do_not_depend_on_the_part(self, full, cnn, features_of):
        head, features = head_of(cnn, full_passes=full), features_of(cnn, 3)
        whole = head(features)
        for part in ALL[1:]:
            output = head(features, part)
            for ours, theirs in zip(output[0], whole[0], strict=True):
                assert ours is None or torch.equal(ours, theirs)
            assert output.concat_scores is None or torch.equal(output.concat_scores, whole.concat_scores)

    def test_the_first_trains_only_e3(self, cnn, features_of):
        head, features = head_of(cnn), features_of(cnn, 3)
        output = head(features, "e3")
        assert [scores.requires_grad for scores in output.expert_scores] == [False, False, True]
        assert not any(own_map.requires_grad for own_map in output.expert_maps)
        output.expert_scores[2].sum().backward()
        taught = {name.split(".")[1] for name, p in head.named_parameters() if p.grad is not None}
        assert taught == {"2"}
        assert [features.maps[index].grad is not None for index in (0, 1, 3)] == [False, False, True]


class TestObjectives:
    def test_regions_and_images_are_equally_likely(self, cnn):
        head, images = head_of(cnn), torch.randn(1, 3, 4, 4)
        boxes = [torch.tensor([[0, 0, 1, 1]]), torch.tensor([[3, 3, 4, 4]])]
        torch.manual_seed(0)
        drawn = [head._draw_region(images, *boxes) for _ in range(3000)]
        first = sum(torch.equal(d[0, :, 0, 0], images[0, :, 0, 0]) and d is not images for d in drawn)
        raw = sum(d is images for d in drawn)
        for count in (first, raw, 3000 - first - raw):
            assert abs(count - 1000) < 110  # four standard deviations


class TestOptions:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"threshold": 1.5}, "threshold"),
            ({"eps": 0}, "eps"),
            ({"missing_grad": "sleep"}, "zero or skip"),
            ({"concat_weight": 0}, "concat_weight=0"),
        ],
    )
    def test_refuse(self, values, message):
        with pytest.raises(UsageError, match=message):
            build(CmalOptions, values, "head")

    def test_concat_weight_scales_the_loss(self, cnn, features_of):
        features, targets = features_of(cnn, 3), torch.tensor([0, 1, 2])
        for weight in (2.0, 0.5):
            head = head_of(cnn, concat_weight=weight)
            output = head(features)
            ce = [nn.functional.cross_entropy(scores, targets) for scores in output.all_scores()]
            generator = head.objectives(torch.randn(3, 3, 36, 36), targets)
            losses = {(o := next(generator)).name: o.loss(output)}
            for _ in range(4):
                o = generator.send(output)
                losses[o.name] = o.loss(output)
            torch.testing.assert_close(losses["overall"].value, ce[0] + ce[1] + ce[2] + weight * ce[3])
            torch.testing.assert_close(losses["concat"].value, weight * ce[3])
            torch.testing.assert_close([*losses["overall"].parts.values()], [c.detach() for c in ce])
            assert losses["concat"].scores is output.concat_scores


def test_losses_of_float64_logits_stay_in_float64() -> None:
    scores, targets = torch.randn(3, 7, dtype=torch.float64), torch.tensor([6, 0, 2])
    output = CmalOutput((scores, None, None), scores, None)
    expected = torch.nn.functional.cross_entropy(scores, targets)
    assert torch.equal(expert_loss(output, targets, 0).value, expected)
    assert torch.equal(concat_loss(output, targets, 2.0).value, 2 * expected)
