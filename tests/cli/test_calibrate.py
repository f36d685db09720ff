"""`fgvc calibrate` from end to end, on a classifier of known probabilities."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from safetensors.torch import load_file

from fgvc_cli.runs import model_file
from fgvc_cli.scoring.calibration.stored import Calibration


@pytest.fixture
def calibrated(fgvc, bee_run: Path):
    """The run, calibrated on its test images: 4 ants and 6 bees, all predicted as bee with 60 %."""
    result = fgvc("calibrate", bee_run, "--split", "test", "--score", "none", "--json")
    assert result.exit_code == 0, result.stderr
    return bee_run, json.loads(result.stdout)


def test_the_model_file_gets_the_optimum_and_keeps_its_weights(bee_model: Path, calibrated) -> None:
    run, summary = calibrated
    found, mean = Calibration.read(run / "model.safetensors"), 0.4 * math.log(0.3) + 0.6 * math.log(0.6)
    assert found is not None and summary["calibration"] == found.as_json() | {"tta": []}

    def loss(t):
        scaled = [math.log(p) / t for p in (0.3, 0.6, 0.1)]
        return math.log(sum(map(math.exp, scaled))) - mean / t

    assert loss(found.temperature) < min(loss(0.99 * found.temperature), loss(1.01 * found.temperature))
    assert summary["loss"]["after"] == pytest.approx(loss(found.temperature), abs=1e-5)
    assert summary["top1"] == pytest.approx(0.6)
    before, after = load_file(bee_model), load_file(run / "model.safetensors")
    assert before.keys() == after.keys() and all((before[n] == after[n]).all() for n in before)
    document = model_file.read_metadata(run / "model.safetensors")
    assert {n: v for n, v in document.items() if n != "calibration"} == model_file.read_metadata(bee_model)
    assert {f.name for f in (run / "calibration").iterdir()} == {"coverage.csv", "coverage.png", "summary.json"}


def test_promises_that_take_more_images_say_how_many(fgvc, bee_run: Path) -> None:
    for arguments, least in (
        (["--precision", 0.95], "59"),
        (["--coverage", 0.95], "19"),
        (["--coverage", 0.8, "--by-class"], "4 images of each"),
        (["--score", "energy"], "19"),
        (["--keep", 0.99], "99"),
    ):
        result = fgvc("calibrate", bee_run, "--split", "test", *arguments)
        assert result.exit_code == 1 and f"at least {least}" in result.stderr, result.stderr
    assert "'cat'" in fgvc("calibrate", bee_run, "--split", "test", "--coverage", 0.8, "--by-class").stderr
    result = fgvc("calibrate", bee_run, "--split", "test", "--precision", 0.7, "--confidence", 0.5, "--score", "none")
    assert result.exit_code == 1 and "precision 0.5" in result.stderr  # 6 of 10 bees are right
    assert Calibration.read(bee_run / "model.safetensors") is None


def test_other_mistakes(fgvc, bee_run: Path, tmp_path: Path) -> None:
    cases = {
        2: (["--coverage", 90], ["--score", "distance"], ["--split", "train"], ["--precision", 1], ["--split", "no"]),
        1: (["--data", tmp_path / "gone"],),
    }
    for code, several in cases.items():
        for arguments in several:
            result = fgvc("calibrate", bee_run, *arguments)
            assert result.exit_code == code and result.stderr.count("error") == 1, result.stderr
    (bee_run / "config.toml").write_text(
        (bee_run / "config.toml").read_text().replace("[train]", "[train]\ntrain_on = 'train+val'")
    )
    result = fgvc("calibrate", bee_run)
    assert result.exit_code == 1 and "no validation images" in result.stderr


def test_scores_that_say_nothing_are_refused(fgvc, bee_run: Path) -> None:
    """The head ignores the image, so that all images have the same logits."""
    result = fgvc("calibrate", bee_run, "--split", "test", "--keep", 0.8, "--score", "max_logit")
    assert result.exit_code == 2 and "max_logit" in result.stderr, result.stderr


def test_a_damaged_calibration_is_one_clear_error(calibrated, fgvc) -> None:
    run, _ = calibrated
    file = run / "model.safetensors"
    document = Calibration.read(file).as_json()
    for broken in ({"temperature": "x"}, {"temperature": 0}, {"sets": {}}, {"novelty": 3}, {"split": None}):
        model_file.save_calibration(file, {**document, **broken}, {})
        with pytest.raises(model_file.FgvcError, match="calibrate"):
            Calibration.read(file)
