"""docs/runs.md: the files and keys that it lists are those a run has, its examples run, and it stops as it says."""

from __future__ import annotations

import contextlib
import io
import json
import re
import runpy
import shlex
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from PIL import Image
from safetensors.torch import load_file

from fgvc_cli.cli.training_view import TrainingView
from fgvc_cli.evaluation import run_sharpness
from fgvc_cli.registry import get_registry
from fgvc_cli.runs import model_file
from fgvc_cli.runs.model_file import read_metadata

PAGE = "docs/runs.md"
TINY = [
    "--backbone", "timm/test_resnet", "--head", "pim", "--set", "head.fpn_size=16", "--set", "head.num_selects=4",
    "--set", "dataset.train=2", "--set", "dataset.val=1", "--set", "dataset.test=1", "--set", "dataset.size=64",
    "--image-size", "32", "--batch-size", "6", "--epochs", "2", "--weights", "none", "--device", "cpu",
    "--track", "tensorboard",
]  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """A cache for the demo images, drawn once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def home(fgvc, cache, tmp_path_factory) -> Path:
    """A folder with runs/RUN, trained on the demo images, evaluated, explained and reported of, and photo.jpg."""
    home = tmp_path_factory.mktemp("home")
    run = home / "runs" / "RUN"
    result = fgvc("train", *TINY, "--cache", cache, "--out", run)
    assert result.exit_code == 0, result.stderr
    sharpness = ["evaluate", run, "--sharpness", "--limit", 2, "--points", 3]
    explain = ["explain", "--run", run, "--limit", 2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_sharpness, "draw_landscape", lambda path, *_: path.touch())
        for command in (["evaluate", run], sharpness, explain, ["report", run, "--images", 1]):
            result = fgvc(*command, "--cache", cache, "--device", "cpu")
            assert result.exit_code == 0, result.stderr
    Image.open(next((run / "samples").iterdir())).save(home / "photo.jpg")
    return home


@pytest.fixture(scope="module")
def run(home) -> Path:
    return home / "runs" / "RUN"


def keys_in(table: list[list[str]]) -> set[str]:
    return {row[0].strip("`") for row in table}


def test_every_file_of_a_run_is_on_the_page_and_every_file_on_the_page_is_there(page, run):
    rows = page(PAGE).rows("## Files")
    patterns = keys_in(rows)
    files = {path.relative_to(run) for path in run.rglob("*") if path.is_file()}
    assert {pattern for pattern in patterns if not any(file.match(pattern) for file in files)} == set()
    assert {str(file) for file in files if not any(file.match(pattern) for pattern in patterns)} == set()
    for split in ("test", "train"):
        (evaluation,) = (row for row in rows if row[0].startswith(f"`evaluation/{split}"))
        named = set(re.findall(r"`(\w+\.\w+)`", evaluation[2]))
        assert named == {path.name for path in (run / "evaluation" / split).iterdir()}


def test_the_keys_of_the_metrics(page, run):
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    found = set()
    for key, value in line.items():
        found |= {f"{key}.{below}" for below in value} if isinstance(value, dict) else {key}
    parts = {key for key in found if key.startswith("train.objective.")}
    assert len(parts) > 1
    assert (found - parts) | {"train.objective.<part>"} == keys_in(page(PAGE).rows("### `metrics.jsonl`"))


def test_the_keys_of_the_summary(page, run):
    summary = json.loads((run / "summary.json").read_text())
    assert keys_in(page(PAGE).rows("### `summary.json`")) == set(summary)
    figures = keys_in(page(PAGE).rows("### Metrics of a split"))
    assert figures == set(summary["test"])
    assert figures <= set(json.loads((run / "evaluation/test/summary.json").read_text()))
    assert summary["train"].keys() == json.loads((run / "metrics.jsonl").read_text().splitlines()[0])["train"].keys()


def test_what_the_model_file_says_of_itself(page, run):
    assert keys_in(page(PAGE).rows("### `model.safetensors`")) == set(read_metadata(run))
    assert {name.partition(".")[0] for name in load_file(run / "model.safetensors")} == {"backbone", "head"}


def test_what_the_state_holds(page, run):
    file = run / "last" / "state.safetensors"
    assert keys_in(page(PAGE).rows("### `last/state.safetensors`")) == set(model_file.load_document(file))
    names = {name.partition(".")[0] for name in load_file(file)}
    assert {"model", "optimizer", "random"} <= names


@contextlib.contextmanager
def printed() -> Iterator[io.StringIO]:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        yield out


def test_the_example_predicts_as_fgvc_predict_does(page, home, fgvc, tmp_path, monkeypatch):
    (tmp_path / "predict.py").write_text(page(PAGE).files()["predict.py"])
    monkeypatch.chdir(home)
    with printed() as out:
        runpy.run_path(str(tmp_path / "predict.py"))
    lines = [line.rsplit(" ", 1) for line in out.getvalue().splitlines()]
    result = fgvc("predict", "photo.jpg", "--run", "runs/RUN", "--top-k", 3, "--json", "--device", "cpu")
    assert len(lines) == 3 and all(name in result.stdout for name, _ in lines)
    (image,) = json.loads(result.stdout)["predictions"]
    assert [name for name, _ in lines] == [c["class"] for c in image["classes"]]
    assert [float(p) for _, p in lines] == pytest.approx([c["probability"] for c in image["classes"]], abs=1e-3)


def test_the_example_shows_what_the_head_reads(page, home, tmp_path, monkeypatch):
    (tmp_path / "features.py").write_text(page(PAGE).files()["features.py"])
    monkeypatch.chdir(home)
    with printed() as out:
        names = runpy.run_path(str(tmp_path / "features.py"))
    assert names["shapes"].keys() == set(names["classifier"].head.reads().maps)
    assert all(shape[0] == 4 for shape in names["shapes"].values()) and out.getvalue()


@dataclass
class Stops:
    """Raises a signal after so many batches of a training."""

    batches: int
    number: int

    def into(self, patch: pytest.MonkeyPatch) -> None:
        real: Callable[..., None] = TrainingView.on_batch_end

        def on_batch_end(view: Any, *arguments: Any) -> None:
            real(view, *arguments)
            self.batches -= 1
            if self.batches == 0:
                signal.raise_signal(self.number)

        patch.setattr(TrainingView, "on_batch_end", on_batch_end)


@pytest.mark.parametrize("number", [signal.SIGTERM])
def test_a_run_that_is_stopped_goes_on_bit_for_bit(fgvc, page, run, cache, tmp_path, monkeypatch, number):
    stopped = tmp_path / "runs" / "RUN"
    with monkeypatch.context() as patch:
        Stops(6, number).into(patch)
        result = fgvc("train", *TINY, "--cache", cache, "--out", stopped)
    assert result.exit_code == 128 + number and f"fgvc train --resume {stopped}" in result.stderr
    assert str(result.exit_code) in {row[0] for row in page(PAGE).rows("## Interrupting and resuming")}
    assert not (stopped / "summary.json").exists()

    monkeypatch.chdir(tmp_path)
    (command,) = (block for block in page(PAGE).blocks("sh") if "--resume" in block)
    result = fgvc(*shlex.split(command)[1:], "--cache", cache)
    assert result.exit_code == 0, result.stderr
    for name in ("model.safetensors", "last/state.safetensors"):
        ours, theirs = load_file(stopped / name), load_file(run / name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    timeless = [
        [{k: v for k, v in json.loads(line).items() if "second" not in k} for line in lines]
        for lines in ((folder / "metrics.jsonl").read_text().splitlines() for folder in (stopped, run))
    ]
    assert timeless[0] == timeless[1]


def imports(page) -> list[list[str]]:
    """The arguments of the page's commands that make a run of a public checkpoint."""
    blocks = [block for block in page(PAGE).blocks("sh") if "--epochs 0" in block]
    return [shlex.split(line)[1:] for block in blocks for line in block.replace("\\\n", "").splitlines()]


def test_the_commands_for_public_checkpoints_make_what_the_authors_code_has(page):
    from fgvc_cli.cli.train import train as train_command
    from fgvc_cli.config.run_config import resolve, user_settings

    app = typer.Typer(add_completion=False)
    app.command()(train_command)
    trainings = [arguments[1:] for arguments in imports(page) if arguments[0] == "train"]
    configs = []
    for arguments in trainings:
        given = typer.main.get_command(app).make_context("train", [*arguments]).params
        layer = {
            "backbone": {"name": given["backbone"]},
            "train": {"epochs": given["epochs"], "weights": given["weights"]},
            "dataset": {"data": str(given["data"])},
        }
        settings, _ = user_settings(None, layer, given["set_"] or [])
        configs.append(resolve(settings, given["recipe"], {"device": "cpu", "weights": "pretrained"}, get_registry()))
    pim, cmal = configs
    assert (pim.head.name, pim.head.options.fpn_size, pim.head.options.num_selects) == (
        "pim", 1536, (2048, 512, 128, 32),
    )  # fmt: skip
    assert (pim.backbone.options.maps, pim.train.image_size, pim.train.mean) == ("published", 384, None)
    assert pim.backbone.name in page(PAGE).rows("## Public checkpoints")[0][1]
    assert (cmal.head.name, cmal.backbone.name, cmal.train.image_size) == ("cmal", "resnet50", 448)
    assert cmal.train.mean == cmal.train.std == (0.5, 0.5, 0.5)
    assert [config.train.epochs for config in configs] == [0, 0]
    outs = [arguments[arguments.index("--out") + 1] for arguments in trainings]
    assert outs == [arguments[1] for arguments in imports(page) if arguments[0] == "evaluate"]


def test_the_backbones_for_public_checkpoints_exist(page):
    for _, backbone in page(PAGE).rows("## Public checkpoints"):
        for name in re.findall(r"`((?:timm/)?\w+(?:\.\w+)?)`", backbone):
            assert get_registry().find("backbone", name)


def test_the_script_saves_the_state_of_a_network_pickled_by_another_script(page, tmp_path, monkeypatch):
    from fgvc_cli.errors import FgvcError
    from fgvc_cli.training.weights.checkpoint import read_weights

    (training,) = re.findall(r"from (\w+) import \*", page(PAGE).files()["save_state.py"])
    (tmp_path / f"{training}.py").write_text(
        "import torch\nclass Network(torch.nn.Linear): pass\n"
        "if __name__ == '__main__': torch.save(Network(2, 3), 'model.pth')\n"
    )
    (tmp_path / "save_state.py").write_text(page(PAGE).files()["save_state.py"])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for script in (f"{training}.py", "save_state.py"):
        runpy.run_path(script, run_name="__main__")
    with pytest.raises(FgvcError, match=r"a pickled __main__\.Network"):
        read_weights(tmp_path / "model.pth")
    assert set(read_weights(tmp_path / "model-state.pt").entries) == {"weight", "bias"}


def test_predicting_needs_the_model_file_alone_and_a_finished_run_no_state(run, fgvc, tmp_path):
    alone, copy = shutil.copy(run / "model.safetensors", tmp_path / "kept.safetensors"), tmp_path / "copy"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("last"))
    for kept in (alone, copy):
        assert fgvc("predict", next((run / "samples").iterdir()), "--run", kept, "--device", "cpu").exit_code == 0
