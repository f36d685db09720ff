"""Run every check and measurement that needs a GPU, in parts that share a time limit; installs nothing.

The parts run the tests marked `gpu`, `fgvc bench` and the scripts here, each step in a process of its own, which is
interrupted when the part's share of the time is over. Time that a part leaves goes to those after it. Results are saved
after every part as gpu_suite.json and gpu_suite.md in benchmarks/results/DEVICE/. A later run on the same device and
versions adds its parts to them, so that the parts can be spread over several runs.

    python benchmarks/gpu_suite.py
    python benchmarks/gpu_suite.py --parts bare combinations --backbones resnet50 swin_t --minutes 6

On the CPU (`--device cpu`) everything runs with tiny sizes and without compiling, to test the suite itself.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpu_suite_parts import PARTS, Part, Suite, file_name
from gpu_suite_processes import GRACE_SECONDS, LEAST_SECONDS, Outcome, machine_of, run_step
from gpu_suite_tables import as_markdown

RESULTS = Path(__file__).parent / "results"


def run_part(part: Part, suite: Suite, end: float) -> Outcome:
    """Run the steps of a part one by one until a time (of `time.monotonic`)."""
    if missing := [name for name in part.packages if importlib.util.find_spec(name) is None]:
        return Outcome("skipped", reason=f"{', '.join(missing)} is not installed")
    start = time.monotonic()
    if end - start < LEAST_SECONDS:
        return Outcome("skipped", reason="no time left")
    try:
        steps = part.steps(suite)
    except Exception as error:  # one part must not end the others
        return Outcome("failed", time.monotonic() - start, f"{type(error).__name__}: {error}")
    outcomes = {step.name: run_step(step, end) for step in steps}
    states = {outcome.state for outcome in outcomes.values()}
    state = next(s for s in ("failed", "stopped", "skipped", "measured") if s in states)
    if state == "skipped" and "measured" in states:
        state = "stopped"
    reasons = [f"{name}: {outcome.reason}" for name, outcome in outcomes.items() if outcome.reason]
    return Outcome(state, time.monotonic() - start, "; ".join(reasons) or None, steps=outcomes)


def earlier_parts(file: Path, machine: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of an earlier run on the same device with the same versions and commit."""
    try:
        document = json.loads(file.read_text("utf-8"))
        before = document["machine"]
    except (OSError, ValueError, KeyError):
        return {}
    same = all(before.get(name) == value for name, value in machine.items() if name not in ("date", "threads", "cores"))
    return dict(document["parts"]) if same else {}


def save(folder: Path, machine: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Write gpu_suite.json and gpu_suite.md."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"script": Path(__file__).name, "machine": machine, "parts": parts}
    (folder / "gpu_suite.json").write_text(json.dumps(document, indent=1, default=str) + "\n", encoding="utf-8")
    (folder / "gpu_suite.md").write_text(as_markdown(machine, parts), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--backbones", nargs="+", default=[], help="default: all built-in")
    parser.add_argument("--minutes", type=float, default=8.0, help="limit of the whole run")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu for tiny sizes")
    parser.add_argument("--out", type=Path, help="folder of the results; default: benchmarks/results/DEVICE")
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # steps inherit it, also from a shell's background job
    if arguments.device == "cpu":
        os.environ["TORCHDYNAMO_DISABLE"] = "1"
    end = time.monotonic() + 60 * arguments.minutes
    machine = machine_of(arguments.device)
    folder = arguments.out or RESULTS / file_name(machine["device_name"])
    parts = earlier_parts(folder / "gpu_suite.json", machine)
    chosen = [name for name in PARTS if name in arguments.parts]
    failed = False
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        suite = Suite(arguments.device, arguments.backbones, Path(scratch))
        for number, name in enumerate(chosen):
            now = time.monotonic()
            later = sum(PARTS[other].weight for other in chosen[number:])
            share = max(0.0, end - GRACE_SECONDS - now) * PARTS[name].weight / later
            print(f"{name}: up to {share:.0f} s", flush=True)
            outcome = run_part(PARTS[name], suite, now + share)
            print(f"{name}: {outcome.state}, {outcome.seconds:.0f} s", flush=True)
            failed |= outcome.state == "failed"
            if outcome.state != "skipped" or name not in parts:
                parts[name] = {**asdict(outcome), "date": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
            save(folder, machine, {name: parts[name] for name in PARTS if name in parts})
    print(f"{folder / 'gpu_suite.md'}")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
