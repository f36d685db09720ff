"""Settings that belong to no component: `[train]` and `[augment]`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fgvc_cli.options import option

MANY = 1_000_000
"""More than any training has of epochs, or of images in a batch."""
MAX_SEED = 2**63 - 1
"""Largest seed that torch takes."""


@dataclass(frozen=True)
class TrainOptions:
    """Settings of a training.

    Raises:
        ValueError: `mean` or `std` are not three numbers, or settings contradict each other.
    """

    weights: str = option(
        "auto", "initial weights: auto, imagenet, none, a file, or a tag of the backbone's published weights"
    )
    head_init: Literal["random", "probe"] = option(
        "random", "initial weights of the head; probe: logistic regression on the embedding of the initial backbone"
    )
    partial_weights: bool = option(False, "load a weights file that lacks many of the backbone's entries")
    epochs: int = option(30, "number of passes over the training images", minimum=0, maximum=MANY)
    batch_size: int = option(32, "images per forward pass, of each process", minimum=1, maximum=MANY)
    split_batches: bool = option(
        False, "with several processes: divide batch_size among them, so that an update has as many images as in one"
    )
    lr_scaling: Literal["none", "linear"] = option(
        "none",
        "with several processes: linear multiplies learning rates by how many times as many images an update has",
    )
    grad_accum_steps: int = option(
        1, "forward passes whose gradients are accumulated for one update", minimum=1, maximum=MANY
    )
    image_size: int = option(224, "side of the square input images in pixels", minimum=16, maximum=8192)
    progressive_size: int = option(
        0,
        "image size of the first epoch; it grows in equal steps and reaches image_size before the last third; 0: off",
        minimum=0,
        maximum=8192,
    )
    crop_pct: float = option(0.875, "fraction of the resized side that the crop keeps", minimum=0.1, maximum=1)
    resize: int = option(
        0,
        "side in pixels that images are resized to before the crop; 0: image_size / crop_pct",
        minimum=0,
        maximum=16384,
    )
    crop_mode: Literal["center", "squash"] = option(
        "center", "how images become square: center resizes the short side and crops, squash resizes both sides"
    )
    interpolation: Literal["bilinear", "bicubic"] = option("bilinear", "interpolation for resizing images")
    mean: tuple[float, float, float] | None = option(
        None, "per-channel mean of pixel values in [0, 1]; none: that of the backbone's weights", minimum=0
    )
    std: tuple[float, float, float] | None = option(
        None, "per-channel standard deviation of pixel values; none: that of the backbone's weights", minimum=0.001
    )
    schedule: Literal["constant", "cosine", "step"] = option("cosine", "learning-rate schedule")
    schedule_unit: Literal["step", "epoch"] = option("step", "whether the schedule advances per step or per epoch")
    cosine_over: Literal["rest", "all"] = option(
        "rest", "steps that the cosine spans: those after the warm-up, or all (it then ends above zero)"
    )
    step_epochs: int = option(
        10, "with schedule=step: epochs between two drops of the learning rate", minimum=1, maximum=MANY
    )
    step_factor: float = option(
        0.1, "with schedule=step: factor of each drop of the learning rate", minimum=0, maximum=1
    )
    warmup_epochs: float = option(0.0, "epochs of linear learning-rate warm-up", minimum=0, maximum=MANY)
    warmup_steps: int = option(
        0, "updates of linear learning-rate warm-up, instead of warmup_epochs", minimum=0, maximum=MANY
    )
    freeze: Literal["none", "half", "all"] | int = option(
        "none", "what to freeze of the backbone: none, all, or the stem and half or so many of its stages", minimum=1
    )
    freeze_epochs: int = option(0, "epochs after which frozen stages are unfrozen; 0: never", minimum=0, maximum=MANY)
    unfreeze_epochs: int = option(
        0,
        "epochs between unfreezing one stage and the next, deepest first (gradual unfreezing); 0: all at once",
        minimum=0,
        maximum=MANY,
    )
    batch_norm: Literal["batch", "fixed"] = option(
        "batch", "statistics in the backbone's batch norms: of each batch, or fixed at those of its initial weights"
    )
    lora_rank: int = option(
        0,
        "rank of low-rank adapters (LoRA) that train in place of the backbone's weights; 0: none",
        minimum=0,
        maximum=4096,
    )
    lora_alpha: float = option(16.0, "adapters are scaled by lora_alpha / lora_rank", minimum=0.001)
    lora_layers: Literal["linear", "linear+conv"] = option(
        "linear", "layers of the backbone with adapters: all linear layers, or 1x1 convolutions too"
    )
    label_smoothing: float = option(
        0.0, "fraction of the target distribution spread over all classes", minimum=0, maximum=1
    )
    taxonomy: str | None = option(
        None, "CSV file of the classes' groups, such as genus and family; none: as the dataset knows them"
    )
    teacher: str | None = option(
        None, "run folder or model file whose predictions are part of the targets (knowledge distillation); none: off"
    )
    teacher_weight: float = option(
        0.5, "weight of the teacher's predictions; the true classes have the rest", minimum=0, maximum=1
    )
    teacher_temperature: float = option(
        1.0, "temperature that softens the predictions of teacher and student for that term", minimum=0.1, maximum=100
    )
    class_weights: Literal["none", "inverse", "sqrt"] = option(
        "none",
        "class weights in the cross entropy: the inverse of the number of training images, or of its square root",
    )
    logit_adjustment: float = option(
        0.0, "tau: the log frequency of each class, times this, is added to its logit in training; 0: off", minimum=0
    )
    clip_norm: float = option(0.0, "maximum gradient norm of an update; 0: no clipping", minimum=0)
    layer_decay: float = option(
        1.0,
        "learning rate of each block of the backbone, as a fraction of that of the next deeper one; 1: all the same",
        minimum=0.01,
        maximum=1,
    )
    ema: float = option(
        0.0,
        "decay of an exponential moving average of the weights, which is validated and saved in their place; 0: off",
        minimum=0,
        maximum=0.999999,
    )
    average_epochs: int = option(
        0,
        "last epochs whose weights are averaged; the average is saved if it is better on validation data; 0: none",
        minimum=0,
        maximum=MANY,
    )
    patience: int = option(
        0, "epochs without a better validation top-1 before training stops; 0: never", minimum=0, maximum=MANY
    )
    min_delta: float = option(0.001, "smallest gain in top-1, a fraction, that counts for patience", minimum=0)
    val_fraction: float = option(
        0.15, "fraction of the training images held out if the dataset has no validation split", minimum=0, maximum=0.9
    )
    val_seed: int | None = option(
        None, "seed of the held-out images, and of splits that a dataset draws; none: seed", minimum=0, maximum=MAX_SEED
    )
    val_by: Literal["auto", "name", "position"] = option(
        "auto",
        "how held-out images are chosen: name (by a hash of each image's name, which adding images does not change) or "
        "position (a stratified draw); auto: name for `data`, position for a named dataset",
    )
    group_by: str | None = option(
        None,
        "keep images together when splits are drawn: those with the same value in a column of the table, or in one "
        "`folder`, or for which a regular expression captures the same part of the path; none: each on its own",
    )
    train_on: Literal["train", "train+val"] = option(
        "train", "images to train on; train+val holds nothing out and keeps the last epoch"
    )
    folds: int = option(
        0,
        "number of folds that the images, but for those of test, are divided into for cross-validation; 0: none",
        minimum=0,
        maximum=1000,
    )
    fold: int = option(0, "with folds: the one to validate on, from 1; 0: without folds", minimum=0, maximum=1000)
    exclude: str | None = option(
        None, "CSV file of images to leave out of every split, such as that of `fgvc audit`; none: use all"
    )
    sampling: Literal["image", "class", "sqrt"] = option(
        "image", "sampling: uniform over images, class-balanced, or by the square root of the class size"
    )
    cache: Literal["auto", "on", "off"] = option(
        "auto", "cache decoded images on disk between epochs; auto: if they fit the cache limit"
    )
    seed: int = option(0, "random seed of weights, order, augmentation and dropout", minimum=0, maximum=MAX_SEED)
    precision: Literal["auto", "fp32", "bf16"] = option(
        "auto", "numeric precision; auto: bf16 on GPUs that support it, and on CPUs where it is measured to be faster"
    )
    channels_last: Literal["auto", "on", "off"] = option(
        "auto", "channels-last memory format; auto: for backbones that gain from it"
    )
    compile: bool = option(False, "compile the model with torch.compile")
    checkpoint_activations: bool = option(
        False, "keep only the inputs of the backbone's blocks, and run each again in the backward pass: less memory"
    )
    device: str = option("auto", "device: auto, cpu, cuda, cuda:N or mps")
    track: tuple[str, ...] = option((), "experiment trackers to log to")
    workers: int = option(
        -1, "data-loading processes; -1: by device, 0: load in the main process", minimum=-1, maximum=512
    )
    score_test: bool = option(True, "score the test split at the end of training")
    strict_data: bool = option(False, "stop at the first unreadable image")

    @property
    def split_seed(self) -> int:
        """Seed of the splits."""
        return self.seed if self.val_seed is None else self.val_seed

    def __post_init__(self) -> None:
        balancing = {"class_weights": "none", "logit_adjustment": 0.0, "sampling": "image"}
        several = [f"{name}={getattr(self, name)}" for name, off in balancing.items() if getattr(self, name) != off]
        if len(several) > 1:
            raise ValueError(f"{' and '.join(several)} correct the same differences in class size; set one of them")
        if self.folds == 1 or not bool(self.folds) <= self.fold <= self.folds:
            raise ValueError(
                f"folds={self.folds} and fold={self.fold}: set two folds or more, and the fold to validate on, from 1; "
                "a study (`fgvc sweep`) trains all of them with `folds`"
            )
        if self.folds and self.train_on == "train+val":
            raise ValueError(f"folds={self.folds} needs train_on=train, because a fold is held out")
        if self.average_epochs and self.patience:
            raise ValueError(
                f"average_epochs={self.average_epochs} needs patience=0: which epochs are the last is not known when "
                f"training may stop early, and patience is {self.patience}"
            )
        if self.progressive_size > self.image_size:
            raise ValueError(
                f"progressive_size={self.progressive_size} exceeds image_size={self.image_size}, which it grows to"
            )
        if self.progressive_size and self.epochs == 1:
            raise ValueError(f"progressive_size={self.progressive_size} needs epochs=2 or more, and epochs is 1")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and len(values) != 3:
                raise ValueError(f"{name}={list(values)}: give three numbers (R, G, B), such as [0.5, 0.5, 0.5]")
        for name in ("freeze_epochs", "unfreeze_epochs"):
            if getattr(self, name) and self.freeze == "none":
                raise ValueError(
                    f"{name}={getattr(self, name)} needs freeze=all, half or a number of stages, and freeze is none"
                )


@dataclass(frozen=True)
class AugmentOptions:
    """Settings of the augmentation of training images; evaluation never augments.

    Raises:
        ValueError: settings contradict each other.
    """

    policy: Literal["none", "autoaugment", "randaugment", "trivialaugment"] = option(
        "none", "set of random operations: AutoAugment (its ImageNet policy), RandAugment or TrivialAugment"
    )
    before_resize: bool = option(False, "apply the policy to the original image, before resize and crop (slower)")
    crop: Literal["random", "resized", "center"] = option(
        "random",
        "training crop: random (position only), resized (size and aspect ratio too), center (as in evaluation)",
    )
    scale_min: float = option(0.25, "minimum area of a resized crop, as a fraction", minimum=0.01, maximum=1)
    padding: int = option(0, "black pixels added on each side before a random crop", minimum=0, maximum=8192)
    flip: float = option(0.5, "probability of a horizontal flip", minimum=0, maximum=1)
    randaugment_operations: int = option(2, "number of RandAugment operations per image", minimum=1, maximum=100)
    randaugment_magnitude: int = option(9, "magnitude of RandAugment operations, 0 to 30", minimum=0, maximum=30)
    color_jitter: float = option(
        0.0, "maximum relative change of brightness, contrast and saturation; 0: off", minimum=0, maximum=1
    )
    blur: float = option(0.0, "probability of a Gaussian blur (5 px kernel, sigma 0.1 to 5)", minimum=0, maximum=1)
    sharpen: float = option(0.0, "probability of sharpening (factor 1.5)", minimum=0, maximum=1)
    erase: float = option(0.0, "probability of erasing a random box (filled with the mean color)", minimum=0, maximum=1)
    mixup: float = option(0.0, "mixup alpha: each image is blended with another of its batch; 0: off", minimum=0)
    cutmix: float = option(
        0.0, "CutMix alpha: a box of each image is taken from another of its batch; 0: off", minimum=0
    )
    where: Literal["auto", "workers", "device"] = option(
        "auto",
        "where pixels are augmented after the crop: per image in the workers, or per batch on the device; "
        "auto: on a GPU",
    )
    merge_geometry: bool = option(
        False, "with where=device: resample each image once for all of its geometric operations"
    )

    @property
    def changes(self) -> list[str]:
        """The settings that change images from what evaluation sees, such as "crop=random"."""
        still = {"policy": "none", "crop": "center", "flip": 0.0}
        still |= dict.fromkeys(("color_jitter", "blur", "sharpen", "erase", "mixup", "cutmix"), 0.0)
        return [f"{name}={getattr(self, name)}" for name, value in still.items() if getattr(self, name) != value]

    def __post_init__(self) -> None:
        if self.padding and self.crop != "random":
            raise ValueError(f"padding={self.padding} needs crop=random, and crop is {self.crop}")
        if self.before_resize and self.policy == "none":
            raise ValueError("before_resize=true needs a policy, and policy is none")
        if self.before_resize and self.where == "device":
            raise ValueError("before_resize=true needs where=workers (or auto), and where is device")
        if self.merge_geometry and (self.before_resize or self.where == "workers"):
            given = "where is workers" if self.where == "workers" else "before_resize is true"
            raise ValueError(f"merge_geometry=true needs where=device (or auto) and before_resize=false, and {given}")
