from pathlib import Path

import numpy as np

from fgvc_cli.contracts import Split
from fgvc_flawed.datasets import Named, Sound


def splitting(change):
    """Return a dataset whose splits are changed by a function."""

    class Changed(Sound):
        def split(self, name):
            return change(super().split(name))

    return Changed


def having(**attributes):
    """Return a dataset with other attributes of its splits, computed from what they were."""

    def change(split):
        for name, of in attributes.items():
            setattr(split, name, of(getattr(split, name)))
        return split

    return splitting(change)


split_none = splitting(lambda split: None)
split_tuple = splitting(lambda split: (split.images, split.labels))
split_fails = splitting(lambda split: split["rows"])
negative_labels = having(labels=lambda labels: [label - 1 for label in labels])
text_labels = having(labels=lambda labels: ["ant" for _ in labels])
large_labels = having(labels=lambda labels: [label + 1 for label in labels])
fractional_labels = having(labels=lambda labels: [label / 2 for label in labels])
one_hot_labels = having(labels=lambda labels: np.eye(3)[labels])
no_labels = having(labels=lambda labels: None)
fewer_labels = having(labels=lambda labels: labels[1:])
fewer_keys = having(keys=lambda keys: keys[1:])
numbers_as_keys = having(keys=lambda keys: list(range(len(keys))))
same_keys = having(keys=lambda keys: [keys[0]] * len(keys))
fewer_parts = having(parts=lambda parts: parts[1:])
images_once = having(images=iter)
gray_images = having(images=lambda images: [image[:, :, 0] for image in images])
one_channel = having(images=lambda images: [image[:, :, :1] for image in images])
channels_first = having(images=lambda images: [image.transpose(2, 0, 1) for image in images])
float_images = having(images=lambda images: [image / 255 for image in images])
empty_images = having(images=lambda images: [image[:0] for image in images])
bytes_as_images = having(images=lambda images: [image.tobytes() for image in images])


class Rows:
    def __init__(self, images, found):
        self.images, self.found = images, found

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index] if index < 2 else self.found()


row_none = having(images=lambda images: Rows(images, lambda: None))
row_fails = having(images=lambda images: Rows(images, lambda: {}["bytes"]))
row_missing = having(images=lambda images: Rows(images, lambda: Path("nowhere.png").read_bytes()))


class TooFew(Sound):
    def split(self, name):
        split = super().split(name)
        return Split(name, split.images, split.labels[1:], split.keys)


def with_method(method, function):
    """Return a dataset with another method."""
    return type("Changed", (Sound,), {method: function})


splits_none = with_method("splits", lambda self: None)
splits_text = with_method("splits", lambda self: "train")
splits_empty = with_method("splits", lambda self: ())
identity_none = with_method("identity", lambda self: None)
identity_object = with_method("identity", lambda self: {"name": self})
ignored_none = with_method("ignored_files", lambda self: None)
taxonomy_dict = with_method("taxonomy", lambda self: {"ant": ("insect",)})
parts_as_list = with_method("deciding_parts", lambda self: ["wing"])
no_class_names = with_method("class_names", None)
class_names_text = with_method("class_names", "ant bee cat")
namesakes = with_method("class_names", ("ant", "bee", "bee"))
no_name = with_method("name", None)


class ProvisionText(Named):
    @classmethod
    def provision(cls, request, options):
        return "https://flawed.example"


class ProvisionFails(Named):
    @classmethod
    def provision(cls, request, options):
        raise KeyError("version")


class Unbuilt(Sound):
    def __init__(self, request, options):
        raise ValueError("no table")


def not_one(request, options):
    return Sound(request, options).split("train")
