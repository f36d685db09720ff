"""Maps equal those of the package used directly; its progress bars are disabled."""

import pytest
import torch
from fgvc_cam_zoo.explainers import KpcaCam, ScoreCam
from fgvc_cam_zoo.options import CamOptions, ScoreCamOptions
from pytorch_grad_cam import KPCA_CAM, ScoreCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn

from fgvc_cli import UsageError
from fgvc_cli.contracts import Backbone as BackboneContract
from fgvc_cli.contracts import BackboneInfo, CamLayer, Classifier, Features, Head, MapInfo, Preprocessing, Reads

SIZE, CLASSES = 32, 3


class Backbone(BackboneContract):
    """One convolution with an output of layout B,C,H,W or B,H,W,C, or tokens after a class token."""

    def __init__(self, layout):
        super().__init__()
        self.convolve, self.layout = nn.Conv2d(3, 6, 3, 4, 1), layout
        self.out = nn.Identity()
        maps = (MapInfo(6, 4, (8, 8)),)
        self.info = BackboneInfo("one", "convolutional", SIZE, maps, 6, (0.5,) * 3, (0.5,) * 3)

    def forward(self, images, reads):
        points = self.convolve(images).relu()
        if self.layout == "BHWC":
            points = self.out(points.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        elif self.layout == "BNC":
            tokens = points.flatten(2).transpose(1, 2)
            tokens = self.out(torch.cat((tokens.mean(1, keepdim=True), tokens), 1))
            points = tokens[:, 1:].transpose(1, 2).unflatten(2, (8, 8))
        else:
            points = self.out(points)
        return Features({0: points}, None)

    def prune(self, reads):
        pass

    def cam_layer(self, map_index):
        return CamLayer(self.out, self.layout, prefix=1, grid=(8, 8))


class MeanHead(Head):
    def __init__(self):
        nn.Module.__init__(self)
        self.classify = nn.Linear(6, CLASSES)

    def reads(self, part=None):
        return Reads(maps=(0,))

    def forward(self, features, part=None):
        return self.classify(features.maps[0].mean((2, 3)))

    def objectives(self, images, targets):
        raise NotImplementedError


class Alone(nn.Module):
    """The same network as a single module."""

    def __init__(self, classifier):
        super().__init__()
        self.features = nn.Sequential(classifier.backbone.convolve, nn.ReLU())
        self.classify = classifier.head.classify

    def forward(self, images):
        return self.classify(self.features(images).mean((2, 3)))


@pytest.fixture(params=["BCHW", "BHWC", "BNC"])
def classifier(request):
    torch.manual_seed(0)
    preprocessing = Preprocessing(SIZE, SIZE, (0.5,) * 3, (0.5,) * 3)
    return Classifier(Backbone(request.param), MeanHead(), ["a", "b", "c"], preprocessing).eval()


@pytest.fixture
def images():
    return torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def directly(package, classifier, images, targets):
    model = Alone(classifier).eval()
    cam = package(model, [model.features])
    return torch.from_numpy(cam(images, [ClassifierOutputTarget(int(target)) for target in targets]))


def test_scorecam_equals_the_package(classifier, images, capfd):
    targets = torch.tensor([0, 2, 1])
    maps = ScoreCam(ScoreCamOptions(batch_size=4)).explain(classifier, images, targets)
    assert capfd.readouterr().err == ""
    torch.testing.assert_close(maps, directly(ScoreCAM, classifier, images, targets), atol=1e-4, rtol=0)
    assert maps.amax((1, 2)).min() > 0.5


def test_kpcacam_equals_the_package_up_to_sign(classifier, images):
    targets = torch.zeros(3, dtype=torch.int64)
    maps = KpcaCam(CamOptions()).explain(classifier, images, targets)
    theirs = directly(KPCA_CAM, classifier, images, targets)
    means = Alone(classifier).features(images).mean(1, keepdim=True).detach()
    activations = nn.functional.interpolate(means, (SIZE, SIZE), mode="bilinear")[:, 0]
    for own, other, activation in zip(maps, theirs, activations, strict=True):
        assert correlation(own, activation) > 0
        assert torch.allclose(own, other, atol=1e-4) or correlation(other, activation) < 0
    assert torch.equal(maps, KpcaCam(CamOptions()).explain(classifier, images, targets + 1))


def correlation(one, other):
    return torch.corrcoef(torch.stack((one.flatten(), other.flatten())))[0, 1]


def test_missing_map_is_refused(classifier):
    with pytest.raises(UsageError, match=r"explainer\.map=4: one has the maps 0"):
        KpcaCam(CamOptions(map=4)).check(classifier)


def test_hooks_are_removed_after_an_error(classifier, images, monkeypatch):
    def fail(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(classifier.head, "predict", fail)
    with pytest.raises(RuntimeError, match="broken"):
        ScoreCam(ScoreCamOptions()).explain(classifier, images, torch.tensor([0, 0, 0]))
    assert not classifier.backbone.out._forward_hooks
