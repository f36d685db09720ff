import torch

from fgvc_flawed.explainers import Sound


def mapping(change):
    """Return an explainer whose maps are changed by a function."""

    class Changed(Sound):
        def explain(self, classifier, images, targets):
            return change(super().explain(classifier, images, targets))

    return Changed


returns_none = mapping(lambda maps: None)
returns_array = mapping(lambda maps: maps.numpy())
small_maps = mapping(lambda maps: maps[:, ::2, ::2])
one_map = mapping(lambda maps: maps[0])
channels = mapping(lambda maps: maps[:, None])
whole_numbers = mapping(lambda maps: (255 * maps).int())
not_a_number = mapping(lambda maps: maps / 0)
too_large = mapping(lambda maps: 255 * maps)
explain_fails = mapping(lambda maps: maps.nothing)


class CheckFails(Sound):
    def check(self, classifier):
        classifier.backbone.layer4  # noqa: B018


class NoteText(Sound):
    def notes(self, classifier):
        return "a note"


class Exits(Sound):
    def explain(self, classifier, images, targets):
        raise SystemExit(3)


class Unbuilt(Sound):
    def __init__(self, options):
        super().__init__(options)
        torch.load("nowhere.pt")


def not_one(options):
    return Sound
