"""Whole trainings of a tiny network: what they write, and that an interrupted or killed one resumes bit for bit."""

from __future__ import annotations

import dataclasses
import errno
import multiprocessing
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fgvc_cli import files, load
from fgvc_cli.config.run_config import read_config
from fgvc_cli.data.images import read_image
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.registry import get_registry
from fgvc_cli.runs import model_file
from fgvc_cli.runs.folder import Run, find_run
from fgvc_cli.runs.model_file import build_backbone
from fgvc_cli.training import run as training
from fgvc_cli.training import setup
from fgvc_cli.training import trainer as trainer_module
from fgvc_cli.training.callbacks import Callback
from fgvc_cli.training.state import Interrupted
from fgvc_cli.training.weights.choice import WeightsChoice

PIM = {"head": "pim", "label_smoothing": 0.1}


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory):
    """A training of two epochs, of seven updates each, that nothing stopped."""
    return train(tmp_path_factory.mktemp("whole") / "run", **PIM).run


def test_a_run_folder_is_complete(whole):
    names = {str(p.relative_to(whole.path)) for p in whole.path.rglob("*") if p.is_file()} - {".lock"}
    assert names == {
        "config.toml", "metrics.jsonl", "model.safetensors", "last/state.safetensors", "summary.json", "curves.png",
        *(f"evaluation/test/{name}" for name in ("summary.json", "predictions.csv", "per_class.csv")),
    }  # fmt: skip
    summary = whole.summary
    assert summary.classes == 3 and 0 <= summary.test.top1 <= 1
    assert (summary.val.images, summary.train.images, summary.epochs) == (6, 27, 2)
    assert summary.components["head"]["name"] == whole.config["head"]["name"].rpartition(":")[2] == "pim"
    assert summary.parameters["total"] == summary.parameters["backbone"] + summary.parameters["head"]
    assert {"torch", "timm", "fgvc-cli"} <= summary.versions.keys()
    assert "pim" in whole._repr_html_() and Path(whole) == whole.path


def test_it_learns_and_its_model_file_alone_predicts(whole, tmp_path, photos):
    assert whole.metrics[-1].train.objectives["objective"] < whole.metrics[0].train.objectives["objective"]
    classifier = load(shutil.copy(whole.model_file, tmp_path / "model.safetensors"))
    pixels = torch.stack([classifier.preprocessing(read_image(p)) for p in sorted((photos / "test").rglob("*.png"))])
    probabilities = classifier.probabilities(pixels)
    assert classifier.class_names == ("blue", "green", "red") and probabilities.shape == (12, 3)
    top1 = (probabilities.argmax(1) == torch.arange(12) // 4).float().mean().item()
    assert top1 == pytest.approx(whole.summary.test.top1)


@pytest.mark.parametrize("batch", [3, 14])
def test_an_interrupted_run_resumes_bit_for_bit(train, resume, interrupt_at, assert_same, tmp_path, whole, batch):
    with pytest.raises(Interrupted) as caught:
        train(tmp_path / "run", interrupt_at(batch), **PIM)
    assert (caught.value.exit_code, caught.value.run, caught.value.signal) == (130, tmp_path / "run", signal.SIGINT)
    assert not Run(tmp_path / "run").finished
    torch.rand(17)  # what else a process draws must not matter
    assert_same(resume(tmp_path / "run"), whole)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("batch", [2, 9])
def test_a_killed_run_resumes_bit_for_bit(train, resume, at, assert_same, tmp_path, whole, batch):
    def kill():
        raise Killed

    with pytest.raises(Killed):
        train(tmp_path / "run", at(batch, kill), **PIM)
    assert_same(resume(tmp_path / "run"), whole)


@pytest.mark.parametrize("step", ["save_classifier", "append_line", "save_state"])
def test_a_kill_after_any_file_of_an_epoch_does_no_harm(train, resume, assert_same, tmp_path, whole, monkeypatch, step):
    owner = {"append_line": files, "save_classifier": setup}.get(step, trainer_module)
    real = getattr(owner, step)

    def write_then_die(*args, **kwargs):
        real(*args, **kwargs)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, write_then_die)
        with pytest.raises(Killed):
            train(tmp_path / "run", **PIM)
    left = [tmp_path / "run/.model.safetensors.1.part", tmp_path / "run/last/.state.safetensors.1.part"]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half")
    assert_same(resume(tmp_path / "run"), whole)
    assert not any(path.exists() for path in left)


def test_a_run_interrupted_in_validation_resumes_bit_for_bit(train, resume, assert_same, tmp_path, whole):
    class InValidation(Callback):
        batches = 0

        def on_images_scored(self, images):
            self.batches += 1
            if self.batches == 4:  # two batches per epoch
                signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="epoch 2") as caught:
        train(tmp_path / "run", InValidation(), **PIM)
    assert caught.value.exit_code == 143 and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert_same(resume(tmp_path / "run"), whole)


def test_a_run_is_reproduced_by_its_config_file(assert_same, tmp_path, whole):
    layer, recipe = read_config(whole.config_file)
    assert_same(training.train([layer], recipe, tmp_path / "again", True, get_registry()).run, whole)


def test_a_run_with_accumulation_workers_and_mixing_resumes_bit_for_bit_without_workers(
    train, interrupt_at, assert_same, tmp_path
):
    """No worker outlives either training."""
    augment = {"policy": "randaugment", "erase": 0.3, "mixup": 0.4, "cutmix": 1.0, "where": "device"}
    options = {"augment": augment, "grad_accum_steps": 2, "epochs": 1}
    straight = train(tmp_path / "straight", workers=0, **options).run
    with pytest.raises(Interrupted) as stopped:
        train(tmp_path / "run", interrupt_at(2), workers=2, **options)
    assert multiprocessing.active_children() == [] and stopped.tb  # which references all that the training used
    assert_same(training.resume(tmp_path / "run", get_registry()).run, straight)


def test_loader_processes_start_once_and_end_before_the_test(train, tmp_path, monkeypatch):
    """Where processes are spawned, each takes seconds to import torch."""
    real, seen, left = training.finish, [], []

    class Epochs(Callback):
        def on_epoch_end(self, metrics, is_best):
            seen.append({child.pid for child in multiprocessing.active_children()})

    def finish(*args):
        left.extend(multiprocessing.active_children())
        return real(*args)

    monkeypatch.setattr(training, "finish", finish)
    train(tmp_path / "run", Epochs(), workers=1)
    assert seen[0] == seen[1] and len(seen[0]) == 2
    assert not left and not multiprocessing.active_children()


def test_an_interrupted_run_of_pim_keeps_the_upsampling_it_began_with(
    train, resume, interrupt_at, tmp_path, whole, monkeypatch
):
    def as_transformer(*args):  # as a later version may see the same network
        backbone = build_backbone(*args)
        backbone.info = dataclasses.replace(backbone.info, architecture="transformer")
        return backbone

    with pytest.raises(Interrupted):
        train(tmp_path / "run", interrupt_at(9), **PIM)
    for module in (setup, model_file):
        monkeypatch.setattr(module, "build_backbone", as_transformer)
    run = resume(tmp_path / "run")
    assert run.finished and load_file(run.model_file).keys() == load_file(whole.model_file).keys()
    assert load(run.path).head.pyramid.upsamplers.state_dict() == {}


def test_what_cannot_be_resumed(resume, whole, tmp_path):
    with pytest.raises(FgvcError, match="finished"):
        resume(whole.path)
    with pytest.raises(FgvcError, match=r"config\.toml"):
        resume(tmp_path)


def test_a_loss_that_is_not_finite_stops_the_training(train, tmp_path, monkeypatch):
    from fgvc_cli.contracts import Classifier

    run = Run(tmp_path / "run")
    real, calls = Classifier.normalize, []

    def spoiled(self, pixels):
        calls.append(1)
        return real(self, pixels) * (float("nan") if self.training and len(calls) > 12 else 1)

    monkeypatch.setattr(Classifier, "normalize", spoiled)
    with pytest.raises(FgvcError, match=r"not finite at step \d+ \(epoch 2.*rate.*saved.*`lr`"):
        train(run.path)
    state = load_file(run.state_file)
    assert all(torch.isfinite(v).all() for v in state.values() if v.is_floating_point())
    assert len(run.metrics) == 1


def test_early_stopping(train, tmp_path):
    summary = train(tmp_path / "run", epochs=9, patience=1, min_delta=1.0).summary
    assert summary.epochs == 2 and summary.stopped_early


def test_running_out_of_memory_and_a_missing_compiler_are_explained(train, tmp_path, monkeypatch):
    from torch._dynamo.exc import BackendCompilerFailed

    for error, words in (
        (torch.OutOfMemoryError("CUDA out of memory"), r"`batch_size=2`.*`train\.grad_accum_steps=2`"),
        (BackendCompilerFailed(print, RuntimeError("no compiler"), None), "`compile=true` failed"),
    ):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(trainer_module.Trainer, "_update", fail)
        with pytest.raises(FgvcError, match=words):
            train(tmp_path / "run", force=True)


def test_a_full_disk_keeps_the_last_state(train, resume, tmp_path, monkeypatch):
    run, real, calls = Run(tmp_path / "run"), trainer_module.save_state, []

    def full_from_the_second(path, *args):
        calls.append(1)
        if len(calls) > 1:
            with files.replacing(path):
                raise OSError(errno.ENOSPC, "No space left on device")
        real(path, *args)

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "save_state", full_from_the_second)
        with pytest.raises(FgvcError, match="No space left"):
            train(run.path)
    assert resume(run.path).finished


def test_a_batch_of_one_with_batch_norm_is_refused(train, tmp_path):
    with pytest.raises(UsageError, match="`batch_size=2`"):
        train(tmp_path / "run", batch_size=1)
    assert not (tmp_path / "run").exists()


def test_unreadable_images_are_counted_and_warned_of_once(train, photos, tmp_path, caplog):
    data = shutil.copytree(photos, tmp_path / "photos")
    for split in ("train", "val", "test"):
        (data / split / "red" / "1.png").write_bytes(b"not an image")
    run = train(tmp_path / "run", data=data).run
    assert sorted(run.summary.unreadable) == ["test/red/1.png", "train/red/1.png", "val/red/1.png"]
    assert [(line.train.images, line.val.images) for line in run.metrics] == [(26, 5), (26, 5)]
    assert caplog.text.count("val/red/1.png") == 1
    with pytest.raises(FgvcError, match=r"1\.png"):
        train(tmp_path / "strict", data=data, epochs=1, strict_data=True)


def test_weights_by_relative_path_are_found_from_elsewhere(train, resume, tmp_path, monkeypatch, whole):
    monkeypatch.chdir(whole.path)
    run = train(tmp_path / "run", epochs=1, weights="model.safetensors", **PIM).run
    run.summary_file.unlink()
    run.state_file.unlink()
    monkeypatch.chdir(tmp_path)
    assert resume(run.path).finished


def test_the_newest_finished_run_is_found(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("FGVC_RUNS", str(whole.path.parent))
    assert find_run(None) == find_run(whole.model_file) == whole
    monkeypatch.setenv("FGVC_RUNS", str(tmp_path))
    with pytest.raises(FgvcError, match="No finished run"):
        find_run(None)


@pytest.fixture
def unfinished(whole, tmp_path):
    """A copy of a run that was stopped after its last epoch, before its summary."""
    copy = Run(shutil.copytree(whole.path, tmp_path / "copy"))
    copy.summary_file.unlink()
    return copy


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "has 0 epochs"), (b'{"epoch": 1', "line 1"), (b"\xff\n" * 3, "line 1")],
)
def test_damaged_metrics_are_refused(resume, unfinished, content, words):
    unfinished.metrics_file.unlink() if content is None else unfinished.metrics_file.write_bytes(content)
    with pytest.raises(FgvcError, match=words) as caught:
        resume(unfinished.path)
    assert f"`config={unfinished.config_file}`" in str(caught.value)


def test_other_damage_is_refused(resume, unfinished):
    config = unfinished.config_file.read_text()
    unfinished.config_file.write_text("")
    with pytest.raises(FgvcError, match=r"damaged: it has no \[backbone\]"):
        resume(unfinished.path)
    unfinished.config_file.write_text(config)
    data = unfinished.model_file.read_bytes()
    unfinished.model_file.write_bytes(data[: len(data) // 2])
    with pytest.raises(FgvcError, match="damaged"):
        load(unfinished.path)
    unfinished.model_file.unlink()
    with pytest.raises(FgvcError, match=r"model\.safetensors.*missing.*`config="):
        resume(unfinished.path)


def test_a_half_written_line_of_metrics_is_cut_off(resume, assert_same, whole, unfinished):
    with unfinished.metrics_file.open("ab") as file:
        file.write(b'{"epoch": 3, "tr\xc3')
    assert_same(resume(unfinished.path), whole)


def test_a_download_that_fails_is_recorded_as_training_from_scratch(train, tmp_path, monkeypatch):
    monkeypatch.setattr(setup, "choose", lambda *_: WeightsChoice("pretrained", "downloading"))
    monkeypatch.setattr(setup, "apply", lambda *_: None)
    run = train(tmp_path / "run", epochs=1, weights="auto", recipe=None).run
    assert run.config["train"]["weights"] == "none" and run.summary.recipe == "scratch"


def test_a_run_is_replaced_only_with_force_and_other_folders_never(train, tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    assert train(Path(), epochs=1).summary.run == "run"  # into the working directory
    path = tmp_path / "run"
    with pytest.raises(UsageError, match="`force=true`"):
        train(path, epochs=1)
    left = [path / name for name in ("report.html", "trackers/tensorboard/events", "explanation/summary.json")]
    for file in left:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert train(path, force=True).summary.epochs == 2 and not any(file.exists() for file in left)
    (path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        train(path, force=True)
    assert (path / "thesis.tex").read_text() == "mine"


@pytest.mark.gpu
@pytest.mark.parametrize("settings", [{"head": "linear"}, PIM, {"head": "cmal", "optimizer": "sam"}], ids=str)
def test_a_run_on_a_gpu_resumes_as_exactly_as_it_repeats(settings, train, resume, interrupt_at, tmp_path):
    """Kernels that add in any order make two whole runs differ; an interruption must add nothing to that."""
    with pytest.raises(Interrupted):
        train(tmp_path / "run", interrupt_at(9), device="cuda", **settings)
    resumed = resume(tmp_path / "run")
    whole, again = (train(tmp_path / name, device="cuda", **settings).run for name in ("whole", "again"))
    assert resumed.summary.device == torch.cuda.get_device_name() and resumed.summary.epochs == 2
    assert load(resumed.path, "cuda").device.type == "cuda"
    repeated, difference = state_difference(again, whole), state_difference(resumed, whole)
    assert difference <= max(10 * repeated, 1e-4)


def state_difference(run: Run, other: Run) -> float:
    """Return the largest difference between tensors of two states, relative to the tensor's largest value."""
    ours, theirs = (load_file(r.path / "last/state.safetensors") for r in (run, other))
    assert ours.keys() == theirs.keys()
    found = [0.0]
    for name, one in ours.items():
        if not one.is_floating_point():
            assert torch.equal(one, theirs[name]), name
        elif one.numel():
            found.append(float((one - theirs[name]).abs().max() / theirs[name].abs().max().clamp_min(1e-3)))
    return max(found)
