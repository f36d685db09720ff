"""Compare the accuracy of fgvc, timm's train script, fastai and autotimm at similar time, from equal weights.

Every tool trains `tf_efficientnet_lite0` on the same folders train/, val/ and test/ and predicts the images of val/ and
test/ in its own way; top-1 is counted here. Each runs in a process of its own with one thread and one loading process,
first as its guide starts, then with settings meant to be the best for it. Epochs and sizes are such that a run takes
the CPU time of fgvc's default or more. All convolve in the channels-last layout, which the peers do not by default.
The weights must be in the Hugging Face cache (`HF_HOME`) as timm/tf_efficientnet_lite0.in1k, where every tool finds
them; fastai, autotimm, timm and pandas in the environment of `--python`, timm's repository in `--timm-source`.

    python benchmarks/peers_accuracy.py --data photos --python peers/bin/python --timm-source pytorch-image-models

A validation folder that lacks classes is completed with one training image of each, which is not scored: timm and
autotimm number the classes of each folder by themselves (findings/classes-numbered-by-folder.sh).
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ARCHITECTURE = "tf_efficientnet_lite0"
SPLITS = ("val", "test")


@dataclass(frozen=True)
class Variant:
    """One way to use a tool.

    Attributes:
        tool: "fgvc", "timm", "fastai" or "autotimm".
        name: "default" or what is set.
        options: of the command, for fgvc and timm; a keyword argument each as name=JSON, for fastai and autotimm.
    """

    tool: str
    name: str
    options: str = ""


VARIANTS = (
    Variant("fgvc", "default"),
    Variant("timm", "default, 224 px", "--epochs 2 --warmup-epochs 0 --batch-size 32 --img-size 224"),
    Variant(
        "timm",
        "AdamW 2e-3, layer decay 0.7, EMA, 160 px",
        "--epochs 3 --warmup-epochs 0 --batch-size 16 --img-size 160 --opt adamw --lr 2e-3 --layer-decay 0.7 "
        "--weight-decay 0.05 --clip-grad 1 --scale 0.35 1 --train-interpolation bicubic --sched-on-updates "
        "--model-ema --model-ema-decay 0.99 --model-ema-warmup",
    ),
    Variant("fastai", "default, 160 px", "epochs=3 size=160 batch=32"),
    Variant(
        "fastai",
        "base_lr 5e-3, lr_mult 5, resized crops, smoothing, 160 px",
        "epochs=3 size=160 batch=16 base_lr=5e-3 lr_mult=5 smoothing=0.1 scale=0.35",
    ),
    Variant("autotimm", "default (finds its rate), 160 px", "epochs=2 size=160 batch=32"),
    Variant(
        "autotimm",
        "lr 1e-3, timm's normalization, smoothing, clipping, 160 px",
        "epochs=3 size=160 batch=16 lr=1e-3 weight_decay=0.05 label_smoothing=0.1 clip=1.0 own=true",
    ),
)


def main() -> None:
    """Run the variants in turn, seed by seed, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/, val/ and test/")
    parser.add_argument("--python", default=sys.executable, help="Python with fastai, autotimm, timm and pandas")
    parser.add_argument("--timm-source", type=Path, help="clone of timm's repository, for train.py and inference.py")
    parser.add_argument("--only", default="", help="run the variants whose 'tool: name' starts with this text")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="append a JSON line per run to this file")
    options = parser.parse_args()
    print("| tool | settings | seed | val top-1 % | test top-1 % | wall s | CPU s |\n" + "| --- " * 7 + "|")
    with tempfile.TemporaryDirectory() as scratch:
        complete = _completed(options.data.resolve(), Path(scratch) / "data")
        for number in range(options.seeds * len(VARIANTS)):
            seed, variant = number // len(VARIANTS), VARIANTS[number % len(VARIANTS)]
            if not f"{variant.tool}: {variant.name}".startswith(options.only):
                continue
            data = options.data.resolve() if variant.tool == "fgvc" else complete
            out = Path(scratch) / str(number)
            before, started = _cpu_seconds(), time.perf_counter()
            predicted = RUNNERS[variant.tool](variant, data, out, seed, options)
            seconds, cpu_seconds = time.perf_counter() - started, _cpu_seconds() - before
            top1 = {split: _top1(predicted, options.data, split) for split in SPLITS}
            figures = (f"{value:.1f}" for value in (100 * top1["val"], 100 * top1["test"], seconds, cpu_seconds))
            print("|", " | ".join((variant.tool, variant.name, str(seed), *figures)), "|", flush=True)
            if options.json:
                import torch

                from fgvc_cli.benchmarking.run import machine_facts  # the peers' Python has no fgvc

                record = {"tool": variant.tool, "name": variant.name, "options": variant.options, "seed": seed}
                figures = {"val_top1": top1["val"], "test_top1": top1["test"]}
                times = {"seconds": seconds, "cpu_seconds": cpu_seconds}
                with options.json.open("a") as file:
                    file.write(
                        json.dumps({**record, **figures, **times, "machine": machine_facts(torch.device("cpu"))}) + "\n"
                    )


def _run(*command: object) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{done.args}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}")


def _fgvc(variant: Variant, data: Path, out: Path, seed: int, _: argparse.Namespace) -> dict[str, str]:
    fgvc = sys.executable, "-m", "fgvc_cli"
    train = "train", "--backbone", f"timm/{ARCHITECTURE}", "--weights", "imagenet", "--data", data, "--out", out
    _run(*fgvc, *train, "--seed", seed, "--workers", 1, *variant.options.split())
    _run(*fgvc, "evaluate", out, "--split", "val")
    predicted = {}
    for split in SPLITS:
        with (out / "evaluation" / split / "predictions.csv").open(newline="") as file:
            predicted.update({f"{split}/{row['key']}": row["predicted"] for row in csv.DictReader(file)})
    return predicted


def _timm(variant: Variant, data: Path, out: Path, seed: int, options: argparse.Namespace) -> dict[str, str]:
    """Train, then run timm's inference script on the last checkpoint, of which it prefers the averaged weights."""
    classes = _classes(data)
    words = variant.options.split()
    model = "--model", ARCHITECTURE, "--num-classes", len(classes), "--device", "cpu", "--workers", 1, "--channels-last"
    train = options.timm_source / "train.py", data, "--val-split", "val", "--pretrained", "--output", out
    _run(options.python, *train, *model, "--experiment", "run", "--seed", seed, *words)
    size = words[words.index("--img-size") + 1]
    predicted = {}
    for split in SPLITS:
        infer = options.timm_source / "inference.py", data / split, "--checkpoint", out / "run" / "last.pth.tar"
        result = "--results-dir", out, "--results-file", split, "--results-format", "csv", "--topk", 1, "--fullname"
        _run(options.python, *infer, *model, *result, "--include-index", "--img-size", size)
        with next(out.glob(f"{split}*.csv")).open(newline="") as file:
            rows = list(csv.DictReader(file))
        predicted.update({f"{split}/{row['filename']}": classes[int(float(row["index"]))] for row in rows})
    return predicted


def _program(variant: Variant, data: Path, out: Path, seed: int, options: argparse.Namespace) -> dict[str, str]:
    """Call a function of this file, `_train_fastai` or `_train_autotimm`, in the other Python."""
    out.mkdir()
    words = (word.split("=") for word in variant.options.split())
    settings = {"data": str(data), "out": str(out), "seed": seed, **{key: json.loads(text) for key, text in words}}
    here = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import {Path(__file__).stem} as peers"
    _run(options.python, "-c", f"{here}; peers._train_{variant.tool}(**{settings!r})")
    predicted: dict[str, str] = json.loads((out / "predicted.json").read_text())
    return {"/".join(Path(name).parts[-3:]): label for name, label in predicted.items()}


RUNNERS = {"fgvc": _fgvc, "timm": _timm, "fastai": _program, "autotimm": _program}


def _train_fastai(
    data: str,
    out: str,
    seed: int,
    epochs: int,
    size: int,
    batch: int,
    scale: float = 0.0,
    smoothing: float = 0.0,
    **fit: float,
) -> None:
    """Train as fastai's guide to pet breeds does: `vision_learner`, `aug_transforms`, `fine_tune`."""
    from fastai.losses import CrossEntropyLossFlat, LabelSmoothingCrossEntropyFlat
    from fastai.torch_core import set_seed
    from fastai.vision.all import (
        ImageDataLoaders,
        RandomResizedCrop,
        Resize,
        aug_transforms,
        get_image_files,
        vision_learner,
    )

    set_seed(seed)
    crop = RandomResizedCrop(size, min_scale=scale) if scale else Resize(size)
    folders = {"train": "train", "valid": "val", "item_tfms": crop, "batch_tfms": aug_transforms()}
    loaders = ImageDataLoaders.from_folder(data, **folders, bs=batch, num_workers=1)
    loss = LabelSmoothingCrossEntropyFlat(eps=smoothing) if smoothing else CrossEntropyLossFlat()
    learner = vision_learner(loaders, ARCHITECTURE, loss_func=loss).to_channelslast(use_amp=False)
    predicted = {}
    with learner.no_bar():
        learner.fine_tune(epochs, **fit)
        for split in SPLITS:
            files = get_image_files(Path(data) / split)
            scores, _ = learner.get_preds(dl=loaders.test_dl(files))
            best = scores.argmax(1).tolist()
            predicted.update({str(file): loaders.vocab[k] for file, k in zip(files, best, strict=True)})
    (Path(out) / "predicted.json").write_text(json.dumps(predicted))


def _train_autotimm(
    data: str,
    out: str,
    seed: int,
    epochs: int,
    size: int,
    batch: int,
    own: bool = False,
    clip: float | None = None,
    **fit: float,
) -> None:
    """Train as autotimm's guide does: `ImageDataModule`, `ImageClassifier`, `AutoTrainer`.

    Args:
        own: normalize as the weights were trained, and keep `lr`. By default it normalizes by ImageNet's statistics,
            and searches the learning rate in 100 updates.
    """
    import torch
    from autotimm import AutoTrainer, ImageClassifier, ImageDataModule, TransformConfig

    transform = {"transform_config": TransformConfig(image_size=size), "backbone": ARCHITECTURE} if own else {}
    images = ImageDataModule(data_dir=data, image_size=size, batch_size=batch, num_workers=1, **transform)
    images.setup()
    settings = {"backbone": ARCHITECTURE, "num_classes": images.num_classes, "seed": seed, "compile_model": False}
    model = ImageClassifier(**settings, **fit).to(memory_format=torch.channels_last)
    tuner = {"tuner_config": False} if own else {}
    process = {"default_root_dir": out, "accelerator": "cpu", "enable_progress_bar": False}
    AutoTrainer(max_epochs=epochs, gradient_clip_val=clip, **tuner, **process).fit(model, datamodule=images)
    model.eval()
    predicted = {}
    for dataset in (images.val_dataset, images.test_dataset):
        with torch.inference_mode():
            parts = [model(part).argmax(1) for part, _ in torch.utils.data.DataLoader(dataset, batch, num_workers=1)]
        named = zip(dataset.samples, torch.cat(parts).tolist(), strict=True)
        predicted.update({path: images.class_names[k] for (path, _), k in named})
    (Path(out) / "predicted.json").write_text(json.dumps(predicted))


def _cpu_seconds() -> float:
    """Return the CPU time of all ended child processes."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _classes(data: Path) -> list[str]:
    return sorted(folder.name for folder in (data / "train").iterdir())


def _top1(predicted: dict[str, str], data: Path, split: str) -> float:
    """Return the fraction of a split's images with the right class, over all of them."""
    images = [f"{split}/{file.parent.name}/{file.name}" for file in (data / split).glob("*/*")]
    missing = set(images) - set(predicted)
    if missing:
        sys.exit(f"{len(missing)} of {len(images)} images have no prediction, such as {min(missing)}")
    return sum(predicted[image] == image.split("/")[1] for image in images) / len(images)


def _completed(data: Path, copy: Path) -> Path:
    """Link the images into a copy whose validation folder has every class."""
    for split in ("train", *SPLITS):
        for name in _classes(data):
            (copy / split / name).mkdir(parents=True)
            images = sorted((data / split / name).glob("*")) or sorted((data / "train" / name).glob("*"))[:1]
            for image in images:
                (copy / split / name / image.name).symlink_to(image)
    return copy


if __name__ == "__main__":
    main()
