from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from fgvc_cli.contracts import Features, PretrainedWeights
from fgvc_flawed.backbones import Sound


def changing(change):
    """Return a backbone whose features are changed by a function."""

    class Changed(Sound):
        def forward(self, images, reads):
            return change(super().forward(images, reads))

    return Changed


def with_maps(change):
    return changing(lambda f: Features({i: change(m) for i, m in f.maps.items()}, f.embedding))


returns_tuple = changing(tuple)
returns_none = changing(lambda features: None)
maps_in_list = changing(lambda f: Features(list(f.maps.values()), f.embedding))
lacks_a_map = changing(lambda f: Features({i: m for i, m in f.maps.items() if i != 3}, f.embedding))
other_channels = with_maps(lambda m: m.repeat(1, 2, 1, 1))
tokens = with_maps(lambda m: m.flatten(2).transpose(1, 2))
other_grid = with_maps(lambda m: nn.functional.avg_pool2d(m, 2))
fewer_images = with_maps(lambda m: m[1:])
lists_as_maps = with_maps(lambda m: m.tolist())
no_embedding = changing(lambda f: Features(f.maps, None))
wide_embedding = changing(lambda f: Features(f.maps, f.embedding.repeat(1, 2)))


class FailsLater(Sound):
    calls = 0

    def forward(self, images, reads):
        self.calls += 1
        return {}["second"] if self.calls > 1 else super().forward(images, reads)


def informing(change):
    """Return a backbone whose description is changed by a function."""

    class Changed(Sound):
        def __init__(self, name, image_size, options):
            super().__init__(name, image_size, options)
            self.info = change(self.info)

    return Changed


no_info = informing(lambda info: None)
other_size = informing(lambda info: replace(info, image_size=224))
maps_as_list = informing(lambda info: replace(info, maps=list(info.maps)))
maps_as_numbers = informing(lambda info: replace(info, maps=(8, 12, 16, 20)))
no_normalization = informing(lambda info: replace(info, mean=None))
no_width = informing(lambda info: replace(info, embedding_width=None))


class PruneFails(Sound):
    def prune(self, reads):
        raise KeyError("neck")


class DepthsLack(Sound):
    def layer_depths(self, unit):
        return {}


class DepthsFail(Sound):
    def layer_depths(self, unit):
        raise IndexError(unit)


class CamModule(Sound):
    def cam_layer(self, map_index):
        return self.stages[-1]


class CamFails(Sound):
    def cam_layer(self, map_index):
        raise AttributeError("stage5")


class Pretrained(Sound):
    def pretrained(self, tag=None):
        return PretrainedWeights("sound.in1k", "https://flawed.example/sound.pth", Path(__file__), "mit")

    def fetch(self, weights):
        return {"neck.bias": torch.zeros(10)}

    def load_weights(self, state):
        self.load_state_dict(state, strict=False)


class PretrainedText(Sound):
    def pretrained(self, tag=None):
        return "sound.in1k"


class FetchesList(Pretrained):
    def fetch(self, weights):
        return [torch.zeros(10)]


class FetchFails(Pretrained):
    def fetch(self, weights):
        raise ZeroDivisionError("bytes")


class SmallInfo(Sound):
    def info_at(self, image_size):
        return None


class Unbuilt(Sound):
    def __init__(self, name, image_size, options):
        raise ZeroDivisionError("stride")


def not_one(name, image_size, options):
    return nn.Linear(3, 3)
