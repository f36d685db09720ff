"""Images per second of an exported ONNX file and of a bare PyTorch loop over the same network, on the CPU.

Both get the same normalized images, alternately, with the same number of threads; the ratio is that of the medians.

    python benchmarks/onnx_speed.py --backbone efficientnet_lite0 --backbone swin_t --image-size 224
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from harness import make_classifier, report, timed

from fgvc_cli.contracts import ExportJob
from fgvc_cli.evaluation.export import Scores
from fgvc_cli.registry import get_registry

CPU = torch.device("cpu")


def measure(backbone: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Return images per second of both, and their ratio."""
    classifier = make_classifier(backbone, arguments.head, arguments.image_size, CPU).eval()
    images = torch.randn(arguments.batch_size, 3, arguments.image_size, arguments.image_size)
    component = get_registry().find("exporter", "onnx")
    exporter = component.make(options=component.options_type()())
    described = {"classes": list(classifier.class_names), "preprocessing": asdict(classifier.preprocessing)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        exporter.export(ExportJob(Scores(classifier).eval(), images[:2], False, path, "fp32", described))
        exported = exporter.open(path)
    layout = torch.channels_last if classifier.backbone.info.channels_last else torch.contiguous_format
    classifier, laid_out = classifier.to(memory_format=layout), images.to(memory_format=layout)

    @torch.inference_mode()
    def bare() -> None:
        classifier.scores(laid_out)

    loops: dict[str, Callable[[], object]] = {"torch": bare, "onnx": lambda: exported.scores(images)}
    times: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(arguments.rounds + 1):  # the first warms up
        for name, loop in loops.items():
            taken = timed(loop, CPU)
            if number:
                times[name].append(taken)
    medians = {name: statistics.median(found) for name, found in times.items()}
    rates = {name: arguments.batch_size / median for name, median in medians.items()}
    return {**rates, "ratio": medians["torch"] / medians["onnx"]}


def main() -> None:
    """Measure each backbone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", action="append", help="can be given several times (efficientnet_lite0)")
    parser.add_argument("--head", default="linear")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write the results there as well")
    arguments = parser.parse_args()
    figures = {}
    for backbone in arguments.backbone or ["efficientnet_lite0"]:
        figures[backbone] = found = measure(backbone, arguments)
        print(f"{backbone}: torch {found['torch']:.1f}, onnx {found['onnx']:.1f} images/s, ratio {found['ratio']:.2f}")
    report(arguments, CPU, figures)


if __name__ == "__main__":
    main()
