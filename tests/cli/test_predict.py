"""`fgvc predict` from end to end, on a classifier that always predicts "bee"."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest


@pytest.fixture
def photos(bee_run: Path, tmp_path: Path) -> Path:
    """A folder with two images, one of them in a folder below."""
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    source = (tmp_path / "insects/train/ant/0.png").read_bytes()
    (folder / "a.png").write_bytes(source)
    (folder / "deep/b.png").write_bytes(source)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_files_and_folders_give_a_table(fgvc, bee_run: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(photos.parent)
    result = fgvc("predict", "photos", "--run", bee_run, "--top-k", 2)
    assert result.exit_code == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    assert rows[0] == ["image", "class", "probability"]
    assert rows[1:] == [
        ["photos/a.png", "bee", "60.0", "%"],
        ["ant", "30.0", "%"],
        ["photos/deep/b.png", "bee", "60.0", "%"],
        ["ant", "30.0", "%"],
    ]
    assert f"run        {bee_run}" in result.stderr


def test_json_is_one_document(fgvc, bee_run: Path, photos: Path) -> None:
    result = fgvc("predict", photos / "a.png", photos / "deep", "--run", bee_run, "--json")
    document = json.loads(result.stdout)
    assert [p["image"] for p in document["predictions"]] == [str(photos / "a.png"), str(photos / "deep/b.png")]
    classes = document["predictions"][0]["classes"]
    assert [c["class"] for c in classes] == ["bee", "ant", "cat"]
    assert [c["probability"] for c in classes] == pytest.approx([0.6, 0.3, 0.1], abs=1e-5)
    assert document["failures"] == []
    assert document["run"] == str(bee_run)


def test_csv_has_a_line_per_image(fgvc, bee_run: Path, photos: Path) -> None:
    result = fgvc("predict", photos, "--run", bee_run, "--csv", "--top-k", 9)
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert len(rows) == 2
    assert (rows[1]["image"], rows[1]["class_1"], rows[1]["probability_1"]) == (
        str(photos / "deep/b.png"),
        "bee",
        "0.600000",
    )
    assert "class_3" in rows[0]
    assert "class_4" not in rows[0]  # there are three classes


def test_unreadable_images_are_reported_and_skipped(fgvc, bee_run: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (tmp_path / "empty").mkdir()
    result = fgvc("predict", photos, tmp_path / "gone.png", tmp_path / "empty", "--run", bee_run, "--json")
    assert result.exit_code == 3
    document = json.loads(result.stdout)
    assert len(document["predictions"]) == 2
    failed = {failure["image"]: failure["reason"] for failure in document["failures"]}
    assert failed.keys() == {str(tmp_path / "gone.png"), str(tmp_path / "empty"), str(photos / "broken.jpg")}
    assert all(f" {name}: " in result.stderr for name in failed)


def test_without_any_prediction_the_exit_code_is_1(fgvc, bee_run: Path, photos: Path) -> None:
    (photos / "a.png").write_bytes(b"broken")
    result = fgvc("predict", photos / "a.png", "--run", bee_run, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["predictions"] == []
    assert "no image could be classified" in result.stderr


def test_scores_that_are_not_finite_are_reported(fgvc, bee_run: Path, photos: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    file = bee_run / "model.safetensors"
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = {name: t + 3e38 if name.startswith("head.") else t for name, t in load_file(file).items()}
    save_file(tensors, file, metadata)  # finite themselves
    result = fgvc("predict", photos / "a.png", "--run", bee_run)
    assert result.exit_code == 1
    assert f"{photos / 'a.png'}: the classifier's scores are not finite" in result.stderr


def test_no_image_at_all_is_a_clear_error(fgvc, bee_run: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = fgvc("predict", tmp_path / "empty", tmp_path / "gone", "--run", bee_run)
    assert result.exit_code == 1
    assert f"{tmp_path / 'gone'}: no such file" in result.stderr and f"{tmp_path / 'empty'}: no image" in result.stderr
    assert result.stdout == ""


def test_batches_and_workers_change_nothing(fgvc, bee_run: Path, photos: Path) -> None:
    one = fgvc("predict", photos, "--run", bee_run, "--csv", "--batch-size", 1).stdout
    assert fgvc("predict", photos, "--run", bee_run, "--csv", "--workers", 1).stdout == one


def test_running_out_of_memory_says_what_to_lower(fgvc, bee_run: Path, photos: Path, monkeypatch) -> None:
    import torch

    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("fgvc_cli.scoring.tta.scores_of", exhausted)
    result = fgvc("predict", photos, "--run", bee_run, "--batch-size", 8)
    assert result.exit_code == 1
    assert "--batch-size 4" in result.stderr
