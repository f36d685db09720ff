"""The words on an explained image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fgvc_cli.cli.explanation_tables import ExplanationWriter, gallery_lines, next_commands
from fgvc_cli.contracts import Preprocessing
from fgvc_cli.explaining.explanation import ExplainedImage, Explanation, Sight, Subject, decision_sentence
from fgvc_cli.explaining.masking import Cover

COVERED = "with the most marked 20.0 % covered"
LOOKED_AT_BY = ["looked", "at", "by", "predicted", "probability", "map", "of", "its", "probability"]
NOTHING = np.zeros((2, 2), np.float32)


def explanation(predicted: Sequence[str], explained: str | None = None, covered: float = 0.2) -> Explanation:
    sights = [
        Sight(covered * step, name, 0.9 - 0.3 * step, explained or name, 0.25, 0.125, NOTHING, NOTHING > 0)
        for step, name in enumerate(predicted)
    ]
    return Explanation("runs/a", "gradcam", Preprocessing(2, 2, (0.0,) * 3, (1.0,) * 3), NOTHING, sights)


@pytest.mark.parametrize(
    ("predicted", "true", "words"),
    [
        (["ant", "ant"], None, f"The decision survived: {COVERED} it is still ant, at 60.0 % where it was 90.0 %."),
        (["ant", "ant"], "ant", "where it was 90.0 %."),
        (["ant", "ant"], "bee", "It was wrong, and still is."),
        (["ant", "bee"], None, f"The decision did not survive: {COVERED} it is bee (60.0 %) instead of ant."),
        (["ant", "bee"], "ant", "It was right, and is wrong now."),
        (["ant", "bee"], "bee", "It was wrong, and is right now."),
        (["ant", "bee"], "cat", "It was wrong, and still is."),
        (["ant", "ant", "bee"], None, "did not survive step 2: with the most marked 40.0 % covered it is bee (30.0 %)"),
        (["ant", "bee", "ant"], None, "did not survive step 1: with the most marked 20.0 % covered it is bee (60.0 %)"),
    ],
)
def test_whether_the_decision_survived(predicted, true, words):
    sentence = decision_sentence(explanation(predicted), true)
    assert words in sentence and (true is not None or sentence == words or "step" in words)
    assert ("survived" in sentence) == (len(set(predicted)) == 1)


def test_a_covering_of_nothing_tests_nothing():
    assert "Nothing was covered" in decision_sentence(explanation(["ant", "ant"], covered=0.0), "ant")


def test_the_columns_are_those_that_say_something(capsys):
    def heads(image: ExplainedImage, cover: Cover | None) -> str:
        ExplanationWriter({"runs": ["runs/a"]}, cover, False).image(image, Path("x.explain.png"))
        return capsys.readouterr().out.splitlines()[1]

    plain = ExplainedImage(Subject("a.jpg", Path("a.jpg")), [explanation(["ant"])])
    assert heads(plain, None).split() == ["predicted", "probability"]
    labeled = ExplainedImage(Subject("a.jpg", Path("a.jpg"), "bee"), [explanation(["ant", "ant"])])
    assert heads(labeled, Cover()).split() == [
        "step",
        "covered",
        "predicted",
        "probability",
        "of",
        "the",
        "true",
        "class",
    ]
    other = ExplainedImage(Subject("a.jpg", Path("a.jpg")), [explanation(["ant"], "cat"), explanation(["ant"], "cat")])
    assert heads(other, None).split() == LOOKED_AT_BY


def test_the_end_counts_what_survived_and_says_where_the_pictures_are(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/a").mkdir(parents=True)
    (tmp_path / "runs/a/config.toml").touch()
    writer = ExplanationWriter({"runs": ["runs/a"]}, Cover(), False)
    for i, last in enumerate(["ant", "ant", "bee"]):
        image = ExplainedImage(Subject(f"{i}.jpg", Path(f"{i}.jpg")), [explanation(["ant", last])])
        writer.image(image, Path(f"out/{i}.explain.png"))
    capsys.readouterr()
    writer.close({})
    survived, pictures, command = capsys.readouterr().out.splitlines()
    assert survived == "The decision survived in 2 of 3 images." and pictures == "pictures: 3 in out/"
    assert command == "next: fgvc explain --limit 100 --run runs/a --occlude"


def test_a_run_that_names_no_data_set_is_not_said_to_be_explained_over_it(tmp_path):
    run = str(tmp_path)
    assert next_commands("a.jpg", [run], covered=True) == []
    assert next_commands("a.jpg", [run], covered=False) == [f"fgvc explain a.jpg --run {run} --occlude"]
    (tmp_path / "config.toml").touch()
    assert next_commands("a.jpg", [run], covered=True) == [f"fgvc explain --limit 100 --run {run} --occlude"]


def test_without_an_image_there_is_nothing_to_say(capsys):
    ExplanationWriter({"runs": ["runs/a"]}, None, False).close({"a.jpg": "broken"})
    assert capsys.readouterr().out == ""


def test_no_pictures_of_a_study_are_not_spoken_of():
    assert gallery_lines([], []) == []
