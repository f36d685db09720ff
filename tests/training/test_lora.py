"""Low-rank adapters in the backbone, merged when the model is saved."""

from __future__ import annotations

import pytest
import torch

from fgvc_cli.config.train_options import TrainOptions
from fgvc_cli.contracts import Classifier, Preprocessing
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.registry import get_registry
from fgvc_cli.runs.model_file import build_backbone, build_head, load_classifier
from fgvc_cli.training import lora
from fgvc_cli.training.lora import add_adapters
from fgvc_cli.training.state import Interrupted

pytest.importorskip("peft")

LINEAR = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


@pytest.fixture
def made():
    """A function that builds a classifier with random weights."""

    def make(name, size=64):
        torch.manual_seed(0)
        parts = {kind: get_registry().find(kind, n) for kind, n in (("backbone", name), ("head", "linear"))}
        options = {kind: part.options_type()() for kind, part in parts.items()}
        backbone = build_backbone(parts["backbone"], options["backbone"], size)
        head = build_head(parts["head"], options["head"], backbone, 3)
        torch.nn.init.normal_(head.classifier.weight)
        return Classifier(backbone, head, "abc", Preprocessing(size, size, (0.5,) * 3, (0.5,) * 3)).eval()

    return make


@pytest.mark.parametrize(("name", "layers"), [("timm/test_vit", "linear"), ("timm/test_resnet", "linear+conv")])
def test_merged_weights_are_those_of_the_formula_and_give_the_same_logits(made, name, layers) -> None:
    classifier, plain = made(name), made(name)
    options = TrainOptions(lora_rank=3, lora_alpha=6.0, lora_layers=layers)
    adapters = add_adapters(classifier, options)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(classifier(images), plain(images))  # B is 0
        for parameter_name, parameter in classifier.named_parameters():
            if "lora_B" in parameter_name:
                torch.nn.init.normal_(parameter, std=0.1)
        adapted, before = classifier(images), plain(images)
        state = plain.state_dict()
        for layer_name, layer in adapters.layers.items():
            a, b = (getattr(layer, f"lora_{side}")["default"].weight for side in "AB")
            weight = state[f"{layer_name}.weight"]
            weight += 6 / 3 * (b.flatten(1) @ a.flatten(1)).view_as(weight)
        merged = adapters.merged()
        assert merged.keys() == state.keys()
        assert all(torch.allclose(merged[entry], state[entry], atol=1e-6) for entry in state)
        assert torch.allclose(plain(images), adapted, atol=1e-4) and not torch.allclose(before, adapted, atol=1e-2)
        adapters.remove()
        classifier.load_state_dict(merged)
        assert torch.allclose(classifier(images), adapted, atol=1e-4)


def test_the_linear_layers_of_a_transformer_and_the_head_train(made) -> None:
    classifier = made("timm/test_vit")
    adapters = add_adapters(classifier, TrainOptions(lora_rank=2))
    blocks = len({name.split(".")[3] for name in adapters.layers})
    assert len(adapters.layers) == blocks * len(LINEAR) and all(name.endswith(LINEAR) for name in adapters.layers)
    trained = [name for name, parameter in classifier.named_parameters() if parameter.requires_grad]
    assert all("lora_" in name or name.startswith("head.") for name in trained)
    classifier(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(classifier.get_parameter(name).grad is not None for name in trained)


@pytest.mark.slow
def test_layers_whose_weights_are_used_without_a_call_have_no_adapter(made) -> None:
    adapters = add_adapters(made("timm/beit_base_patch16_224", 224), TrainOptions(lora_rank=2))
    assert not any(name.endswith("qkv") for name in adapters.layers)


@pytest.mark.parametrize(
    "options",
    [
        {"head": "linear", "optimizer": "sam", "ema": 0.9},
        {"head": "pim", "optimizer": "adamw", "grad_accum_steps": 2},
        pytest.param({"head": "cmal"}, marks=pytest.mark.slow),
    ],
)
def test_a_run_with_adapters_resumes_and_saves_an_ordinary_model(
    train, resume, interrupt_at, assert_same, tmp_path, options
) -> None:
    lora_options = {"lora_rank": 2, "lora_layers": "linear+conv", **options}
    whole = train(tmp_path / "whole", **lora_options).run
    with pytest.raises(Interrupted):
        train(tmp_path / "run", interrupt_at(3), **lora_options)
    assert_same(resume(tmp_path / "run"), whole)
    first = load_classifier(whole.path)
    assert not any("lora" in name for name in first.state_dict())
    parameters = whole.summary.parameters
    assert parameters["trained"] < parameters["head"] + 0.2 * parameters["backbone"]
    assert parameters["backbone"] == sum(p.numel() for p in first.backbone.parameters())


def test_what_cannot_be_adapted_is_refused(train, tmp_path, monkeypatch) -> None:
    with pytest.raises(UsageError, match=r"test_resnet.*linear\+conv"):
        train(tmp_path / "run", lora_rank=4)
    for freeze in ("all", 4):
        with pytest.raises(UsageError, match="freezes all adapters"):
            train(tmp_path / "run", lora_rank=4, lora_layers="linear+conv", freeze=freeze)
    monkeypatch.setattr(lora, "find_spec", lambda name: None)
    with pytest.raises(FgvcError, match=r"pip install.*fgvc-cli\[lora\]"):
        train(tmp_path / "run", lora_rank=4)
