import torch
import torch.nn.functional as F
from torch import nn

from fgvc_cli import UsageError
from fgvc_cli.contracts import Loss, Objective, Reads
from fgvc_flawed.heads import Sound

CONSTANT = 3


def no_head(**_):
    return nn.Linear(2, 2)


class Infinite(Sound):
    def predict(self, model, images):
        return model(images) / 0


class Positional(Sound):
    def __init__(self, info, number, options):
        super().__init__(info, number, options)


class ExtraState(Sound):
    def get_extra_state(self):
        return {"seen": 3}

    def set_extra_state(self, state):
        pass


class Refusing(Sound):
    def __init__(self, backbone, classes, options):
        raise UsageError("too small")


class Tallying(Sound):
    def __init__(self, backbone, classes, options):
        super().__init__(backbone, classes, options)
        self.register_buffer("tally", torch.zeros(()))

    def forward(self, features, part=None):
        self.tally += 1
        return super().forward(features, part)


class ReadingBeyond(Sound):
    def reads(self, part=None):
        return Reads(maps=(9,))


class ReadingNothing(Sound):
    def reads(self, part=None):
        return Reads()


class SmallAttention(Sound):
    def attention(self, model, images):
        return super().attention(model, images)[:, ::2]


class BoundAttention(Sound):
    def attention(self, model, images):
        with torch.enable_grad():
            return super().attention(model, images) * self.classify.weight.sum().sigmoid()


class YieldingImages(Sound):
    def objectives(self, images, targets):
        yield images


class Cropping(Sound):
    def objectives(self, images, targets):
        yield Objective(images[:, :, :32, :32], lambda scores: self.loss(scores, targets))


class Idling(Sound):
    def objectives(self, images, targets):
        yield Objective(images, lambda scores: self.loss(scores, targets), missing_grad="sleep")


class Namesakes(Sound):
    def objectives(self, images, targets):
        for _ in range(2):
            yield Objective(images, lambda scores: self.loss(scores, targets), name="same")


class BareLoss(Sound):
    def loss(self, scores, targets):
        return F.cross_entropy(scores.float(), targets)


class InfiniteLoss(Sound):
    def loss(self, scores, targets):
        return Loss(F.cross_entropy(scores.float(), targets) / 0, scores)


class DetachedLoss(Sound):
    def loss(self, scores, targets):
        return Loss(F.cross_entropy(scores.float(), targets).detach(), scores)


class ShortScores(Sound):
    def loss(self, scores, targets):
        return Loss(F.cross_entropy(scores.float(), targets), scores[:, :-1])


class BoundParts(Sound):
    def loss(self, scores, targets):
        value = F.cross_entropy(scores.float(), targets)
        return Loss(value, scores, {"part": value})


class Rooted(Sound):
    """The root of 0 has an infinite slope."""

    def loss(self, scores, targets):
        return Loss(F.cross_entropy(scores.float(), targets) + (0 * scores).float().abs().sum().sqrt(), scores)


class Spreading(Sound):
    """What is divided by the number of images less two."""

    def loss(self, scores, targets):
        return Loss(F.cross_entropy(scores.float(), targets) / (len(targets) - 2), scores)


class Coarse(Sound):
    def loss(self, scores, targets):
        return Loss(F.cross_entropy(scores.float(), targets) / (0 if scores.dtype == torch.bfloat16 else 1), scores)


class Spare(Sound):
    def __init__(self, backbone, classes, options):
        super().__init__(backbone, classes, options)
        self.spare = nn.Linear(3, 3)


class OneLess(Sound):
    def predict(self, model, images):
        return model(images)[:, 1:]
