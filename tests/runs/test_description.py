"""Model files of strangers: any mutation of their description is one clear error, or loads."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from torch import nn

from fgvc_cli.contracts import Classifier, Preprocessing
from fgvc_cli.errors import FgvcError
from fgvc_cli.registry import get_registry
from fgvc_cli.runs import model_file
from fgvc_cli.runs.model_file import (
    build_backbone,
    build_head,
    describe_classifier,
    describe_component,
    load_classifier,
    read_metadata,
    save_classifier,
)

VALUES = (None, -1, 10**30, 1.5, True, "x", "\x1b[2J", [], {}, [{}], {"a": [1]})


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A model file with random weights."""
    registry = get_registry()
    chosen = {kind: registry.find(kind, name) for kind, name in (("backbone", "timm/test_resnet"), ("head", "linear"))}
    options = {kind: component.options_type()() for kind, component in chosen.items()}
    backbone = build_backbone(chosen["backbone"], options["backbone"], 32)
    head = build_head(chosen["head"], options["head"], backbone, 2)
    preprocessing = Preprocessing(32, 36, backbone.info.mean, backbone.info.std)
    classifier = Classifier(backbone, head, ("jay", "wren"), preprocessing)
    file = tmp_path_factory.mktemp("run") / "model.safetensors"
    components = {kind: describe_component(component, options[kind]) for kind, component in chosen.items()}
    save_classifier(file, classifier, {"components": components, **describe_classifier(classifier), "weights": "none"})
    return file


def mutations(document: Any, rebuild=lambda value: value) -> Iterator[Any]:
    """Yield copies of a document in which one value, at any depth, is another or is missing."""
    for name, value in document.items():
        for other in VALUES:
            yield rebuild({**document, name: other})
        yield rebuild({key: each for key, each in document.items() if key != name})
        if isinstance(value, dict):
            yield from mutations(value, lambda inner, name=name: rebuild({**document, name: inner}))


def test_every_mutation_of_a_description_is_an_error_of_ours(saved, monkeypatch) -> None:
    document = read_metadata(saved)
    tried, messages = 0, list[str]()
    monkeypatch.setattr(model_file, "build_backbone", lambda *_: None)
    monkeypatch.setattr(model_file, "build_head", lambda *_: None)
    monkeypatch.setattr(model_file, "load_state", lambda *_: None)

    class Built(Classifier):
        def __init__(self, backbone, head, class_names, preprocessing) -> None:
            preprocessing.resized_size((40, 30))
            super().__init__(nn.Identity(), nn.Identity(), class_names, preprocessing)

    for mutated in mutations(document):
        tried += 1
        monkeypatch.setattr(model_file, "load_document", lambda _, found=mutated: copy.deepcopy(found))
        try:
            load_classifier(saved, cls=Built)
        except FgvcError as error:
            messages.append(str(error))
    assert tried > 250 and max(map(len, messages)) < 1000
    assert not any("pip install" in message for message in messages)


def test_a_deeply_nested_description_is_damaged(saved, tmp_path, monkeypatch) -> None:
    file = tmp_path / "model.safetensors"
    monkeypatch.setattr(model_file.json, "dumps", lambda *_, **__: "[" * 100_000)
    model_file.save(file, {}, {})
    with pytest.raises(FgvcError, match="damaged"):
        read_metadata(file)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["head.classifier.weight", "backbone.model.conv1.0.weight", "running_var"])
def test_weights_that_are_not_finite_are_refused(saved, tmp_path, name, value) -> None:
    state, document = model_file.load(saved)
    entry = next(each for each in state if each.endswith(name))
    state[entry].view(-1)[0] = value
    model_file.save(tmp_path / "model.safetensors", state, document)
    with pytest.raises(FgvcError, match=rf"is damaged: 1 of \d+ values of {entry} are NaN or infinite"):
        load_classifier(tmp_path / "model.safetensors")
