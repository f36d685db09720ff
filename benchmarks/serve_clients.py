"""Requests per second of `fgvc serve` with clients in parallel against images per second of `fgvc predict`.

The server is a process of its own, started once; each client sends one JPEG per request over a new connection. Each
round also predicts the same files as `fgvc predict` does once the model is loaded. Both take turns, and the ratio is
that of the medians. Clients and server share the machine.

    OMP_NUM_THREADS=1 python benchmarks/serve_clients.py --images 128 --rounds 5
"""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from harness import medians, option_parser, report
from predict_folder import ours, write_images, write_model

from fgvc_cli.scoring.model import InferenceSettings, load

CPU = torch.device("cpu")


def start(model: Path, clients: int) -> tuple[subprocess.Popen[str], int]:
    """Start a server on a free port; return its process and the port."""
    words = [sys.executable, "-m", "fgvc_cli", "serve", str(model), "--port", "0", "--device", "cpu"]
    process = subprocess.Popen([*words, "--queue", str(clients)], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
            return process, int(found[1])
    raise SystemExit("the server did not start")


def request(port: int, image: bytes) -> str:
    """Return the class that the server predicts for an image."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("POST", "/predict", image, {"Content-Type": "image/jpeg"})
    answer = connection.getresponse()
    document = json.loads(answer.read())
    connection.close()
    if answer.status != 200:
        raise SystemExit(f"status {answer.status}: {document['error']}")
    return str(document["predictions"][0]["classes"][0]["class"])


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__)
    parser.add_argument("--backbone", default="timm/resnet18")
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--photo-size", type=int, default=320, help="long side of the JPEGs, pixels")
    parser.add_argument("--images", type=int, default=128, help="per round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=32, help="of `fgvc predict`")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        photos, out = Path(temporary) / "photos", Path(temporary) / "out.csv"
        write_images(photos, arguments.images, (arguments.photo_size, 3 * arguments.photo_size // 4))
        model = write_model(Path(temporary) / "run", arguments.backbone, arguments.image_size)
        ready = load(model, InferenceSettings("cpu", "fp32", arguments.batch_size, workers=0))
        images = [file.read_bytes() for file in sorted(photos.iterdir())]
        process, port = start(model, arguments.clients)
        try:
            with ThreadPoolExecutor(arguments.clients) as threads:
                variants = {
                    "serve": lambda: list(threads.map(lambda image: request(port, image), images)),
                    "predict": lambda: ours(ready, photos, out),
                }
                seconds = medians(variants, arguments.rounds, CPU)
        finally:
            process.terminate()
            process.communicate()
    rates = {name: arguments.images / median for name, median in seconds.items()}
    ratio = rates["serve"] / rates["predict"]
    size = f"{arguments.image_size} px, {arguments.clients} clients, {arguments.rounds} rounds of {arguments.images}"
    print(
        f"{arguments.backbone}, {size}: serve {rates['serve']:.1f} requests/s, predict {rates['predict']:.1f} images/s"
    )
    print(f"ratio of medians {ratio:.3f}")
    report(arguments, CPU, {"per_second": rates, "ratio": ratio})


if __name__ == "__main__":
    main()
