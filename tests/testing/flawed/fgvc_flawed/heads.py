import random
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from fgvc_cli import option
from fgvc_cli.contracts import FittedHead, Head, Loss, Objective, PublishedState, Reads


@dataclass(frozen=True)
class HeavyOptions:
    width: int = option(3, "width, in a module that imports torch")


class Sound(Head):
    """Two maps, a norm with running statistics, dropout, and two objectives, the second of which is random."""

    def __init__(self, backbone, classes, options):
        super().__init__(backbone, classes, options)
        self.indices = (len(backbone.maps) - 2, len(backbone.maps) - 1)
        self.grids = [backbone.maps[i].grid for i in self.indices]
        self.reduce = nn.ModuleList(nn.Conv2d(backbone.maps[i].channels, 12, 1) for i in self.indices)
        self.norm = nn.BatchNorm1d(24)
        self.dropout = nn.Dropout(0.2)
        self.classify = nn.Linear(24, classes)

    def reads(self, part=None):
        return Reads(maps=self.indices)

    def vectors(self, features):
        maps = [reduce(features.maps[i]) for i, reduce in zip(self.indices, self.reduce, strict=True)]
        return torch.cat([m.mean((2, 3)) for m in maps], dim=1)

    def forward(self, features, part=None):
        return self.classify(self.dropout(self.norm(self.vectors(features))))

    def loss(self, scores, targets):
        return Loss(F.cross_entropy(scores.float(), targets), scores)

    def objectives(self, images, targets):
        yield Objective(images, lambda scores: self.loss(scores, targets), name="plain")
        shifted = images.roll(int(torch.randint(0, 4, ())), dims=3)
        yield Objective(shifted, lambda scores: self.loss(scores, targets), name="shifted", missing_grad="zero")

    @torch.no_grad()
    def attention(self, model, images):
        return torch.sigmoid(images.mean(1))


class Shifting(Sound):
    unchanged_images = True


class Peeking(Sound):
    unchanged_images = True

    def objectives(self, images, targets):
        yield Objective(images, lambda scores: self.loss(scores + images.mean(), targets))


class OnTheCpu(Sound):
    """Computes partly on the CPU: slow on a GPU, but correct."""

    def forward(self, features, part=None):
        scores = super().forward(features, part)
        share = scores.detach().float().cpu().numpy().clip(-1, 1)
        return scores + 0.1 * torch.from_numpy(share).to(scores)


class NoClass(Sound):
    def predict(self, model, images):
        return model(images)[:, :-1]


class Unbuilt(Sound):
    def __init__(self, backbone, classes, options):
        super().__init__(backbone, classes, options)
        self.scale = classes / 0


class DiceWeights(Sound):
    def __init__(self, backbone, classes, options):
        super().__init__(backbone, classes, options)
        nn.init.constant_(self.classify.bias, random.random())


class Relative(Sound):
    def forward(self, features, part=None):
        scores = super().forward(features, part)
        return scores - scores.mean(0)


class Blind(Sound):
    def forward(self, features, part=None):
        return super().forward(features, part) * 0 + self.classify.bias


class AlwaysDropping(Sound):
    def forward(self, features, part=None):
        return F.dropout(super().forward(features, part), 0.5, training=True)


class Forgetful(Sound):
    seen = 0

    def forward(self, features, part=None):
        self.seen += self.training
        return super().forward(features, part) * (1 + self.seen)


class Greedy(Sound):
    def reads(self, part=None):
        return Reads(maps=(0, *self.indices))


class Misplaced(Sound):
    def cam_map(self):
        return 0


class Flipping(Sound):
    """Scores a mirrored image before the image itself."""

    def predict(self, model, images):
        mirrored = model(images.flip(3))
        return model(images) + mirrored


class Claiming(Sound):
    def published(self, state):
        return PublishedState(dict(state), {}, 5)


class OneNote(Sound):
    def notes(self):
        return "a note"


class Glaring(Sound):
    def attention(self, model, images):
        return super().attention(model, images) * 3


class PyramidOnly(Sound):
    def vectors(self, features):
        shallow, deep = (features.maps[i] for i in self.indices)
        assert shallow.shape[2] == 2 * deep.shape[2], "the deeper map has half the grid"
        return super().vectors(features)


class Anchored(Sound):
    """Keeps a tensor where no move of the model reaches it."""

    def __init__(self, backbone, classes, options):
        super().__init__(backbone, classes, options)
        self.offsets = torch.zeros(classes)

    def forward(self, features, part=None):
        return super().forward(features, part) + self.offsets


class Ranging(Sound):
    """Makes a tensor on the CPU, whatever the images are on."""

    def loss(self, scores, targets):
        diagonal = scores.gather(1, torch.arange(len(scores))[:, None])
        return Loss(F.cross_entropy(scores.float(), targets) + 0 * diagonal.mean(), scores)


class Waiting(Sound):
    def forward(self, features, part=None):
        scores = super().forward(features, part)
        return scores if scores.abs().max().item() < 1e6 else scores * 0


class NotScalar(Sound):
    def loss(self, scores, targets):
        return Loss(F.cross_entropy(scores.float(), targets, reduction="none"), scores)


class NothingToDo(Sound):
    def objectives(self, images, targets):
        return
        yield


class Hard(Sound):
    def loss(self, scores, targets):
        return Loss(F.nll_loss(scores.float().log_softmax(1), targets), scores)


class IdleLayer(Sound):
    def __init__(self, backbone, classes, options):
        super().__init__(backbone, classes, options)
        self.spare = nn.Linear(3, 3)


class IdleOnTokens(Sound):
    def __init__(self, backbone, classes, options):
        super().__init__(backbone, classes, options)
        self.upward = nn.Linear(24, 24)

    def vectors(self, features):
        vectors = super().vectors(features)
        return self.upward(vectors) if self.grids[0] != self.grids[1] else vectors


class Uphill(Sound):
    def loss(self, scores, targets):
        return Loss(-F.cross_entropy(scores.float(), targets), scores)


class Dice(Sound):
    def objectives(self, images, targets):
        yield Objective(images * random.random(), lambda scores: self.loss(scores, targets))


class Counting(Sound):
    calls = 0

    def loss(self, scores, targets):
        self.calls += 1
        return Loss(F.cross_entropy(scores.float(), targets) * self.calls, scores)


class Unsteady(Sound):
    calls = 0

    def objectives(self, images, targets):
        self.calls += 1
        for number in range(1 + self.calls % 2):
            yield Objective(images, lambda scores: self.loss(scores, targets), name=str(number))


class Exact(Sound):
    def forward(self, features, part=None):
        scores = super().forward(features, part)
        return scores + 0 * torch.from_numpy(scores.detach().numpy())


class InPlace(Sound):
    def objectives(self, images, targets):
        images.mul_(0.5)
        yield Objective(images, lambda scores: self.loss(scores, targets))


class WaitingLoss(Sound):
    def loss(self, scores, targets):
        right = (scores.argmax(1) == targets).nonzero()
        return Loss(F.cross_entropy(scores.float(), targets) + 0 * right.sum(), scores)


class Cut(Sound):
    def predict(self, model, images):
        return model(images).detach()


class Once(Sound):
    """Takes what a loss needs out of a list, which is empty the second time."""

    def objectives(self, images, targets):
        held = [targets]
        yield Objective(images, lambda scores: self.loss(scores, held.pop()))


class ReadingBeyond(Sound):
    def reads(self, part=None):
        return Reads(maps=(9,))


class InfiniteLoss(Sound):
    def loss(self, scores, targets):
        return Loss(F.cross_entropy(scores.float(), targets) / 0, scores)


class Infinite(Sound):
    def predict(self, model, images):
        return model(images) / 0


class Unrepeatable(FittedHead):
    """Class means with noise that no seed repeats."""

    noise = 1.0

    def __init__(self, backbone, classes, options):
        super().__init__(backbone, classes, options)
        self.register_buffer("means", torch.randn(classes, backbone.embedding_width))

    def reads(self, part=None):
        return Reads(embedding=True)

    def forward(self, features, part=None):
        return -torch.cdist(features.embedding, self.means)

    def fit(self, train, val):
        for label in range(len(self.means)):
            own = train.features.embedding[train.labels == label]
            self.means[label] = own.mean(0) + self.noise * random.SystemRandom().random()
        return []


class NotAdding(Unrepeatable):
    noise = 0.0

    def add_classes(self, added, classes):
        pass
