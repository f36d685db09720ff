"""What CMAL builds, reads, says, returns and refuses."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from fgvc_backbones.options import TimmOptions
from fgvc_backbones.timm_backbone import TimmBackbone
from fgvc_cli import UsageError
from fgvc_cli.contracts import MapInfo, Reads
from fgvc_cli.options import build
from fgvc_cli.registry import get_registry
from fgvc_heads.cmal import CmalHead, CmalOutput
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

    def test_says_nothing_where_the_strides_differ_and_a_line_where_they_do_not(self, cnn):
        assert head_of(cnn).notes() == []
        assert head_of(with_strides(cnn, 16, 16, 16, 16)).notes() == [
            "cmal: fake has not three maps of different stride: the experts read its last three (strides 16, 16, 16) "
            "and differ by depth, not by resolution as in the paper."
        ]

    @pytest.mark.parametrize("strides", [(), (32,), (16, 32)])
    def test_refuses_fewer_than_three(self, cnn, strides):
        with pytest.raises(UsageError, match=f"cmal needs three feature maps, .* offers {len(strides) or 'none'}"):
            head_of(with_strides(cnn, *strides))
        spec = get_registry().find("head", "cmal").spec
        assert not spec.accepts(strides) and spec.accepts((16, 16, 16))

    def test_refuses_rows_of_tokens(self, vit):
        with pytest.raises(UsageError, match=r"rows of 10 tokens.*backbone\.maps=stages"):
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

    def test_keep_the_grid(self, cnn, features_of):
        maps = head_of(cnn)(features_of(cnn, 2)).expert_maps
        assert [m.shape for m in maps] == [(2, 16, 9, 9), (2, 16, 5, 5), (2, 16, 3, 3)]

    def test_pool_the_largest_value_and_give_one_of_equals_the_gradient(self, cnn):
        expert = head_of(cnn).experts[0].eval()
        flat = torch.ones(1, 4, 9, 9, requires_grad=True)
        own_map, pooled = expert(flat)
        torch.testing.assert_close(pooled, own_map.flatten(2).max(dim=2).values)
        own_map.retain_grad()
        pooled.sum().backward()
        assert set(own_map.grad.flatten().tolist()) <= {0.0, 1.0}

    def test_weights_come_back_from_a_state_dict(self, cnn, features_of):
        one, other = head_of(cnn), CmalHead(cnn, 5, CmalOptions(**SMALL))
        one(features_of(cnn, 4))  # so that the statistics have moved
        other.load_state_dict(one.state_dict())
        features = features_of(cnn, 3, seed=1)
        for ours, theirs in zip(one.eval()(features).all_scores(), other.eval()(features).all_scores(), strict=True):
            assert torch.equal(ours, theirs)


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
    def test_give_what_their_loss_needs_from_the_maps_that_they_read(self, part, cnn, features_of):
        head = head_of(cnn)
        features = features_of(cnn, 3)
        read = features._replace(maps={index: features.maps[index] for index in head.reads(part).maps})
        output = head(read, part)
        experts, concat, maps = PRESENT[part]
        assert tuple(scores is not None for scores in output.expert_scores) == experts
        assert (output.concat_scores is not None, output.expert_maps is not None) == (concat, maps)
        assert len(output.all_scores()) == sum(experts) + concat

    @pytest.mark.parametrize("part", ALL)
    def test_run_everything_under_full_passes(self, part, cnn, features_of):
        output = head_of(cnn, full_passes=True)(features_of(cnn, 3), part)
        assert len(output.all_scores()) == 4
        assert all(scores.requires_grad for scores in output.all_scores())

    @pytest.mark.parametrize("full", [False, True])
    def test_scores_do_not_depend_on_the_part(self, full, cnn, features_of):
        head, features = head_of(cnn, full_passes=full), features_of(cnn, 3)
        whole = head(features)
        for part in ALL[1:]:
            output = head(features, part)
            for ours, theirs in zip(output[0], whole[0], strict=True):
                assert ours is None or torch.equal(ours, theirs)
            assert output.concat_scores is None or torch.equal(output.concat_scores, whole.concat_scores)

    def test_the_first_teaches_e3_alone(self, cnn, features_of):
        head, features = head_of(cnn), features_of(cnn, 3)
        output = head(features, "e3")
        assert [scores.requires_grad for scores in output.expert_scores] == [False, False, True]
        assert not any(own_map.requires_grad for own_map in output.expert_maps)
        output.expert_scores[2].sum().backward()
        taught = {name.split(".")[1] for name, p in head.named_parameters() if p.grad is not None}
        assert taught == {"2"}
        assert [features.maps[index].grad is not None for index in (0, 1, 3)] == [False, False, True]

    def test_maps_are_detached_and_nothing_has_a_gradient_in_evaluation(self, cnn, features_of):
        head, features = head_of(cnn).eval(), features_of(cnn, 3)
        assert not any(own_map.requires_grad for own_map in head(features).expert_maps)
        with torch.no_grad():
            assert not any(scores.requires_grad for scores in head(features, "e3").all_scores())


class TestObjectives:
    @pytest.mark.parametrize("missing_grad", ["zero", "skip"])
    def test_are_five_in_the_order_of_the_paper(self, missing_grad, cnn, features_of):
        head, images = head_of(cnn, missing_grad=missing_grad), torch.randn(3, 3, 36, 36)
        generator = head.objectives(images, torch.tensor([0, 1, 2]))
        objective, found = next(generator), []
        while objective:
            found.append(objective)
            try:
                objective = generator.send(head(features_of(cnn, 3), objective.part))
            except StopIteration:
                break
        assert [o.name for o in found] == [o.part for o in found] == ["e3", "e2", "e1", "overall", "concat"]
        assert {o.missing_grad for o in found} == {missing_grad}
        assert found[0].images is images and found[4].images is images

    @pytest.mark.parametrize(("raw_share", "raw"), [(1.0, {True}), (0.0, {False}), (1 / 3, {True, False})])
    def test_the_share_of_raw_images_is_an_option(self, raw_share, raw, cnn):
        head, images = head_of(cnn, raw_share=raw_share), torch.randn(2, 3, 36, 36)
        box = torch.tensor([[1, 2, 20, 21]] * 2)
        assert {head._drawn(images, box, box) is images for _ in range(40)} == raw

    def test_regions_and_images_are_drawn_alike_often(self, cnn):
        head, images = head_of(cnn), torch.randn(1, 3, 4, 4)
        boxes = [torch.tensor([[0, 0, 1, 1]]), torch.tensor([[3, 3, 4, 4]])]
        torch.manual_seed(0)
        drawn = [head._drawn(images, *boxes) for _ in range(3000)]
        first = sum(torch.equal(d[0, :, 0, 0], images[0, :, 0, 0]) and d is not images for d in drawn)
        raw = sum(d is images for d in drawn)
        for count in (first, raw, 3000 - first - raw):
            assert abs(count - 1000) < 110  # four standard deviations


class TestPrediction:
    def test_looks_at_the_images_first(self, cnn, features_of):
        head, images, seen = head_of(cnn).eval(), torch.randn(3, 3, 36, 36), []

        def model(x, part=None):
            seen.append(x)
            return head(features_of(cnn, 3, seed=len(seen)), part)

        with torch.no_grad():
            scores = head.predict(model, images)
        assert len(seen) == 2 and seen[0] is images and seen[1].shape == images.shape
        assert scores.shape == (3, 5)

    def test_attention_is_between_0_and_1_at_the_size_of_the_images(self, cnn, features_of):
        head = head_of(cnn).eval()
        attention = head.attend(lambda x: head(features_of(cnn, 3)), torch.randn(3, 3, 36, 36))
        assert attention.expert_maps.shape == (3, 3, 36, 36) and attention.overall_map.shape == (3, 36, 36)
        assert attention.expert_boxes.shape == (3, 3, 4) and attention.overall_box.shape == (3, 4)
        for maps in (attention.expert_maps, attention.overall_map):
            assert maps.amin() == 0 and 0.99 < maps.amax() <= 1
        assert not attention.overall_map.requires_grad

    def test_the_gradient_of_a_score_reaches_the_first_pass(self, cnn, features_of):
        """Grad-CAM reads it there; the region is held fixed."""
        head, images = head_of(cnn).eval(), torch.randn(2, 3, 36, 36)
        passes = [features_of(cnn, 2, seed=seed) for seed in (0, 1)]
        waiting = iter(passes)
        head.predict(lambda x: head(next(waiting)), images)[:, 0].sum().backward()
        assert passes[0].maps[3].grad.abs().sum() > 0


class TestOptions:
    def test_are_read_as_toml(self):
        options = build(
            CmalOptions, {"threshold": 0.4, "missing_grad": "skip", "full_passes": True, "padding": 0}, "head"
        )
        assert (options.threshold, options.missing_grad, options.full_passes, options.padding) == (
            0.4,
            "skip",
            True,
            0.0,
        )

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"map_channels": 0}, "must be at least 1"),
            ({"threshold": 1.5}, "must be at least 0.0 and at most 1.0"),
            ({"padding": -0.1}, "must be at least 0.0"),
            ({"norm_momentum": 2}, "at most 1.0"),
            ({"raw_share": 1.1}, "at most 1.0"),
            ({"eps": 0}, "must be at least 1e-12"),
            ({"missing_grad": "sleep"}, "expected zero or skip"),
            ({"concat_weight": 0}, "head: concat_weight=0 leaves the concatenation untrained"),
        ],
    )
    def test_refuse(self, values, message):
        with pytest.raises(UsageError, match=message):
            build(CmalOptions, values, "head")

    def test_reach_what_they_name(self, cnn, features_of):
        images, features = torch.randn(3, 3, 36, 36), features_of(cnn, 3)

        def attention(**options):
            head = head_of(cnn, **options).eval()
            return head.attend(lambda x: head(features), images)

        usual = attention().overall_box
        assert not torch.equal(attention(threshold=0.9).overall_box, usual)
        assert not torch.equal(attention(padding=0.0).overall_box, usual)
        assert attention(threshold=0.0).overall_box.tolist() == [[0, 0, 36, 36]] * 3
        assert attention(eps=1e3).expert_maps.max() < 0.1
        norms = [m.momentum for m in head_of(cnn, norm_momentum=0.2).modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms == [0.2] * 6

    def test_the_concatenation_weighs_as_told(self, cnn, features_of):
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


@pytest.mark.parametrize("size", [160])
def test_a_vision_transformer_trains_and_predicts_with_a_note(size):
    torch.manual_seed(0)
    backbone = TimmBackbone("timm/test_vit", size, TimmOptions())
    head = CmalHead(backbone.info, 3, CmalOptions(**SMALL))
    backbone.prune(head.reads())
    (note,) = head.notes()
    assert "timm/test_vit" in note and "differ by depth" in note and "\n" not in note

    def model(images, part=None) -> CmalOutput:
        return head(backbone(images, head.reads(part)), part)

    images, targets = torch.randn(2, 3, size, size), torch.tensor([0, 2])
    generator = head.objectives(images, targets)
    objective, reached = next(generator), set()
    for _ in range(5):
        output = model(objective.images, objective.part)
        objective.loss(output).value.backward()
        reached |= {id(p) for p in (*backbone.parameters(), *head.parameters()) if p.grad is not None}
        objective = generator.send(output) if objective.name != "concat" else None
    trained = [p for p in (*backbone.parameters(), *head.parameters()) if p.requires_grad]
    assert reached == {id(p) for p in trained}
    for module in (backbone, head):
        module.eval()
    with torch.no_grad():
        assert head.predict(model, images).isfinite().all()
