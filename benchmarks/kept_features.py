"""Time an epoch on kept features, compared with an epoch of the whole network and with one of a frozen backbone.

All three train the same backbone and head on the same images in memory, without decoding or augmentation, alternately
in one process. An epoch is that of `fgvc train`: updates, validation (on the same images), metrics, and the saved
state. The features are computed before the first round; their time is printed too.

    python benchmarks/kept_features.py --backbone timm/tf_efficientnet_lite0 --image-size 128 --rounds 5
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from harness import medians, option_parser, report
from trainer_overhead import make_job

from fgvc_cli.runs.folder import Run
from fgvc_cli.training.trainer import Trainer


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__)
    parser.add_argument("--backbone", default="timm/tf_efficientnet_lite0")
    parser.add_argument("--head", default="linear")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    trainers: dict[str, Trainer] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, freeze in (("whole network", "none"), ("frozen backbone", "all"), ("kept features", "all")):
            job = make_job(arguments, arguments.head, freeze)
            config = job.config.with_train(epochs=arguments.rounds + 2, cache="off", patience=0)
            run = Run(Path(folder) / name)
            run.path.mkdir()
            trainers[name] = Trainer(replace(job, config=config), run, {})
        trainers["frozen backbone"]._may_keep = False
        start = time.perf_counter()
        trainers["kept features"]._keep_features()
        seconds_of_features = time.perf_counter() - start
        seconds = medians({name: trainer._epoch for name, trainer in trainers.items()}, arguments.rounds, job.device)
    images = arguments.batch_size * arguments.batches
    print(f"{arguments.backbone} + {arguments.head}, {arguments.image_size} px, {images} images, {job.device}")
    print(f"features of all images, twice: {seconds_of_features:.2f} s")
    for name, median in seconds.items():
        print(f"{name:16} {median:8.3f} s per epoch   {median / seconds['kept features']:8.1f} times kept features")
    report(arguments, torch.device(job.device), {"seconds": seconds, "seconds_of_features": seconds_of_features})


if __name__ == "__main__":
    main()
