"""From settings to everything a training needs: data, classifier and optimizer."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from fgvc_cli.config.layering import Layer
from fgvc_cli.config.run_config import Choice, RunConfig, resolve
from fgvc_cli.config.train_options import TrainOptions
from fgvc_cli.contracts import (
    Backbone,
    Classifier,
    Dataset,
    FittedHead,
    Head,
    Optimizer,
    ParameterGroup,
    Preprocessing,
    Taxonomy,
)
from fgvc_cli.data.cache.policy import TrainingCache, training_cache
from fgvc_cli.data.grouping import warn_of_shared_groups
from fgvc_cli.data.opening import open_run_dataset
from fgvc_cli.data.splits import TrainingSplits, training_splits
from fgvc_cli.data.taxonomy import taxonomy_of
from fgvc_cli.devices import Precision, pick_device, resolve_precision
from fgvc_cli.enforcement import make
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.registry import Registry
from fgvc_cli.runs import model_file
from fgvc_cli.runs.model_file import build_backbone, build_head, save_classifier
from fgvc_cli.specs import HeadSpec
from fgvc_cli.training.checkpointing import checkpoint_activations
from fgvc_cli.training.class_balance import ClassBalance, class_balance
from fgvc_cli.training.distributed import SINGLE_PROCESS, Ranks
from fgvc_cli.training.freezing import Freezing
from fgvc_cli.training.lora import Adapters, add_adapters
from fgvc_cli.training.progressive import ImageSizeSchedule, image_size_schedule
from fgvc_cli.training.teacher import Teacher, load_teacher
from fgvc_cli.training.weights.choice import apply, choose
from fgvc_cli.training.weights.parts import TargetHead, load_file

logger = logging.getLogger(__name__)

WITH_WEIGHTS, WITHOUT_WEIGHTS, FITTED = "finetune", "scratch", "probe"
"""Default recipes: with and without pretrained weights, and of heads that are fitted to features."""

OF_EPOCHS = (
    "freeze",
    "freeze_epochs",
    "unfreeze_epochs",
    "progressive_size",
    "batch_norm",
    "head_init",
    "layer_decay",
    "ema",
    "average_epochs",
    "patience",
    "checkpoint_activations",
)
"""Settings of epochs that a recipe may choose, and that mean nothing to a head that is fitted at once."""

OF_OBJECTIVES = ("teacher", "lora_rank", "class_weights", "logit_adjustment")
"""Settings of objectives and backbone that are refused with such a head."""


@dataclass(frozen=True)
class Job:
    """A training that is ready to start.

    Attributes:
        config: every setting, resolved.
        dataset, splits: the images.
        classifier: on its device, in the memory format it trains in.
        optimizer: of its parameters.
        freezing: which of them train, by epoch.
        sizes: of the training images, by epoch.
        device, precision: of the computation.
        weights: one line on what the weights are initialized from, and why.
        notes: lines a user should know before training.
        ranks: the processes that train.
        teacher: whose predictions are part of the targets; None without.
        adapters: in the backbone; None without LoRA.
        balance: how the loss depends on the size of classes.
        taxonomy: groups of the classes; training does not use it.
    """

    config: RunConfig
    dataset: Dataset
    splits: TrainingSplits
    classifier: Classifier
    optimizer: Optimizer
    freezing: Freezing
    sizes: ImageSizeSchedule
    device: torch.device
    precision: Precision
    weights: str
    notes: list[str] = field(default_factory=list)
    ranks: Ranks = SINGLE_PROCESS
    teacher: Teacher | None = None
    adapters: Adapters | None = None
    balance: ClassBalance = field(default_factory=ClassBalance)
    taxonomy: Taxonomy | None = None

    @property
    def batch_size(self) -> int:
        """Number of images per forward pass of each process."""
        train = self.config.train
        return train.batch_size // self.ranks.count if train.split_batches else train.batch_size

    @property
    def images_per_update(self) -> int:
        """Number of images per update, over all processes."""
        return self.batch_size * self.config.train.grad_accum_steps * self.ranks.count

    @property
    def rate_scale(self) -> float:
        """Factor of the learning rates (`train.lr_scaling`): an update has so many times the images of one process."""
        train = self.config.train
        if train.lr_scaling == "none":
            return 1.0
        return self.images_per_update / (train.batch_size * train.grad_accum_steps)

    def save_model(self, path: Path, document: dict[str, Any]) -> None:
        """Write the classifier as it is now to a model file, adapters merged; `document` as in `save_classifier`."""
        save_classifier(path, self.classifier if self.adapters is None else self.adapters.merged(), document)


@dataclass(frozen=True)
class Draft:
    """Settings before it is known which weights are available.

    Attributes:
        config: settings to use if the requested weights are available.
        settings, recipe: of the user, to resolve again if they are not.
        facts: for the conditions of the recipe.
        weights: as requested.
    """

    config: RunConfig
    settings: Sequence[Layer]
    recipe: str | None
    facts: dict[str, str]
    weights: str


@dataclass(frozen=True)
class Plan:
    """Settings with the weights decided, and the backbone that has them.

    Attributes:
        config: every setting.
        backbone: built for it.
        weights: one line on what they are initialized from, and why.
        file: weights (`path` or `path#key`) to load into the backbone and, once it is built, the head.
    """

    config: RunConfig
    backbone: Backbone
    weights: str
    file: str | None = None


def draft(settings: Sequence[Layer], recipe: str | None, registry: Registry) -> Draft:
    """Resolve the settings of a new training as far as they do not depend on which weights are available."""
    train = {name: value for layer in settings for name, value in layer.get("train", {}).items()}
    wanted, device = str(train.get("weights", "auto")), pick_device(str(train.get("device", "auto")))
    facts = {"device": device.type, "weights": "none" if wanted == "none" else "pretrained"}
    names = [layer["head"]["name"] for layer in settings if "name" in layer.get("head", {})]
    if recipe is None and names and cast(HeadSpec, registry.find("head", str(names[-1])).spec).fitted:
        recipe = FITTED
    base = recipe or (WITHOUT_WEIGHTS if wanted == "none" else WITH_WEIGHTS)
    return Draft(resolve(settings, base, facts, registry), settings, recipe, facts, wanted)


def plan_new(first: Draft, offline: bool, registry: Registry) -> Plan:
    """Choose the weights of a new training, and load published ones.

    The availability of weights decides the default recipe, and may decide settings of any recipe. The choice is logged
    before a download, with name and size.
    """
    backbone = _backbone(first.config)
    choice = choose(backbone, first.weights, offline)
    logger.info(choice.text)
    if unused := _unused(first, registry):
        logger.info(f"head {first.config.head.name} is fitted at once and does not use {', '.join(unused)}")
    if choice.file is not None:
        file = str(Path(choice.file).absolute())
        return Plan(first.config.with_train(weights=file), backbone, choice.text, file)
    if apply(choice, backbone) is not None:
        weights = "imagenet" if first.weights == "auto" else first.weights
        return Plan(first.config.with_train(weights=weights), backbone, choice.text)
    if first.facts["weights"] == "none":
        return Plan(first.config.with_train(weights="none"), backbone, choice.text)
    without = {**first.facts, "weights": "none"}
    config = resolve(first.settings, first.recipe or WITHOUT_WEIGHTS, without, registry)
    return Plan(config.with_train(weights="none"), _backbone(config), choice.text)


def _unused(first: Draft, registry: Registry) -> list[str]:
    """Return the settings of epochs, optimizer and augmentation that the user chose for a head without epochs."""
    config = first.config
    if not cast(HeadSpec, config.head.component.spec).fitted or not config.train.epochs:
        return []
    chosen = config.as_layer()
    components = {kind: {"name": chosen[kind]["name"]} for kind in ("backbone", "head")}
    by_recipe = resolve([components], config.recipe, first.facts, registry).as_layer()
    names = {"train": ("epochs", *OF_EPOCHS), "augment": chosen["augment"]}
    unused = [
        f"`{section}.{name}={chosen[section][name]}`"
        for section in names
        for name in names[section]
        if chosen[section][name] != by_recipe[section].get(name)
    ]
    return [*unused, "the optimizer"] if chosen["optimizer"] != by_recipe["optimizer"] else unused


def plan_resumed(
    settings: Sequence[Layer], recipe: str | None, saved_weights: str | None, registry: Registry, offline: bool
) -> Plan:
    """Use the settings and the recipe of a run folder unchanged.

    Weights are loaded only if there is no saved state yet, whose line on them is `saved_weights`.
    """
    config = resolve(settings, recipe or WITHOUT_WEIGHTS, {}, registry)
    backbone = _backbone(config)
    if saved_weights is not None:
        return Plan(config, backbone, saved_weights)
    choice = choose(backbone, config.train.weights, offline)
    apply(choice, backbone)
    return Plan(config, backbone, choice.text, choice.file)


def open_splits(config: RunConfig) -> tuple[Dataset, TrainingSplits]:
    """Open the dataset of a configuration and its splits; without a validation split, part of train is held out."""
    dataset = open_run_dataset(config)
    if config.train.group_by is not None:
        warn_of_shared_groups([dataset.split(name) for name in dataset.splits()])
    return dataset, training_splits(dataset, config.train)


def prepare(
    plan: Plan, dataset: Dataset, splits: TrainingSplits, ranks: Ranks = SINGLE_PROCESS, state: Path | None = None
) -> Job:
    """Build classifier and optimizer.

    Args:
        plan: the settings, and the backbone.
        dataset, splits: the images.
        ranks: the processes that train.
        state: saved by the run that is resumed, if there is one.

    Raises:
        UsageError: components, sizes and settings do not fit together.
        FgvcError: weights cannot be loaded.
    """
    config = plan.config
    if cast(HeadSpec, config.head.component.spec).fitted and config.train.epochs:
        given = [name for name in OF_OBJECTIVES if getattr(config.train, name) != getattr(TrainOptions(), name)]
        if given:
            raise UsageError(
                f"`train.{given[0]}={getattr(config.train, given[0])}`: head {config.head.name} is fitted to features "
                "of a backbone that stays as it is; leave it out, or use `head=linear`"
            )
        unused = {name: getattr(TrainOptions(), name) for name in OF_EPOCHS}
        config = config.with_train(epochs=1, **unused)
    train = config.train
    if not train.epochs and plan.file is None:
        raise UsageError("`epochs=0` creates a run from a weights file without training; pass one as `weights`")
    device = ranks.device(pick_device(train.device))
    precision = resolve_precision(train.precision, device)
    taxonomy = taxonomy_of(dataset, None if train.taxonomy is None else Path(train.taxonomy))
    torch.manual_seed(train.seed)
    head = build_head(config.head.component, config.head.options, plan.backbone, len(dataset.class_names))
    if train.head_init == "probe" and head.embedding_layer() is None:
        raise UsageError(
            f"`train.head_init=probe`: head {config.head.name} has no linear layer on the backbone's embedding that a "
            "regression could initialize; use `train.head_init=random`, or `head=linear`"
        )
    if state is not None and state.is_file():
        adapt(head, state)
    preprocessing = _preprocessing(config, plan.backbone)
    weights, notes = plan.weights, head.notes()
    if plan.file is not None:
        into = TargetHead(head, config.head.component, config.head.options, dataset.class_names, preprocessing)
        before = [value.clone() for value in head.state_dict().values()]
        lines = load_file(plan.file, plan.backbone, into, train.partial_weights)
        if not all(map(torch.equal, before, head.state_dict().values())):
            config = config.with_train(head_init="random")  # the file's head is worth more than a probe
        elif not train.epochs and train.head_init == "random":
            lines.append(f"{into.title} has random weights and is not trained (`epochs=0`): its scores mean nothing")
        weights, notes = " ".join([weights, *(f"{line}." for line in lines)]), [*notes, *lines]
    classifier = Classifier(plan.backbone, head, dataset.class_names, preprocessing)
    adapters = add_adapters(classifier, train)
    notes.extend([] if adapters is None else [adapters.note])
    formatted = classifier.to(device)
    teacher = load_teacher(train, classifier, config.head.name, precision)
    notes.extend([] if teacher is None else [teacher.note])
    balance = class_balance(train, classifier, config.head.name, splits.train.labels)
    if wants_channels_last(config, plan.backbone):
        formatted = formatted.to(memory_format=torch.channels_last)
    checkpoint_activations(classifier, train)
    freezing = Freezing(train, formatted)
    _check_division(train, ranks)
    check_batch(classifier, train.batch_size // ranks.count if train.split_batches else train.batch_size, freezing)
    optimizer = build_optimizer(config.optimizer, formatted, train.layer_decay)
    if train.lr_scaling != "none" and not optimizer.linear_scaling:
        raise UsageError(
            f"`train.lr_scaling={train.lr_scaling}`: the rule is derived for SGD, and the optimizer is "
            f"{config.optimizer.title}; set the learning rate yourself (`lr`), or use `optimizer=sgd`"
        )
    sizes = image_size_schedule(config, formatted)
    notes.extend([*freezing.notes(), *sizes.notes(), *_notes_on_rates(optimizer, freezing)])
    return Job(
        config,
        dataset,
        splits,
        formatted,
        optimizer,
        freezing,
        sizes,
        device,
        precision,
        weights,
        notes,
        ranks,
        teacher,
        adapters,
        balance,
        taxonomy,
    )


def open_cache(job: Job) -> TrainingCache:
    """Open the cache of decoded images; the first process reserves the space for all.

    Raises:
        FgvcError: the cache is required (train.cache=on) and cannot be used.
    """
    config, splits = job.config, job.splits
    if isinstance(job.classifier.head, FittedHead):  # its images are read once, and their features kept
        return TrainingCache()
    with job.ranks.first_process_first():
        return training_cache(
            config.train.cache, job.dataset, splits.train, splits.val, job.classifier.preprocessing, config.augment
        )


def adapt(head: Head, state: Path) -> None:
    """Load the head of a saved state, before there is an optimizer: loading may change the modules of the head.

    PIM then has the modules that an earlier version trained.
    """
    prefix = "model.head."
    found, _ = model_file.load(state, prefix=prefix)
    with suppress(RuntimeError):  # loading the whole state reports what does not match
        head.load_state_dict({name.removeprefix(prefix): value for name, value in found.items()})


def build_optimizer(choice: Choice, classifier: Classifier, layer_decay: float = 1.0) -> Optimizer:
    """Build an optimizer, and its base optimizer if it has one, for the parameters of a classifier.

    Args:
        choice: the optimizer and its options.
        classifier: on its device.
        layer_decay: learning rate of each layer of the backbone, as a fraction of that of the next one.

    Raises:
        UsageError: the learning rates of layers differ, and the optimizer does not support that.
        FgvcError: they differ, and the backbone does not say how deep its layers are.
    """
    backbone = [ParameterGroup("backbone", dict(classifier.backbone.named_parameters()))]
    if layer_decay != 1:
        backbone = _by_layer(classifier.backbone, layer_decay)
    optimizer = _of_groups(choice, [*backbone, ParameterGroup("head", dict(classifier.head.named_parameters()))])
    if layer_decay != 1 and not optimizer.scales_rates:
        raise UsageError(
            f"`train.layer_decay={layer_decay}`: the optimizer {choice.title} has one learning rate for the whole "
            "backbone; choose another one, or set `train.layer_decay=1`"
        )
    return optimizer


def _notes_on_rates(optimizer: Optimizer, freezing: Freezing) -> list[str]:
    """Return a line if learning rates of 0 keep weights but not what else changes in training."""
    backbone = set(freezing.classifier.backbone.modules())
    adapting = [m for m in freezing.ever_in_training_mode() if isinstance(m, _BatchNorm) and m in backbone]
    if optimizer.rates().get("backbone") != 0 or not adapting:
        return []
    return [
        "the learning rate of the backbone is 0: its weights stay, but its batch-norm statistics adapt to the images; "
        "`train.batch_norm=fixed` keeps these too"
    ]


def _by_layer(backbone: Backbone, decay: float) -> list[ParameterGroup]:
    """Return a parameter group for each layer, shallow first; the deepest one has the full learning rate.

    Reference: Howard, Ruder 2018, arXiv 1801.06146 (a rate for each layer); Bao et al. 2022, BEiT, arXiv 2106.08254.
    """
    try:
        depths = backbone.layer_depths("block")
    except FgvcError as error:
        raise FgvcError(f"`train.layer_decay={decay}`: {error}; set `train.layer_decay=1`") from error
    layers: list[dict[str, nn.Parameter]] = [{} for _ in range(max(depths.values()) + 1)]
    for name, parameter in backbone.named_parameters():
        layers[depths[name]][name] = parameter
    deepest = len(layers) - 1
    return [ParameterGroup("backbone", layer, decay ** (deepest - depth)) for depth, layer in enumerate(layers)]


def wants_channels_last(config: RunConfig, backbone: Backbone) -> bool:
    """Return whether a classifier with this backbone is trained in the channels-last memory format."""
    wanted = config.train.channels_last
    return wanted == "on" or (wanted == "auto" and backbone.info.channels_last)


def _check_division(train: TrainOptions, ranks: Ranks) -> None:
    """Raise `UsageError` if `train.split_batches` cannot divide the batch among the processes."""
    size, count = train.batch_size, ranks.count
    if train.split_batches and size % count:
        near = max(count, round(size / count) * count)
        raise UsageError(
            f"`batch_size={size}` cannot be divided among {count} processes (`train.split_batches=true`); use "
            f"`batch_size={near}`"
        )


def check_batch(classifier: Classifier, batch_size: int, freezing: Freezing | None = None) -> None:
    """Refuse batches of one image if the classifier has batch normalization that does not keep its statistics.

    Raises:
        UsageError: the batch size is 1, and it has.
    """
    if batch_size != 1 or isinstance(classifier.head, FittedHead):
        return
    modules: Iterable[nn.Module] = classifier.modules() if freezing is None else freezing.ever_in_training_mode()
    if any(isinstance(module, _BatchNorm) for module in modules):
        raise UsageError(
            "`batch_size=1`: batch normalization cannot train on a single image; use `batch_size=2` or more and, if "
            "memory is short, a smaller `image_size`"
        )


def _backbone(config: RunConfig) -> Backbone:
    torch.manual_seed(config.train.seed)
    return build_backbone(config.backbone.component, config.backbone.options, config.train.image_size)


def _preprocessing(config: RunConfig, backbone: Backbone) -> Preprocessing:
    train, info = config.train, backbone.info
    resize = train.resize or round(train.image_size / train.crop_pct)
    if resize < train.image_size:
        raise UsageError(
            f"`train.resize={resize}` is smaller than the crop (`image_size={train.image_size}`); "
            f"use `train.resize={train.image_size}` or more, or a smaller `image_size`"
        )
    mean, std = train.mean or info.mean, train.std or info.std
    return Preprocessing(train.image_size, resize, mean, std, train.crop_mode, train.interpolation)


def _of_groups(choice: Choice, groups: Sequence[ParameterGroup]) -> Optimizer:
    over = {} if choice.base is None else {"base": _of_groups(choice.base, groups)}
    return make(choice.component, Optimizer, groups=groups, options=choice.options, **over)
