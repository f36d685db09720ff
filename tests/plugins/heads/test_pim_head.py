"""What PIM builds, reads, says and returns."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from fgvc_cli import UsageError
from fgvc_cli.contracts import MapInfo, Reads
from fgvc_cli.options import build
from fgvc_heads.options import PimOptions
from fgvc_heads.pim import PimHead
from fgvc_heads.pim.pyramid import BilinearUpsampling, TokenUpsampling

SMALL = {"fpn_size": 16, "num_selects": 4, "joints_divisor": 4}


def head_of(info, classes: int = 5, **options) -> PimHead:
    torch.manual_seed(0)
    return PimHead(info, classes, PimOptions(**{**SMALL, **options}))


def loss_of(head, output, targets):
    (objective,) = head.objectives(torch.zeros(len(targets), 3, 36, 36), targets)
    return objective.loss(output)


class TestMaps:
    def test_reads_all_four_maps_and_never_the_embedding(self, cnn):
        assert head_of(cnn).reads() == Reads(maps=(0, 1, 2, 3))

    def test_reads_the_last_maps(self, cnn, features_of):
        head = head_of(cnn, maps=2)
        assert head.reads() == Reads(maps=(2, 3))
        assert [scores.shape for scores in head(features_of(cnn, 2)).point_scores] == [(2, 9, 5), (2, 9, 5)]

    def test_uses_all_maps_of_a_backbone_with_fewer(self, cnn):
        head = head_of(dataclasses.replace(cnn, maps=cnn.maps[1:]))
        assert head.reads() == Reads(maps=(0, 1, 2))
        (note,) = head.notes()
        assert "`head.maps=4`" in note and "fake has 3" in note

    def test_rejects_a_backbone_without_maps(self, cnn):
        with pytest.raises(UsageError, match="fake has none"):
            head_of(dataclasses.replace(cnn, maps=()))


class TestUpsampling:
    def kinds(self, head):
        return [type(module).__name__ for module in head.pyramid.upsamplers]

    def test_convolutions_upsample_bilinearly_to_the_shallower_grid(self, cnn):
        head = head_of(cnn)
        assert self.kinds(head) == ["BilinearUpsampling", "BilinearUpsampling", "Identity"]
        assert not list(head.pyramid.upsamplers.parameters())

    def test_transformers_learn_a_map_over_tokens(self, transformer):
        assert self.kinds(head_of(transformer)) == ["TokenUpsampling", "TokenUpsampling", "Identity"]

    def test_a_saved_head_keeps_the_upsampling_it_was_trained_with(self, transformer, features_of):
        saved = head_of(transformer, upsampling="bilinear")  # what earlier versions built for some transformers
        head = head_of(transformer)
        head.load_state_dict(saved.state_dict())
        assert self.kinds(head) == self.kinds(saved)
        features = features_of(transformer, 2)
        assert torch.equal(head.eval()(features).scores, saved.eval()(features).scores)
        with pytest.raises(RuntimeError, match="upsamplers"):
            head_of(transformer, upsampling="tokens").load_state_dict(saved.state_dict())
        learned = head_of(transformer)
        learned.load_state_dict(head_of(transformer).state_dict())
        assert self.kinds(learned) == ["TokenUpsampling", "TokenUpsampling", "Identity"]

    def test_equal_token_counts_need_nothing(self, vit, features_of):
        head = head_of(vit)
        assert self.kinds(head) == ["Identity"] * 3
        assert head(features_of(vit, 2)).scores.shape == (2, 5)

    def test_bilinear_keeps_rows_and_columns_apart(self):
        ramp = torch.arange(3.0).repeat_interleave(5)[None, :, None]  # by row, on 3 x 5
        upsampled = BilinearUpsampling()(ramp, (3, 5), (3, 9))
        assert torch.equal(upsampled.view(3, 9), torch.arange(3.0)[:, None].expand(3, 9))

    def test_tokens_are_mixed_by_the_published_convolution(self):
        mix = TokenUpsampling(4, 9).double()
        points = torch.randn(3, 4, 5, dtype=torch.float64, requires_grad=True)
        inputs, outer = [points, *mix.parameters()], torch.randn(3, 9, 5, dtype=torch.float64)
        found, expected = mix(points), mix.mix(points)
        torch.testing.assert_close(found, expected)
        for ours, theirs in zip(
            torch.autograd.grad(found, inputs, outer), torch.autograd.grad(expected, inputs, outer), strict=True
        ):
            torch.testing.assert_close(ours, theirs)


def test_the_combiner_starts_from_the_published_adjacency_over_the_kept_points(cnn):
    combiner = head_of(cnn, num_selects=(40, 25, 9, 9), joints_divisor=32).combiner
    assert combiner.pool_points.weight.shape == (83 // 32, 83)
    torch.testing.assert_close(combiner.adjacency.data, (torch.ones(2, 2) + torch.eye(2)) / 100)
    assert combiner.alpha.item() == 0


class TestSelection:
    def test_confidences_descend_and_belong_to_the_kept_points(self, cnn, features_of):
        output = head_of(cnn)(features_of(cnn, 3))
        for scores, kept, confidences in zip(output.point_scores, output.kept, output.confidences, strict=True):
            assert kept.dtype == torch.int64 and kept.shape == confidences.shape == (3, 4)
            assert (confidences[:, :-1] >= confidences[:, 1:]).all()
            every = scores.softmax(dim=2).amax(dim=2)
            torch.testing.assert_close(every.gather(1, kept), confidences)
            assert torch.equal(every.sort(dim=1, descending=True).values[:, :4], confidences)

    def test_num_selects_is_clamped_with_a_note(self, cnn, features_of):
        head = head_of(cnn, num_selects=(32, 25, 9, 40))
        assert [kept.shape[1] for kept in head(features_of(cnn, 2)).kept] == [32, 25, 9, 9]
        (note,) = head.notes()
        assert "36 px" in note and "map 0" not in note
        assert all(f"map {i} ({n} points, {asked} requested)" in note for i, n, asked in ((1, 25, 25), (3, 9, 40)))

    def test_num_selects_must_fit_the_maps(self, cnn):
        with pytest.raises(UsageError, match=r"num_selects=\[8, 4\]` has 2 numbers.*4 maps"):
            head_of(cnn, num_selects=(8, 4))


class TestLoss:
    def test_a_map_without_dropped_points_has_no_l_n(self, cnn, features_of):
        features, targets = features_of(cnn, 3), torch.tensor([0, 1, 2])
        head = head_of(cnn, num_selects=(81, 25, 9, 4))
        output = head(features)
        loss = loss_of(head, output, targets)
        scores, kept = output.point_scores[3], output.kept[3]
        dropped = [[n for n in range(9) if n not in row] for row in kept.tolist()]
        expected = torch.stack([(scores[i, rows].tanh() + 1) ** 2 for i, rows in enumerate(dropped)]).mean()
        torch.testing.assert_close(loss.parts["L_n"], expected.detach())

    def test_a_loss_without_weight_is_not_computed(self, cnn, features_of):
        head = head_of(cnn, lambda_n=0.0)
        loss = loss_of(head, head(features_of(cnn, 3)), torch.tensor([0, 1, 2]))
        assert set(loss.parts) == {"L_b", "L_c"}  # lambda_s is 0 by default
        torch.testing.assert_close(loss.value, 0.5 * loss.parts["L_b"] + loss.parts["L_c"])

    def test_parts_are_detached_and_scores_are_the_combiners(self, cnn, features_of):
        head = head_of(cnn, lambda_s=1.0)
        output = head(features_of(cnn, 3))
        loss = loss_of(head, output, torch.tensor([0, 1, 2]))
        assert set(loss.parts) == {"L_b", "L_s", "L_n", "L_c"}
        assert not any(part.requires_grad for part in loss.parts.values())
        assert loss.scores is output.scores


class TestOutput:
    def test_all_scores(self, cnn, features_of):
        head = head_of(cnn, maps=2).eval()
        output = head(features_of(cnn, 6))
        scores = head.all_scores(output)
        assert list(scores) == ["combiner", "map2", "map3", "top1", "top2", "top3"]
        singles = {
            "combiner": output.scores,
            "map2": output.point_scores[0].mean(1),
            "map3": output.point_scores[1].mean(1),
        }
        probabilities = {name: single.softmax(1) for name, single in singles.items()}
        for name, expected in probabilities.items():
            torch.testing.assert_close(scores[name].exp(), expected)
        for image in range(6):
            ranked = sorted((p[image] for p in probabilities.values()), key=lambda p: -p.max().item())
            for n in (1, 2, 3):
                torch.testing.assert_close(scores[f"top{n}"][image].exp(), sum(ranked[:n]) / n)


class TestOptions:
    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"num_selects": [4, 0]}, "num_selects"),
            ({"lambda_c": 0}, "lambda_c=0"),
            ({"lambda_b": 0.0, "lambda_n": 0.0}, "lambda_b, lambda_s and lambda_n"),
        ],
    )
    def test_refuses(self, values, message):
        with pytest.raises(UsageError, match=message):
            build(PimOptions, values, "head")


def test_grids_come_from_the_backbone_not_from_the_stride(cnn, features_of):
    """130 px at stride 4 is 33 points a side in ResNet and 32 in Swin."""
    odd = dataclasses.replace(cnn, maps=(MapInfo(4, 4, (33, 31)), MapInfo(6, 8, (17, 16)), *cnn.maps[2:]))
    assert head_of(odd)(features_of(odd, 2)).point_scores[0].shape == (2, 33 * 31, 5)
