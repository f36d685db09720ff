import torch
import torch.nn.functional as F
from torch import nn

from fgvc_cli.contracts import FittedHead, Loss, Objective, Reads
from fgvc_flawed.heads import Sound


class ReadsNone(Sound):
    def reads(self, part=None):
        return None


class ReadsTuple(Sound):
    def reads(self, part=None):
        return self.indices


class ReadsBeyond(Sound):
    def reads(self, part=None):
        return Reads((*self.indices, 9))


class ForwardNone(Sound):
    def forward(self, features, part=None):
        super().forward(features, part)


class FailsLater(Sound):
    calls = 0

    def forward(self, features, part=None):
        self.calls += 1
        return {}["second"] if self.calls > 2 else super().forward(features, part)


class YieldsNothing(Sound):
    def objectives(self, images, targets):
        yield from ()


class YieldsTensor(Sound):
    def objectives(self, images, targets):
        yield images


class YieldsNoImages(Sound):
    def objectives(self, images, targets):
        yield Objective(None, lambda scores: self.loss(scores, targets))


class ReturnsList(Sound):
    def objectives(self, images, targets):
        return [Objective(images, lambda scores: self.loss(scores, targets))]


class ReturnsNone(Sound):
    def objectives(self, images, targets):
        pass


class ObjectivesFail(Sound):
    def objectives(self, images, targets):
        yield Objective(images, lambda scores: self.loss(scores, targets))
        raise KeyError("second")


class Uneven(Sound):
    def objectives(self, images, targets):
        for _ in range(1 + int(targets.sum() % 2)):
            yield Objective(images, lambda scores: self.loss(scores, targets))


def with_loss(change):
    """Return a head whose loss is a function of scores and targets."""

    class Changed(Sound):
        def loss(self, scores, targets):
            return change(scores, F.cross_entropy(scores.float(), targets, reduction="none"))

    return Changed


bare_loss = with_loss(lambda scores, losses: losses.mean())
no_loss = with_loss(lambda scores, losses: None)
vector_loss = with_loss(lambda scores, losses: Loss(losses, scores))
number_as_loss = with_loss(lambda scores, losses: Loss(losses.mean().item(), scores))
detached_loss = with_loss(lambda scores, losses: Loss(losses.mean().detach(), scores))
wide_scores = with_loss(lambda scores, losses: Loss(losses.mean(), scores.repeat(1, 2)))
half_the_scores = with_loss(lambda scores, losses: Loss(losses.mean(), scores[::2]))
numbers_as_parts = with_loss(lambda scores, losses: Loss(losses.mean(), scores, {"half": 0.5}))
parts_as_list = with_loss(lambda scores, losses: Loss(losses.mean(), scores, [losses.mean()]))
loss_fails = with_loss(lambda scores, losses: losses.nothing)


class InPlace(Sound):
    def vectors(self, features):
        vectors = super().vectors(features).exp()
        vectors.mul_(2)
        return vectors


def predicting(change):
    """Return a head whose prediction is changed by a function."""

    class Changed(Sound):
        def predict(self, model, images):
            return change(model(images))

    return Changed


another_class = predicting(lambda scores: scores.repeat(1, 2))
an_image_less = predicting(lambda scores: scores[1:])
classes = predicting(lambda scores: scores.argmax(1))
predicts_none = predicting(lambda scores: None)
predicts_list = predicting(lambda scores: scores.tolist())
predict_fails = predicting(lambda scores: scores.nothing)


class NoteText(Sound):
    def notes(self):
        return "a note"


class NotesFail(Sound):
    def notes(self):
        raise KeyError("note")


class CamText(Sound):
    def cam_map(self):
        return "last"


class AttentionFlat(Sound):
    def attention(self, model, images):
        return images.flatten(1)


class LayerNumber(Sound):
    def embedding_layer(self):
        return 3


class PublishedDict(Sound):
    def published(self, state):
        return dict(state)


class FitsNothing(FittedHead):
    def __init__(self, backbone, classes, options):
        super().__init__(backbone, classes, options)
        self.classify = nn.Linear(backbone.embedding_width, classes)

    def reads(self, part=None):
        return Reads(embedding=True)

    def forward(self, features, part=None):
        return self.classify(features.embedding)

    def fit(self, train, val):
        torch.nn.init.zeros_(self.classify.bias)


class FitFails(FitsNothing):
    def fit(self, train, val):
        raise ArithmeticError("singular")


class Unbuilt(Sound):
    def __init__(self, backbone, classes, options):
        super().__init__(backbone, classes, options)
        1 / 0  # noqa: B018


def not_one(backbone, classes, options):
    return nn.Linear(3, classes)
