"""Components that misbehave at run time: one line names each, and `fgvc check-plugin` finds it beforehand."""

from __future__ import annotations

import copy
import itertools
import pickle
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from fgvc_cli import FgvcError
from fgvc_cli.config.run_config import setting_layer
from fgvc_cli.contracts import Classifier, Dataset, Preprocessing, Split
from fgvc_cli.data.acquisition.select import choose_dataset
from fgvc_cli.data.opening import open_dataset
from fgvc_cli.enforcement import make
from fgvc_cli.explaining.explainers import is_in_range, make_explainer
from fgvc_cli.options import NoOptions, parse_setting
from fgvc_cli.registry import get_registry
from fgvc_cli.runs.model_file import build_backbone, build_head
from fgvc_cli.testing import contract
from fgvc_cli.training import run as training
from fgvc_cli.training.callbacks import Callback

PACKAGES = Path(__file__).parent / "flawed"
sys.path.insert(0, str(PACKAGES))
from fgvc_flawed.at_run_time.table import MISBEHAVIORS, Misbehavior  # noqa: E402

sys.path.pop(0)


def train(flaw, out, *callbacks, track=()):
    """Train for one epoch with the sound components and one that is not."""
    names = dict.fromkeys(("backbone", "head", "optimizer", "dataset"), "fgvc-flawed:sound")
    common = {"weights": "none", "image_size": 32, "batch_size": 4, "epochs": 1, "device": "cpu", "workers": 0}
    layers = [{**{kind: {"name": name} for kind, name in names.items()}, "train": common}]
    reference = f"fgvc-flawed:{flaw.name}"
    chosen = {"track": list(track) or [reference]} if flaw.kind == "tracker" else {"name": reference}
    layers.append({"train" if flaw.kind == "tracker" else flaw.kind: chosen})
    for setting in flaw.use.split()[1:]:
        kind, name, value = parse_setting(setting.replace("head=", "head.name="))
        layers.append(setting_layer(f"{kind}.{name}", value))
    recipe = "probe" if flaw.spec.get("fitted") else "scratch"
    return training.train(layers, recipe, out, False, get_registry(), callbacks)


class Stop(Callback):
    """Interrupts a training after its first epoch."""

    def on_epoch_end(self, metrics, is_best):
        raise FgvcError("stopped")


def resume(flaw, out):
    with pytest.raises(FgvcError, match="stopped"):
        train(flaw, out, Stop())
    config = out / "config.toml"
    config.write_text(config.read_text().replace("epochs = 1\n", "epochs = 2\n"))
    training.resume(out, get_registry())


def classifier_of(kind, name):
    registry = get_registry()
    names = {"backbone": "sound", "head": "sound", kind: name}
    backbone, head = (registry.find(k, f"fgvc-flawed:{names[k]}") for k in ("backbone", "head"))
    built = build_backbone(backbone, NoOptions(), 32)
    preprocessing = Preprocessing(32, 36, built.info.mean, built.info.std)
    return Classifier(built, build_head(head, NoOptions(), built, 3), ["ant", "bee", "cat"], preprocessing).eval()


def explain(explainer, classifier):
    named = make_explainer(explainer, {}, get_registry())
    named.check(classifier)
    named.notes(classifier)
    maps = named.explain(classifier, torch.rand(2, 3, 32, 32), torch.tensor([0, 1]))
    if not is_in_range(maps).all():
        raise named.out_of_range()


def load_weights(flaw, out):
    save_file({"other": torch.zeros(1)}, out.with_suffix(".safetensors"))
    train(replace(flaw, use=f"train train.weights={out}.safetensors"), out)


def open_parts(flaw, out):
    open_dataset(get_registry().find("dataset", flaw.name), NoOptions(), None, 0).deciding_parts()


USES = {
    "train": train,
    "resume": resume,
    "weights": load_weights,
    "gradcam": lambda flaw, out: explain("gradcam", classifier_of(flaw.kind, flaw.name)),
    "attention": lambda flaw, out: explain("native", classifier_of(flaw.kind, flaw.name)),
    "explain": lambda flaw, out: explain(flaw.name, classifier_of("head", "sound")),
    "provision": lambda flaw, out: choose_dataset(flaw.name, None, [], get_registry()).provision(),
    "parts": open_parts,
}


@pytest.mark.parametrize("flaw", [f for f in MISBEHAVIORS if f.use != "warning"], ids=lambda f: f"{f.kind} {f.name}")
def test_misbehavior_is_named_in_one_line(flawed, tmp_path, flaw):
    with pytest.raises(FgvcError) as caught:
        USES[flaw.use.split()[0]](flaw, tmp_path / "run")
    message = str(caught.value)
    assert f"{flaw.kind} '{flaw.name}' of fgvc-flawed==1.0" in message and flaw.says in message and "\n" not in message


def test_tracker_that_misbehaves_is_warned_of(flawed, tmp_path, caplog):
    """The training goes on."""
    flaws = [flaw for flaw in MISBEHAVIORS if flaw.use == "warning"]
    assert len(flaws) > 4
    train(flaws[0], tmp_path / "run", track=[f"fgvc-flawed:{flaw.name}" for flaw in flaws])
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    for flaw in flaws:
        (line,) = [text for text in warnings if text.startswith(f"tracker '{flaw.name}' of fgvc-flawed==1.0: ")]
        assert flaw.says in line and "\n" not in line
    assert (tmp_path / "run" / "summary.json").is_file()


def test_last_state_is_kept(flawed, tmp_path, monkeypatch):
    """An optimizer that fails in the second epoch leaves the state after the first, which can be resumed."""
    from fgvc_flawed.optimizers import Sound

    class Later(Sound):
        saved = itertools.count()

        def state_dict(self):
            return {}["momentum"] if next(self.saved) == 1 else super().state_dict()

    out = tmp_path / "run"
    monkeypatch.setattr("fgvc_flawed.optimizers.Sound", Later)
    with pytest.raises(FgvcError, match=rf"failed in state_dict.*The state after epoch 1 is saved in {out}"):
        train(Misbehavior("optimizer", "Sound", "train train.epochs=2", "", "", name="sound"), out)
    assert training.resume(out, get_registry()).summary.epochs == 2


@pytest.mark.parametrize("flaw", MISBEHAVIORS, ids=lambda flaw: f"{flaw.kind} {flaw.name}: {flaw.check}")
def test_misbehavior_is_found_beforehand(flawed, flaw):
    (check,) = [c for c in contract(flaw.kind, f"fgvc-flawed:{flaw.name}", partners=False) if c.title == flaw.check]
    result = check.result()
    assert result.status == "failed" and "\n" not in result.reason, result


def test_components_are_not_changed_by_being_checked(flawed):
    """A checked component keeps its class's name and weights, and copies and pickles as one of its own class."""
    head = classifier_of("head", "sound").head
    from fgvc_flawed.heads import Sound

    assert isinstance(head, Sound) and type(head).__name__ == "Sound" and type(head) is not Sound
    for copied in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        assert type(copied) is Sound
        assert all(torch.equal(value, copied.state_dict()[name]) for name, value in head.state_dict().items())


@dataclass(frozen=True)
class Frozen(Dataset):
    """A dataset that is a frozen dataclass, with static and class methods."""

    name: str = "frozen"
    class_names: tuple[str, ...] = ("ant", "bee")

    @staticmethod
    def splits():
        return ("train",)

    @classmethod
    def split(cls, name):
        return Split(name, ["a.png", "b.png"], [0, 1], ["a.png", "b.png"])

    def identity(self):
        return {"name": "frozen"}


def test_unusual_classes_that_keep_their_contract_are_used():
    component = SimpleNamespace(
        builtin=False, kind="dataset", title="dataset 'frozen' of made==1.0", make=lambda **_: Frozen()
    )
    dataset = make(component, Dataset)
    assert dataset.splits() == ("train",) and len(dataset.split("train")) == 2 and type(dataset) is not Frozen
