"""Settings of a training that no component owns: `[train]` and `[augment]`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fgvc_cli.options import option


@dataclass(frozen=True)
class TrainOptions:
    """How long, how fast, on what and how carefully to train.

    Raises:
        ValueError: `mean` or `std` are not three numbers.
    """

    weights: str = option("auto", "auto, imagenet, none, a file, or a tag of the backbone's published weights")
    epochs: int = option(30, "passes over the training images", minimum=0)
    batch_size: int = option(32, "images in a forward pass, of each process under torchrun", minimum=1)
    grad_accum_steps: int = option(1, "forward passes whose gradients make one update", minimum=1)
    image_size: int = option(224, "side of the square images that the backbone sees, pixels", minimum=16)
    crop_pct: float = option(0.875, "share of the resized length that the crop keeps", minimum=0.1, maximum=1)
    resize: int = option(0, "length images are resized to before the crop, pixels; 0: by crop_pct", minimum=0)
    crop_mode: Literal["center", "squash"] = option(
        "center", "center: resize the short side to that length; squash: resize the whole image to a square"
    )
    interpolation: Literal["bilinear", "bicubic"] = option("bilinear", "how images are resized")
    mean: tuple[float, float, float] | None = option(
        None, "subtracted from pixel values in [0, 1], by channel; none: that of the backbone's weights", minimum=0
    )
    std: tuple[float, float, float] | None = option(
        None, "pixel values are divided by it, by channel; none: that of the backbone's weights", minimum=0.001
    )
    schedule: Literal["constant", "cosine", "step"] = option("cosine", "how the learning rate falls")
    schedule_unit: Literal["step", "epoch"] = option("step", "whether it moves with each step or each epoch")
    cosine_over: Literal["rest", "all"] = option(
        "rest", "steps that the cosine spans: those after the warm-up, or all (it then ends above zero)"
    )
    step_epochs: int = option(10, "schedule=step: epochs between two falls", minimum=1)
    step_factor: float = option(0.1, "schedule=step: what each fall multiplies the rate by", minimum=0, maximum=1)
    warmup_epochs: float = option(0.0, "epochs in which the rate rises linearly", minimum=0)
    warmup_steps: int = option(0, "updates in which the rate rises linearly, instead of warmup_epochs", minimum=0)
    label_smoothing: float = option(0.0, "share of the target spread over all classes", minimum=0, maximum=1)
    clip_norm: float = option(0.0, "largest norm of the gradient of an update; 0: not clipped", minimum=0)
    patience: int = option(0, "epochs without a better validation top-1 before training stops; 0: never", minimum=0)
    min_delta: float = option(0.001, "what counts as better for patience, a fraction", minimum=0)
    val_fraction: float = option(
        0.15, "share of the training images held out where the dataset has no validation split", minimum=0, maximum=0.9
    )
    val_seed: int | None = option(
        None, "seeds which images are held out (and a dataset that draws its splits); none: seed", minimum=0
    )
    train_on: Literal["train", "train+val"] = option(
        "train", "train+val: all but the test split; nothing is held out, and the last epoch is kept"
    )
    sampling: Literal["image", "class", "sqrt"] = option(
        "image",
        "what comes up equally often in an epoch: image, each image; class, each class; sqrt, between the two",
    )
    cache: Literal["auto", "on", "off"] = option(
        "auto", "keep decoded images on disk from epoch to epoch; auto: where they fit (fgvc data cache)"
    )
    seed: int = option(0, "seeds weights, order, augmentation and dropout", minimum=0)
    precision: Literal["auto", "fp32", "bf16"] = option("auto", "auto: bf16 where the GPU has it, else fp32")
    channels_last: Literal["auto", "on", "off"] = option("auto", "memory format; auto: where the backbone gains by it")
    compile: bool = option(False, "compile the model with torch.compile")
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps")
    track: tuple[str, ...] = option((), "who is told how it goes (fgvc list-plugins --kind tracker)")
    workers: int = option(-1, "processes that read images; -1: by device, 0: the main process reads", minimum=-1)
    strict_data: bool = option(False, "stop at the first image that cannot be read")

    @property
    def split_seed(self) -> int:
        """What seeds the splits."""
        return self.seed if self.val_seed is None else self.val_seed

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = getattr(self, name)
            if values is not None and len(values) != 3:
                raise ValueError(
                    f"{name}={list(values)}: give three numbers (red, green, blue), such as [0.5, 0.5, 0.5]."
                )


@dataclass(frozen=True)
class AugmentOptions:
    """Options of the augmentation. It applies to training images alone; evaluation never augments."""

    policy: Literal["none", "autoaugment", "randaugment", "trivialaugment"] = option(
        "none", "a known set of random operations: AutoAugment (its ImageNet policy), RandAugment, TrivialAugment"
    )
    before_resize: bool = option(False, "apply the policy to the whole photograph, before resize and crop (slower)")
    crop: Literal["random", "resized", "center"] = option(
        "random", "random: a crop of the resized image; resized: of random size and shape; center: as in evaluation"
    )
    scale_min: float = option(0.25, "least share of the image that a resized crop takes", minimum=0.01, maximum=1)
    padding: int = option(0, "black pixels added on each side before a random crop", minimum=0)
    flip: float = option(0.5, "probability of a left-right flip", minimum=0, maximum=1)
    randaugment_operations: int = option(2, "operations that RandAugment applies one after the other", minimum=1)
    randaugment_magnitude: int = option(9, "strength of RandAugment's operations, 0 to 30", minimum=0, maximum=30)
    color_jitter: float = option(
        0.0, "brightness, contrast and saturation are scaled by up to 1 +- this; 0: off", minimum=0, maximum=1
    )
    blur: float = option(0.0, "probability of a Gaussian blur (5 px wide, sigma 0.1 to 5)", minimum=0, maximum=1)
    sharpen: float = option(0.0, "probability of sharpening (factor 1.5)", minimum=0, maximum=1)
    erase: float = option(0.0, "probability that a random box is blanked with the mean color", minimum=0, maximum=1)
    mixup: float = option(0.0, "alpha of mixup: each image is blended with another of its batch; 0: off", minimum=0)
    cutmix: float = option(
        0.0, "alpha of CutMix: a box of each image is taken from another of its batch; 0: off", minimum=0
    )
    where: Literal["auto", "workers", "device"] = option(
        "auto", "what changes pixels after the crop: the processes that read, or the device by the batch; auto: a GPU"
    )
    merge_geometry: bool = option(
        False, "where=device: one resampling for all of an image's geometric operations, not one for each"
    )

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
