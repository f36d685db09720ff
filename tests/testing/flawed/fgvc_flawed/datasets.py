import contextlib
import random
import urllib.request
from pathlib import Path

import numpy as np

from fgvc_cli.contracts import Dataset, Download, Provision, Split


class Sound(Dataset):
    """Images of random noise."""

    name = "sound"
    class_names = ("ant", "bee", "cat")
    counts = (("train", 9), ("val", 3), ("test", 3))

    def __init__(self, request, options):
        self.request = request

    def splits(self):
        return tuple(name for name, _ in self.counts)

    def labels(self, count):
        return [index % 3 for index in range(count)]

    def keys(self, count):
        return [f"{index}.png" for index in range(count)]

    def image(self, index):
        drawn = np.random.default_rng(index)
        return drawn.integers(0, 256, (20, 24, 3), dtype=np.uint8)

    def first(self, name):
        return 100 * self.splits().index(name)

    def split(self, name):
        count, first = dict(self.counts)[name], self.first(name)
        images = [self.image(first + index) for index in range(count)]
        return Split(name, images, self.labels(count), self.keys(count), self.parts(count))

    def parts(self, count):
        return [{"wing": (0, 0, 10, 10)}] * count

    def deciding_parts(self):
        return dict.fromkeys(self.class_names, ("wing",))

    def identity(self):
        return {"name": self.request.folder.name if self.request.folder else "sound"}


def made(request, options):
    """A sound one, made by a function."""
    dataset = Sound(request, options)
    dataset.name = "made"
    return dataset


class TestFirst(Sound):
    counts = (("test", 3), ("train", 9))


class Downloading(Sound):
    def __init__(self, request, options):
        super().__init__(request, options)
        with contextlib.suppress(OSError):
            urllib.request.urlopen("http://flawed.example/list.txt", timeout=1)


class Namesakes(Sound):
    class_names = ("ant", "bee", "bee")


class Beyond(Sound):
    def labels(self, count):
        return [index % 4 for index in range(count)]


class AbsentClass(Sound):
    def labels(self, count):
        return [index % 2 for index in range(count)]


class OneKey(Sound):
    def keys(self, count):
        return ["image"] * count


class Floating(Sound):
    def image(self, index):
        return super().image(index).astype(np.float32)


class Shuffled(Sound):
    def keys(self, count):
        return random.sample(super().keys(count), count)


class Leaking(Sound):
    def split(self, name):
        folder = Path(self.request.folder) / ("train" if name == "test" else name)
        files = sorted(folder.rglob("*.png"))
        return Split(name, files, [i % 3 for i in range(len(files))], [f"{i}" for i in range(len(files))])

    def deciding_parts(self):
        return None


class Redrawn(Sound):
    """Draws each split from the same seed."""

    def first(self, name):
        return 0


class Outside(Sound):
    def parts(self, count):
        return [{"wing": (0, 0, 100, 10)}] * count


class Unspeakable(Sound):
    def identity(self):
        return {"name": "sound", "folder": Path()}


class Named(Sound):
    needed: tuple = ("list.txt",)
    checksum = ""

    @classmethod
    def provision(cls, request, options):
        download = Download("https://flawed.example/list.txt", "list.txt", checksum=cls.checksum)
        return Provision(request.root / "named", cls.needed, (download,))


class Needless(Named):
    needed = ()


class Unchecked(Named):
    checksum = "md5:12"


class Crashing(Named):
    def __init__(self, request, options):
        super().__init__(request, options)
        (request.root / "named" / "list.txt").read_text()


class Lonely(Sound):
    counts = (("train", 9), ("val", 3))

    def labels(self, count):
        return [0] * count


class Content(Named):
    pass
