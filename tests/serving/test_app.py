"""Answers of the application are those of the commands; everything else is refused in one line."""

from __future__ import annotations

import io
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

FORM = "multipart/form-data"
NOT_AN_IMAGE = {"image": ("notes.txt", b"hello")}
ODD_NAME = b'--a\r\nContent-Disposition: form-data; name="image"; filename="\\ud800"\r\n\r\nx\r\n--a--\r\n'
ODD_FORM = f"{FORM}; boundary=a; charset=unicode_escape"
NO_CHARSET = f"{FORM}; boundary=a; charset=undefined"
DAMAGED = {"image": ("a.png", b"\x89PNG\r\n\x1a\n" + 40 * b"\0")}


def fgvc(*words: Any) -> Any:
    from fgvc_cli.cli.app import build_app

    result = CliRunner().invoke(build_app(), [str(word) for word in words])
    assert result.exit_code == 0, result.stderr
    return result


def uploads(photos: list[Path]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", (photo.name, photo.read_bytes())) for photo in photos]


def test_predictions_are_those_of_the_command_to_the_last_digit(client, run, photos):
    asked = client()
    given = ("--run", run, "--workers", 0, "--device", "cpu", "--json")
    expected = json.loads(fgvc("predict", *photos, *given, "--top-k", 3, "--sure", 0.8, "--sets").stdout)
    found = asked.post("/predict?top_k=3&sure=0.8&sets=true", files=uploads(photos)).json()
    assert found["run"] == run.name and found["failures"] == []
    for index, (ours, theirs) in enumerate(zip(found["predictions"], expected["predictions"], strict=True)):
        assert ours == {**theirs, "image": photos[index].name, "index": index}
    assert {"classes", "sure", "answer", "reason", "set"} <= set(found["predictions"][0])
    assert {prediction["answer"] for prediction in found["predictions"]} >= {"unknown"}
    body = {"content": photos[1].read_bytes(), "headers": {"Content-Type": "image/jpeg"}}
    (alone,) = asked.post("/predict", **body).json()["predictions"]
    (theirs,) = json.loads(fgvc("predict", photos[1], *given).stdout)["predictions"]
    assert alone == {**theirs, "image": "image", "index": 0}


def test_images_that_cannot_be_read_are_named_by_their_place(client, photos):
    files = [("image", ("same.jpg", b"x")), *uploads(photos[:1]), ("image", ("same.jpg", b""))]
    found = client().post("/predict", files=files).json()
    assert [prediction["index"] for prediction in found["predictions"]] == [1]
    assert [(failure["image"], failure["index"]) for failure in found["failures"]] == [("same.jpg", 0), ("same.jpg", 2)]


def test_explanations_are_those_of_the_command(client, run, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(photos[1].parent)
    fgvc("explain", photos[1].name, "--run", run, "--device", "cpu", "--workers", 0, "--out", tmp_path)
    asked = client()
    panel = asked.post("/explain", files=uploads(photos[1:2]))
    assert panel.headers["content-type"] == "image/png"
    drawn, expected = (Image.open(file) for file in (io.BytesIO(panel.content), next(tmp_path.iterdir())))
    assert drawn.size == expected.size and np.array_equal(np.asarray(drawn), np.asarray(expected))
    answer = asked.post("/explain?picture=map&explainer=eigencam", files=uploads(photos[1:2]))
    assert Image.open(io.BytesIO(answer.content)).size == (240, 320), "the photograph, upright"


def test_what_there_is_to_know(client):
    asked = client()
    card = asked.get("/model").json()
    assert (card["classes"], card["image_size"], card["levels"]) == (
        ["ant", "bee", "cat", "dog"],
        32,
        ["species", "kind"],
    )
    assert (card["backbone"]["name"], card["head"]["name"]) == ("timm/test_resnet", "linear")
    assert card["explainers"][0] == "gradcam" and "rollout" not in card["explainers"] and card["sets"]
    assert asked.get("/health").json() == {"status": "ok", "requests": 0}
    assert [asked.head(path).status_code for path in ("/", "/health", "/model")] == [200] * 3
    assert asked.post("/predict/x").status_code == 404 and asked.get("/predict").headers["allow"] == "POST"
    page = asked.get("/")
    assert "script-src 'self'" in page.headers["content-security-policy"] and "://" not in page.text
    assert set(asked.get("/openapi.json").json()["paths"]) == {"/health", "/model", "/predict", "/explain"}


@pytest.mark.parametrize(
    ("path", "request_", "status", "fact"),
    [
        ("/predict", {}, 415, "content type missing"),
        ("/predict", {"data": {"image": "a"}}, 415, "urlencoded"),
        ("/predict", {"content": b"x", "headers": {"Content-Type": FORM}}, 400, "boundary"),
        ("/predict", {"content": b"--a--\r\n", "headers": {"Content-Type": f"{FORM}; boundary=a"}}, 422, "no image"),
        ("/predict", {"files": {"image": (None, b"text")}}, 422, "not a file"),
        ("/predict", {"files": NOT_AN_IMAGE}, 422, "notes.txt: not an image"),
        ("/predict", {"files": DAMAGED}, 422, "a.png: "),
        ("/predict", {"content": ODD_NAME, "headers": {"Content-Type": ODD_FORM}}, 422, "not an image"),
        ("/predict", {"content": ODD_NAME, "headers": {"Content-Type": NO_CHARSET}}, 400, "undefined"),
        ("/explain", {"files": NOT_AN_IMAGE}, 422, "notes.txt: not an image"),
        ("/predict?topk=3", {"files": DAMAGED}, 422, "Did you mean 'top_k'"),
        ("/predict?top_k=0", {"files": DAMAGED}, 422, "top_k"),
        ("/predict?sure=nan", {"files": DAMAGED}, 422, "sure"),
        ("/predict?sure=2", {"files": DAMAGED}, 422, "sure"),
        ("/explain?explainer=nope", {"files": DAMAGED}, 422, "nope"),
        ("/explain?explainer=rollout", {"files": DAMAGED}, 422, "rollout"),
        ("/explain?target=eagle", {"files": DAMAGED}, 422, "eagle"),
        ("/explain?target=true", {"files": DAMAGED}, 422, "true class"),
        ("/explain", {"files": [("image", ("a", b"a")), ("image", ("b", b"b"))]}, 422, "2 images"),
        ("/nowhere", {}, 404, "/nowhere"),
        ("/model", {}, 405, "use GET"),
        ("/predict", {"files": DAMAGED, "headers": {"Origin": "http://evil.example"}}, 403, "origin"),
        ("/predict", {"files": DAMAGED, "headers": {"Origin": "http://localhost:3000"}}, 403, "origin"),
        ("/predict", {"files": DAMAGED, "headers": {"Origin": "null"}}, 403, "origin"),
        ("/predict", {"files": DAMAGED, "headers": {"Host": "evil.example"}}, 403, "evil.example"),
        ("/predict", {"files": DAMAGED, "headers": {"Host": "[::1"}}, 403, "not called"),
    ],
)  # fmt: skip
def test_refusals(client, path, request_, status, fact):
    answer = refused(client().post(path, **request_), status)
    assert fact in answer


def refused(answer: Any, status: int) -> str:
    """Check that a request is refused in one line, and return the line."""
    assert answer.status_code == status, answer.text
    (line,) = answer.json().values()
    assert "\n" not in line and "Traceback" not in line
    return str(line)


def test_addresses_and_the_own_origin_are_allowed(client, photos):
    for host in ("192.168.1.7:8000", "[fe80::1]", "localhost"):
        headers = {"Host": host, "Origin": f"http://{host}"}
        assert client().post("/predict", files=uploads(photos[:1]), headers=headers).status_code == 200, host


def test_limits(client, photos):
    asked = client(max_upload=20_000, max_images=2, max_pixels=70_000)
    large = {"image": ("a.png", bytes(30_000))}
    refused(asked.post("/predict", files=large), 413)
    refused(asked.post("/predict", content=iter([bytes(15_000)] * 2), headers={"Content-Type": "image/png"}), 413)
    buffer = io.BytesIO()
    Image.new("RGB", (280, 251)).save(buffer, "png")
    assert "280x251" in refused(asked.post("/predict", files={"image": ("a.png", buffer.getvalue())}), 413)
    assert "2 images" in refused(asked.post("/predict", files=[("image", ("a", b"a"))] * 3), 413)
    assert refused(asked.post("/explain", files={"image": ("a.png", buffer.getvalue())}), 413)


@pytest.fixture
def blocked(monkeypatch):
    """Predictions wait: two events, "one has begun" and "they may end"."""
    from fgvc_cli.serving.model import ServedModel

    begun, end, predict = threading.Event(), threading.Event(), ServedModel.predict

    def wait(self, *arguments, **options):
        begun.set()
        assert end.wait(20)
        return predict(self, *arguments, **options)

    monkeypatch.setattr(ServedModel, "predict", wait)
    yield begun, end
    end.set()


def test_a_bounded_number_waits(client, photos, blocked):
    begun, end = blocked
    with client(queue=1) as asked, ThreadPoolExecutor(3) as threads:
        answers = [threads.submit(asked.post, "/predict", files=uploads(photos[:1]))]
        assert begun.wait(20)
        answers.append(threads.submit(asked.post, "/predict", files=uploads(photos[:1])))
        while asked.get("/health").json()["requests"] < 2:
            pass
        busy = asked.post("/predict", files=uploads(photos[:1]))
        refused(busy, 503)
        assert int(busy.headers["retry-after"]) > 0
        end.set()
        assert [answer.result().status_code for answer in answers] == [200, 200]
        assert asked.get("/health").json()["requests"] == 0


def test_an_answer_that_takes_too_long(client, photos, blocked):
    _, end = blocked
    with client(timeout=0.3) as asked:
        refused(asked.post("/predict", files=uploads(photos[:1])), 504)
        refused(asked.post("/predict", files=uploads(photos[:1])), 504)  # the first one still runs
        end.set()
        while asked.post("/predict", files=uploads(photos[:1])).status_code != 200:
            pass


def test_an_error_of_a_component_is_one_line(client, photos, monkeypatch):
    from fgvc_cli.serving.model import ServedModel

    monkeypatch.setattr(ServedModel, "predict", lambda *_: 1 / 0)
    asked = client()
    assert "ZeroDivisionError" in refused(asked.post("/predict", files=uploads(photos[:1])), 500)


def test_an_error_of_the_server_is_one_line(client, monkeypatch):
    from fgvc_cli.serving.turns import Turns

    monkeypatch.setattr(Turns, "place", lambda _: 1 / 0)
    asked = client()
    asked._transport.raise_server_exceptions = False
    assert "ZeroDivisionError" in refused(asked.post("/predict", files=DAMAGED), 500)


def test_what_is_missing_or_wrong_is_said_before_anything_is_loaded(run, monkeypatch):
    import fgvc_cli
    from fgvc_cli.serving import server

    for wrong in ({"port": 70_000}, {"host": "no such host"}):
        with pytest.raises(fgvc_cli.UsageError, match=str(*wrong.values())):
            fgvc_cli.serve(run, **wrong)
    monkeypatch.setattr(server, "find_spec", lambda name: None if name == "uvicorn" else name)
    with pytest.raises(fgvc_cli.FgvcError, match=r"uvicorn.*fgvc-cli\[serve\]"):
        fgvc_cli.serve(run)
