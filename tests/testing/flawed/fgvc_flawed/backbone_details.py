from dataclasses import replace

import torch
from torch import nn

from fgvc_cli import UsageError
from fgvc_cli.contracts import CamLayer, Features, MapInfo, PretrainedWeights
from fgvc_flawed.backbones import Sound


class Saying(Sound):
    """What says something else of itself."""

    def __init__(self, name, image_size, options):
        super().__init__(name, image_size, options)
        self.info = self.said(self.info)


class Wordless(Saying):
    def said(self, info):
        return {"name": info.name}


class Recurrent(Saying):
    def said(self, info):
        return replace(info, architecture="recurrent")


class Gray(Saying):
    def said(self, info):
        return replace(info, std=(0.2,))


class DeepFirst(Saying):
    def said(self, info):
        return replace(info, maps=info.maps[::-1])


class BoastingStrides(Saying):
    def said(self, info):
        return replace(info, maps=tuple(MapInfo(m.channels, 8 * m.stride, m.grid) for m in info.maps))


class Tupled(Sound):
    def forward(self, images, reads):
        features = super().forward(images, reads)
        return features.maps, features.embedding


class WithoutEmbedding(Sound):
    def forward(self, images, reads):
        return Features(super().forward(images, reads).maps, None)


class Infinite(Sound):
    def pool(self, x):
        return super().pool(x) / 0


class ExtraState(Sound):
    def get_extra_state(self):
        return {"seen": 3}

    def set_extra_state(self, state):
        pass


class Tallying(Sound):
    def __init__(self, name, image_size, options):
        super().__init__(name, image_size, options)
        self.register_buffer("tally", torch.zeros(()))

    def forward(self, images, reads):
        self.tally += 1
        return super().forward(images, reads)


class Brittle(Sound):
    def check_size(self, image_size, name):
        1 / (image_size % 16 == 0)
        super().check_size(image_size, name)


class NamelessWeights(Sound):
    def pretrained(self, tag=None):
        return PretrainedWeights("", "")


class Swallowing(Sound):
    def pretrained(self, tag=None):
        return PretrainedWeights("sound.in1k", "")

    def load_weights(self, state):
        return None


class Rooted(Sound):
    """The root of 0 has an infinite slope."""

    def pool(self, x):
        return super().pool(x) + (0 * x).mean((2, 3)).abs().sqrt()


class Sizeless(Sound):
    def check_size(self, image_size, name):
        raise UsageError("no size will do")


class Asking(Sound):
    def prune(self, reads):
        super().prune(reads)
        self.stages[0].requires_grad_(torch.is_grad_enabled())


class Pointing(Sound):
    """What hooks another module than it should."""

    def __init__(self, name, image_size, options):
        super().__init__(name, image_size, options)
        self.side = nn.Conv2d(3, 4, 1)

    def cam_layer(self, map_index):
        return CamLayer(self.side, "BCHW")


class BareModule(Pointing):
    def cam_layer(self, map_index):
        return self.stages[-1 if map_index is None else map_index]


class StrangeModule(Pointing):
    def cam_layer(self, map_index):
        return CamLayer(nn.ReLU(), "BCHW")


class UnusedModule(Pointing):
    pass


class SideModule(Pointing):
    def forward(self, images, reads):
        self.side(images)
        return super().forward(images, reads)


class Pair(nn.Module):
    def forward(self, x):
        return x, x


class PairModule(Pointing):
    def __init__(self, name, image_size, options):
        super().__init__(name, image_size, options)
        self.side = Pair()

    def forward(self, images, reads):
        self.side(images)
        return super().forward(images, reads)
