import random
from pathlib import Path

from fgvc_cli import FgvcError
from fgvc_cli.contracts import Download, Provision
from fgvc_flawed.datasets import Named, Sound


class Listed(Sound):
    def splits(self):
        return ["train", "val"]


class NoSplit(Sound):
    def split(self, name):
        return [self.image(0)]


class MisnamedSplit(Sound):
    def split(self, name):
        split = super().split(name)
        split.name = "all"
        return split


class EmptySplit(Sound):
    counts = (("train", 9), ("val", 0))


class Numbered(Sound):
    class_names = (0, 1, 2)


class Single(Sound):
    class_names = ("ant",)


class OneHot(Sound):
    def labels(self, count):
        return [[1, 0, 0]] * count


class NumberKeys(Sound):
    def keys(self, count):
        return list(range(count))


class TextPaths(Sound):
    def image(self, index):
        return "photo.png"


class GoneFiles(Sound):
    def image(self, index):
        return Path("no-such-photo.png")


class OtherClasses(Sound):
    def __init__(self, request, options):
        super().__init__(request, options)
        self.class_names = tuple(f"{name}-{random.random()}" for name in Sound.class_names)


class OtherSplit(Sound):
    """A second look at a split is unlike the first."""

    seen = ()

    def split(self, name):
        split = super().split(name)
        if name in self.seen:
            split.keys = split.keys[::-1]
        self.seen = (*self.seen, name)
        return split


class PartsOfNone(Sound):
    def deciding_parts(self):
        return {"dog": ("wing",)}


class UnseenPart(Sound):
    def deciding_parts(self):
        return {"ant": ("tail",)}


class Anonymous(Sound):
    def identity(self):
        return {"seed": 0}


class OtherName(Sound):
    pass


class NoProvision(Sound):
    @classmethod
    def provision(cls, request, options):
        return "ask the author"


class Elsewhere(Sound):
    @classmethod
    def provision(cls, request, options):
        return Provision(Path("/nowhere"), ("list.txt",), by_hand="Ask for it.")


class Unobtainable(Sound):
    @classmethod
    def provision(cls, request, options):
        return Provision(request.root / "named", ("list.txt",))


class HalfLink(Sound):
    @classmethod
    def provision(cls, request, options):
        return Provision(request.root / "named", ("list.txt",), (Download("flawed.example/list.txt", "list.txt"),))


class Content(Named):
    pass


class Wordy(Named):
    def __init__(self, request, options):
        raise FgvcError("It is not here.\nLook elsewhere.")
