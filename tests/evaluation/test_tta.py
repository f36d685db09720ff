"""Test-time augmentation: which views are averaged, and how."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from fgvc_cli.contracts import Classifier, Preprocessing, Split
from fgvc_cli.data.views import Crops
from fgvc_cli.errors import UsageError
from fgvc_cli.registry import get_registry
from fgvc_cli.runs.model_file import (
    build_backbone,
    build_head,
    describe_classifier,
    describe_component,
    load_classifier,
    resize_classifier,
    save_classifier,
)
from fgvc_cli.scoring.model import InferenceSettings, load
from fgvc_cli.scoring.scores import score
from fgvc_cli.scoring.tta import further_sizes, parse_tta

OPTIONS = {
    "linear": {},
    "pim": {"fpn_size": 8, "num_selects": 2},
    "cmal": {"expert_width": 8, "map_channels": 8, "hidden_width": 8},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A function that returns the model file of a random classifier for images of 64 px."""
    files = {}

    def save(backbone_name, head_name, resize=72, crop_mode="center", **options):
        key = backbone_name, head_name, resize, crop_mode, *options.items()
        if key not in files:
            torch.manual_seed(1)
            registry = get_registry()
            found = {"backbone": backbone_name, "head": head_name}
            parts = {kind: registry.find(kind, name) for kind, name in found.items()}
            chosen = {"backbone": {}, "head": OPTIONS[head_name] | options}
            made = {kind: part.options_type()(**chosen[kind]) for kind, part in parts.items()}
            backbone = build_backbone(parts["backbone"], made["backbone"], 64)
            head = build_head(parts["head"], made["head"], backbone, 3)
            for parameter in head.parameters():  # distinct probabilities for distinct views
                torch.nn.init.normal_(parameter, std=0.5)
            preprocessing = Preprocessing(64, resize, backbone.info.mean, backbone.info.std, crop_mode)
            classifier = Classifier(backbone, head, ("a", "b", "c"), preprocessing)
            components = {kind: describe_component(part, made[kind]) for kind, part in parts.items()}
            files[key] = tmp_path_factory.mktemp("model") / "model.safetensors"
            save_classifier(files[key], classifier, {"components": components, **describe_classifier(classifier)})
        return files[key]

    return save


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)
    blocks = [rng.integers(0, 256, (4, 5, 3), np.uint8) for _ in range(3)]
    images = [np.kron(block, np.ones((32, 32, 1), np.uint8)) for block in blocks]
    return Split("test", images, [0, 1, 2], ["0", "1", "2"])


def probabilities(model, split, tta=None):
    ready = load(model, InferenceSettings("cpu", "fp32", batch_size=2, workers=0, tta=tta))
    scores = score(ready.classifier, ready.loader(split), split, ready.precision, scores=ready.scores)
    assert scores.loss == pytest.approx(-np.log(scores.probabilities[range(3), range(3)]).mean(), rel=1e-5)
    return scores.probabilities


def by_hand(model, split, size, boxes):
    """Return probabilities of crops (left, top) of the resized images, each one and mirrored: N,V,2,K."""
    own = load_classifier(model)
    classifier = own if size == 64 else resize_classifier(own, model, size)
    rows = []
    for image in split.images:
        resized = classifier.preprocessing.resized(Image.fromarray(image))
        crops = [resized.crop((x, y, x + size, y + size)) for x, y in boxes(*resized.size)]
        pixels = torch.stack([torch.from_numpy(np.array(crop)).permute(2, 0, 1) for crop in crops])
        rows.append(torch.stack([classifier.probabilities(pixels), classifier.probabilities(pixels.flip(3))], dim=1))
    return torch.stack(rows).numpy()


def center(size):
    return lambda width, height: [((width - size) // 2, (height - size) // 2)]


def five(size):
    return lambda w, h: [((w - size) // 2, (h - size) // 2), (0, 0), (w - size, 0), (0, h - size), (w - size, h - size)]


@pytest.mark.parametrize("head", OPTIONS)
def test_flips_and_crops_are_averaged_as_probabilities(saved, split, head) -> None:
    model = saved("timm/test_resnet", head)
    views = by_hand(model, split, 64, five(64))
    assert views.std(axis=(1, 2)).max() > 1e-3
    assert probabilities(model, split) == pytest.approx(views[:, 0, 0], abs=1e-5)
    assert probabilities(model, split, "flip") == pytest.approx(views[:, 0].mean(1), abs=1e-5)
    assert probabilities(model, split, "crops") == pytest.approx(views[:, :, 0].mean(1), abs=1e-5)
    assert probabilities(model, split, "crops,flip") == pytest.approx(views.mean((1, 2)), abs=1e-5)


@pytest.mark.parametrize(("backbone", "head"), [("timm/test_resnet", "cmal"), ("timm/test_vit", "linear")])
def test_other_image_sizes_keep_the_weights(saved, split, backbone, head) -> None:
    model = saved(backbone, head)
    views = np.stack([by_hand(model, split, size, center(size))[:, 0] for size in (64, 32, 96)])
    assert probabilities(model, split, "sizes") == pytest.approx(views[:, :, 0].mean(0), abs=1e-5)
    assert probabilities(model, split, ["sizes", "flip"]) == pytest.approx(views.mean((0, 2)), abs=1e-5)


def test_a_head_that_depends_on_the_grid_takes_no_other_size(saved) -> None:
    with pytest.raises(UsageError, match=r"tta=sizes.*64 px.*32 px.*head\.combiner"):
        load(saved("timm/test_resnet", "pim", num_selects=32), InferenceSettings("cpu", tta="sizes"))


def test_crops_need_something_to_crop(saved) -> None:
    with pytest.raises(UsageError, match="tta=crops"):
        load(saved("timm/test_resnet", "linear", resize=64, crop_mode="squash"), InferenceSettings("cpu", tta="crops"))


def test_names() -> None:
    assert parse_tta("sizes, flip") == parse_tta(["flip", "sizes"]) == ("flip", "sizes")
    assert parse_tta(None) == parse_tta("none") == ()
    with pytest.raises(UsageError, match="tta=rotate"):
        parse_tta("flip,rotate")
    assert further_sizes(224) == (192, 256) and further_sizes(448) == (384, 512)


def test_five_crops_reach_every_corner() -> None:
    image = Image.fromarray(np.arange(30, dtype=np.uint8).reshape(5, 6)).convert("RGB")
    crops = Crops((), corners=True).of(image, Preprocessing(3, 5, (0.0,) * 3, (1.0,) * 3))[:, 0]
    assert crops[:, 0, 0].tolist() == [7, 0, 3, 12, 15]
    assert crops[:, 2, 2].tolist() == [21, 14, 17, 26, 29]
