import random
from dataclasses import replace

import torch
from torch import nn

from fgvc_cli.contracts import (
    Backbone,
    BackboneInfo,
    CamLayer,
    Features,
    ImageSizes,
    MapInfo,
    Reads,
)


class Sound(Backbone):
    """Four strided convolutions with norms, and a neck that pools."""

    channels = (8, 12, 16, 20)

    def __init__(self, name, image_size, options):
        super().__init__()
        self.check_size(image_size, name)
        pairs = zip((3, *self.channels), self.channels, strict=False)
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(i, o, 3, 2, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU()) for i, o in pairs
        )
        self.neck = nn.Linear(self.channels[-1], 10)
        self.scale = 1.0
        maps = tuple(MapInfo(c, 2 << i, (image_size // (2 << i),) * 2) for i, c in enumerate(self.channels))
        self.info = BackboneInfo(name, "convolutional", image_size, maps, 10, (0.5,) * 3, (0.25,) * 3)

    def check_size(self, image_size, name):
        ImageSizes(minimum=32, multiple=16).check(image_size, name)

    def depth(self, reads):
        return 4 if reads.embedding else max(reads.maps) + 1

    def forward(self, images, reads):
        x, maps = images, {}
        for index in range(self.depth(reads)):
            x = self.stages[index](x)
            if index in reads.maps:
                maps[index] = x * self.scale
        return Features(maps, self.neck(self.pool(x)) if reads.embedding else None)

    def pool(self, x):
        return x.mean((2, 3))

    def prune(self, reads):
        del self.stages[self.depth(reads) :]
        if not reads.embedding:
            self.neck = nn.Identity()

    def layer_depths(self, unit):
        last = len(self.stages) - 1
        return {n: int(n.split(".")[1]) if n.startswith("stages") else last for n, _ in self.named_parameters()}

    def cam_layer(self, map_index):
        return CamLayer(self.stages[-1 if map_index is None else map_index], "BCHW")


class Misnamed(Sound):
    def __init__(self, name, image_size, options):
        super().__init__("sound", image_size, options)


class Wide(Sound):
    def __init__(self, name, image_size, options):
        super().__init__(name, image_size, options)
        self.stages[3] = nn.Sequential(self.stages[3], nn.Conv2d(20, 24, 1))
        self.neck = nn.Linear(24, 10)


class Generous(Sound):
    def forward(self, images, reads):
        return super().forward(images, Reads(tuple(range(self.depth(reads))), reads.embedding))


class Relative(Sound):
    def pool(self, x):
        return super().pool(x) - x.mean((0, 2, 3))


class DiceWeights(Sound):
    def __init__(self, name, image_size, options):
        super().__init__(name, image_size, options)
        nn.init.constant_(self.neck.bias, random.random())


class Forgetful(Sound):
    def __init__(self, name, image_size, options):
        super().__init__(name, image_size, options)
        self.scale = float(torch.rand(())) + 0.5


class Exact(Sound):
    def pool(self, x):
        pooled = super().pool(x)
        return pooled + 0 * torch.from_numpy(pooled.detach().numpy())


class Viewing(Sound):
    def pool(self, x):
        return x.view(x.shape[0], -1).unflatten(1, (x.shape[1], -1)).mean(2)


class AnySize(Sound):
    def check_size(self, image_size, name):
        pass


class Anchored(Sound):
    """Keeps a tensor where no move of the model reaches it."""

    offsets = torch.zeros(20)

    def pool(self, x):
        return super().pool(x) + self.offsets


class Waiting(Sound):
    def pool(self, x):
        return super().pool(x) * (1 if x.max().item() < 1e6 else 0)


class Unpruned(Sound):
    def prune(self, reads):
        pass


class Hacked(Sound):
    def prune(self, reads):
        super().prune(reads)
        self.scale = 0.5
        if reads.embedding:
            nn.init.zeros_(self.neck.bias)


class Looking(Sound):
    def prune(self, reads):
        features = self(torch.zeros(2, 3, self.info.image_size, self.info.image_size), reads)
        used = [*features.maps.values(), *([] if features.embedding is None else [features.embedding])]
        sum(tensor.sum() for tensor in used).backward()
        for parameter in self.parameters():
            parameter.requires_grad_(parameter.grad is not None)
            parameter.grad = None


class FullSize(Sound):
    def info_at(self, image_size):
        return replace(self.info, image_size=image_size)


class UpsideDown(Sound):
    def layer_depths(self, unit):
        depths = super().layer_depths(unit)
        return {name: max(depths.values()) - depth for name, depth in depths.items()}


class Ungrouped(Sound):
    def layer_depths(self, unit):
        return {name: depth for name, depth in super().layer_depths(unit).items() if name.startswith("stages")}


class Mislaid(Sound):
    def cam_layer(self, map_index):
        return CamLayer(self.stages[-1 if map_index is None else map_index], "BNC", grid=(4, 4))


class Aside(Sound):
    def __init__(self, name, image_size, options):
        super().__init__(name, image_size, options)
        self.aside = nn.Identity()

    def forward(self, images, reads):
        self.aside(images)
        return super().forward(images, reads)

    def cam_layer(self, map_index):
        return CamLayer(self.aside, "BCHW")


class Narrow(Sound):
    """Gives several maps only in evaluation mode."""

    def forward(self, images, reads):
        if self.training and len(reads.maps) > 1 and not reads.embedding:
            raise RuntimeError("one map at a time")
        return super().forward(images, reads)


class Brittle(Sound):
    def check_size(self, image_size, name):
        1 / (image_size % 16 == 0)
        super().check_size(image_size, name)


class StrangeModule(Sound):
    def cam_layer(self, map_index):
        return CamLayer(nn.ReLU(), "BCHW")
