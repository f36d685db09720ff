"""`precision=auto` on a CPU: decided by timed updates, once, without a trace in the training."""

from __future__ import annotations

import json

import pytest
import torch

from fgvc_cli import settings
from fgvc_cli.devices import note_on_threads
from fgvc_cli.launch import usable_cores
from fgvc_cli.runs.folder import RUNS, STUDY_FILE
from fgvc_cli.scoring.model import InferenceSettings, load
from fgvc_cli.scoring.precision import Decision, Decisions
from fgvc_cli.training import precision
from fgvc_cli.training.state import Interrupted


@pytest.fixture
def processor(monkeypatch):
    """A processor whose updates take 10 ms in fp32 and `bf16` ms in bf16; the list of what it timed is returned."""

    def be(bf16: float):
        calls: list[str] = []

        def timed(work, name):
            work()
            calls.append(name)
            return {"fp32": 10.0, "bf16": bf16}[name]

        monkeypatch.setattr(precision.with_precision, "__defaults__", (timed,))
        for module in ("training", "scoring"):
            monkeypatch.setattr(f"fgvc_cli.{module}.precision.has_bf16_units", lambda: True)
        monkeypatch.setattr(precision, "COST", 0)
        return calls

    return be


@pytest.mark.parametrize(
    ("head", "optimizer", "options"),
    [
        ("linear", "sgd", {}),
        pytest.param("cmal", "sam", {}, marks=pytest.mark.slow),
        pytest.param("pim", "adamw", {"freeze": "half", "grad_accum_steps": 2}, marks=pytest.mark.slow),
        pytest.param("linear", "muon", {"lora_rank": 2, "lora_layers": "linear+conv"}, marks=pytest.mark.slow),
        pytest.param("pim", "sgd", {"ema": 0.9, "checkpoint_activations": True}, marks=pytest.mark.slow),
    ],
)
def test_a_trial_that_ends_in_fp32_leaves_no_trace(processor, train, assert_same, tmp_path, head, optimizer, options):
    if "lora_rank" in options:
        pytest.importorskip("peft")
    calls = processor(9.5)  # too little to be worth it
    common = {"head": head, "optimizer": optimizer, "epochs": 1, **options}
    tried = train(tmp_path / "auto", **common)
    assert calls == ["fp32", "bf16"] * 4 and tried.summary.precision == "fp32"
    assert_same(tried.run, train(tmp_path / "fp32", precision="fp32", **common).run)


def test_a_faster_precision_is_used_kept_and_recorded(processor, train, resume, interrupt_at, assert_same, tmp_path):
    calls = processor(5.0)
    with pytest.raises(Interrupted):
        train(tmp_path / "run", interrupt_at(3))
    assert len(calls) == 8
    (settings.current().cache / "precision").rename(tmp_path / "elsewhere")
    resumed = resume(tmp_path / "run")  # as recorded, without another trial
    assert resumed.summary.precision == "bf16" and len(calls) == 8
    assert load(resumed.model_file, InferenceSettings(device="cpu")).precision == "fp32"  # only trainings try
    (tmp_path / "elsewhere").rename(settings.current().cache / "precision")
    assert_same(resumed, train(tmp_path / "bf16", precision="bf16").run)
    again = train(tmp_path / "again")
    assert again.summary.precision == "bf16" and len(calls) == 8
    assert any("5 ms" in note and "10 ms" in note for note in again.job.notes)
    assert load(resumed.model_file, InferenceSettings(device="cpu")).precision == "bf16"
    assert load(resumed.model_file, InferenceSettings(device="cpu", precision="fp32")).precision == "fp32"


@pytest.mark.parametrize("why", ["short", "hopeless", "fails", "old processor"])
def test_what_is_not_worth_a_trial_is_fp32(processor, train, tmp_path, monkeypatch, why):
    calls = processor(50.0 if why == "hopeless" else 5.0)
    if why == "short":
        monkeypatch.setattr(precision, "COST", 8)
    elif why == "fails":
        monkeypatch.setattr(precision, "trial_update", None)
    elif why == "old processor":
        monkeypatch.setattr(precision, "has_bf16_units", lambda: False)
    run = train(tmp_path / "run", epochs=1)
    assert run.summary.precision == "fp32" and len(calls) == (2 if why == "hopeless" else 0)


def test_runs_of_a_study_have_one_precision(processor, train, tmp_path):
    (tmp_path / RUNS).mkdir()
    (tmp_path / STUDY_FILE).touch()
    processor(20.0)
    first = train(tmp_path / RUNS / "seed0", epochs=1)
    for file in (settings.current().cache / "precision").glob("*.json"):
        file.unlink()
    calls = processor(5.0)  # another machine, on which bf16 is faster
    second = train(tmp_path / RUNS / "seed1", epochs=1, seed=1)
    assert (first.summary.precision, second.summary.precision, calls) == ("fp32", "fp32", [])
    (kept,) = (tmp_path / "precision").glob("*.json")
    assert json.loads(kept.read_text())["precision"] == "fp32"
    assert train(tmp_path / "alone", epochs=1).summary.precision == "bf16"


def test_the_first_decision_stays_and_a_damaged_file_is_none(tmp_path):
    decisions, key = Decisions(tmp_path / "precision"), {"backbone": "a"}
    assert decisions.find(key) is None
    assert decisions.keep(key, Decision.of(10, 5)) == decisions.keep(key, Decision.of(10, 11)) == decisions.find(key)
    (file,) = decisions.folder.glob("*.json")
    for text in ("{", "[]", '{"of": {"backbone": "a"}, "precision": "fp8", "fp32": 1, "bf16": 1}'):
        file.write_text(text)
        assert decisions.find(key) is None
    (tmp_path / "file").touch()
    assert Decisions(tmp_path / "file").keep(key, Decision("bf16")).precision == "bf16"


@pytest.mark.parametrize("head", ["linear", *(pytest.param(name, marks=pytest.mark.slow) for name in ("pim", "cmal"))])
def test_losses_norms_statistics_and_attention_are_fp32_in_bf16(train, tmp_path, monkeypatch, head):
    """Autocast leaves parameters, gradients and buffers in fp32; the heads compute losses and maps in it."""
    from fgvc_cli.training import update

    found = set()
    real = update.ObjectiveClosure._evaluate

    def evaluate(closure, reduce):
        done = real(closure, reduce)
        found.update(loss.value.dtype for loss in done.losses)
        found.update(p.grad.dtype for p in closure.update.parameters if p.grad is not None)
        found.update(b.dtype for group in closure.update.buffers for b in group if b.is_floating_point())
        found.update(objective.images.dtype for objective in closure.objectives)
        return done

    monkeypatch.setattr(update.ObjectiveClosure, "_evaluate", evaluate)
    train(tmp_path / "run", head=head, optimizer="sam", precision="bf16", epochs=1)
    assert found == {torch.float32}


def test_busy_cores_and_quotas(tmp_path, monkeypatch):
    assert not note_on_threads(1, 2, 5) and not note_on_threads(2, 2, 0.3) and not note_on_threads(4, 4, None)
    assert "OMP_NUM_THREADS=1" in note_on_threads(2, 2, 1.2) and "OMP_NUM_THREADS=5" in note_on_threads(8, 8, 3)
    monkeypatch.setattr("fgvc_cli.launch.CGROUPS", tmp_path)
    free = usable_cores()
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    assert usable_cores() == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert usable_cores() == free
