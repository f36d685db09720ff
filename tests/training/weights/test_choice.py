"""The policy for `--weights`, with a backbone of one layer and servers on this machine."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fgvc_cli import FgvcError, UsageError
from fgvc_cli.contracts import (
    Backbone,
    BackboneInfo,
    CamLayer,
    Features,
    MapInfo,
    PretrainedWeights,
    Reads,
    WeightsReport,
)
from fgvc_cli.training.weights.choice import apply, choose
from fgvc_cli.training.weights.hub import probe


class OneLayer(Backbone):
    """A backbone whose published weights lie where the test says."""

    def __init__(self, weights: PretrainedWeights | None) -> None:
        super().__init__()
        self.layer, self.weights, self.download_fails = nn.Linear(2, 3), weights, False
        maps = (MapInfo(3, 1, (1, 1)),)
        self.info = BackboneInfo("one_layer", "convolutional", 32, maps, 3, (0.5,) * 3, (0.5,) * 3)

    def forward(self, images: Tensor, reads: Reads) -> Features:
        raise NotImplementedError

    def prune(self, reads: Reads) -> None:
        raise NotImplementedError

    def cam_layer(self, map_index: int | None) -> CamLayer:
        raise NotImplementedError

    def pretrained(self, tag: str | None = None) -> PretrainedWeights | None:
        if tag not in (None, "other"):
            raise UsageError(f"one_layer has no weights '{tag}'. Did you mean 'other'?")
        return self.weights

    def fetch(self, weights: PretrainedWeights) -> dict[str, Tensor]:
        if self.download_fails:
            raise FgvcError(f"{weights.name}: the download failed (connection reset).")
        return {"layer.weight": torch.full((3, 2), 7.0), "layer.bias": torch.zeros(3)}

    def load_weights(self, state: Mapping[str, Any]) -> WeightsReport:
        if not set(state) & {"layer.weight", "layer.bias"}:
            raise FgvcError("The weights are not for one_layer.")
        self.load_state_dict({k: v for k, v in state.items() if k.startswith("layer.")}, strict=False)
        own = set(self.state_dict())
        unknown, missing = sorted(set(state) - own), sorted(own - set(state))
        return WeightsReport(tuple(own & set(state)), tuple(unknown), tuple(missing))


class Hub(BaseHTTPRequestHandler):
    """Answers as a hub does: /hub/ redirects and tells the size, /moved/ redirects first, /file/ is the file."""

    def do_HEAD(self) -> None:
        status, headers = {
            "/hub": (302, {"Location": "http://192.0.2.1/never-asked", "X-Linked-Size": "113000000"}),
            "/moved": (307, {"Location": "/hub"}),
            "/file": (200, {"Content-Length": "2000000"}),
            "/circle": (302, {"Location": "/circle"}),
        }.get(self.path, (404, {}))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Keep the tests' output clean."""


@pytest.fixture(autouse=True)
def plain_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes the connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/file"


@pytest.fixture
def nowhere() -> str:
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"http://127.0.0.1:{port}/file"


def backbone(url: str = "http://nobody.invalid/file", cached: Path | None = None) -> OneLayer:
    return OneLayer(PretrainedWeights("one_layer.in1k", url, cached))


def test_none_and_no_published_weights() -> None:
    assert choose(backbone(), "none", offline=False).kind == "none"
    choice = choose(OneLayer(None), "auto", offline=False)
    assert (choice.kind, choice.text) == (
        "none",
        "No ImageNet weights for one_layer are published: training from scratch.",
    )
    with pytest.raises(FgvcError, match="no ImageNet weights for one_layer are published"):
        choose(OneLayer(None), "imagenet", offline=False)


def test_cached_weights_are_used_without_a_word_to_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fgvc_cli.training.weights.choice.probe", lambda url: pytest.fail("the network was asked"))
    (tmp_path / "file").write_bytes(b"four")
    for wanted in ("auto", "imagenet", "other"):
        model = backbone(cached=tmp_path / "file")
        choice = choose(model, wanted, offline=True)
        assert choice.kind == "pretrained" and "one_layer.in1k (4 bytes), from the local cache" in choice.text
        assert apply(choice, model) is not None
        assert model.layer.weight[0, 0] == 7


@pytest.mark.parametrize("path", ["/hub", "/moved"])
def test_a_download_is_announced_with_name_and_size(hub: str, path: str) -> None:
    model = backbone(hub + path)
    choice = choose(model, "auto", offline=False)
    assert choice.text == "ImageNet weights for one_layer: downloading one_layer.in1k (113 MB) from 127.0.0.1."
    assert choice.kind == "pretrained" and apply(choice, model) is not None


def test_a_download_that_fails_is_an_error_only_if_asked_for(hub: str, caplog) -> None:
    caplog.set_level(logging.INFO)
    model = backbone(hub + "/file")
    model.download_fails = True
    before = model.layer.weight.clone()
    choice = choose(model, "auto", offline=False)
    assert apply(choice, model) is None and torch.equal(model.layer.weight, before)
    assert "connection reset" in caplog.text and "training from scratch" in caplog.text
    with pytest.raises(FgvcError, match="connection reset"):
        apply(choose(model, "imagenet", offline=False), model)


def test_offline_forbids_the_question_even(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fgvc_cli.training.weights.choice.probe", lambda url: pytest.fail("the network was asked"))
    assert "`offline` forbids the download: training from scratch" in choose(backbone(), "auto", offline=True).text
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE forbids the download" in choose(backbone(), "auto", offline=False).text
    with pytest.raises(FgvcError, match="HF_HUB_OFFLINE"):
        choose(backbone(), "imagenet", offline=False)


def test_no_network_is_one_line_at_once(nowhere: str) -> None:
    choice = choose(backbone(nowhere), "auto", offline=False)
    assert choice.kind == "none" and "the hub cannot be reached" in choice.text
    assert choice.text.endswith(": training from scratch.") and "\n" not in choice.text
    with pytest.raises(FgvcError, match="the hub cannot be reached"):
        choose(backbone(nowhere), "imagenet", offline=False)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fgvc_cli.training.weights.hub.TIMEOUT", 0.3)


@pytest.mark.usefixtures("impatient")
def test_a_server_that_never_answers_is_given_up(silent: str) -> None:
    choice = choose(backbone(silent), "auto", offline=False)
    assert choice.kind == "none" and "the hub cannot be reached" in choice.text


@pytest.mark.usefixtures("impatient")
def test_a_name_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: release.wait(60) and [])
    choice = choose(backbone("http://hub.invalid/file"), "auto", offline=False)
    release.set()
    assert "no answer from hub.invalid" in choice.text


def test_the_proxies_of_the_environment_are_used(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv("http_proxy", hub)
    answer = probe("http://hub.invalid/file")
    assert not answer.available and "HTTP 404" in answer.reason  # the proxy was asked for the whole address


def test_what_a_server_may_answer(hub: str) -> None:
    assert probe(hub + "/file").size == 2_000_000
    assert "HTTP 404" in probe(hub + "/gone").reason
    assert "redirects" in probe(hub + "/circle").reason


def test_an_unknown_tag_is_the_backbones_to_refuse() -> None:
    with pytest.raises(UsageError, match="Did you mean 'other'"):
        choose(backbone(), "otehr", offline=True)


def test_a_run_folder_stands_for_its_weights(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    choice = choose(backbone(), str(tmp_path), offline=True)
    assert (choice.kind, choice.file) == ("file", str(tmp_path / "model.safetensors"))


@pytest.mark.parametrize("wanted", ["gone.pth", "folder/of/nothing", "~/gone.safetensors"])
def test_a_path_where_nothing_is(wanted: str) -> None:
    with pytest.raises(FgvcError, match="no such file"):
        choose(backbone(), wanted, offline=True)


def test_a_folder_without_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    for wanted in (str(tmp_path), "mine", "."):
        with pytest.raises(FgvcError, match=r"this folder has no model\.safetensors"):
            choose(backbone(), wanted, offline=True)
