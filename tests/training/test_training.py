"""Whole trainings with a tiny model: what they leave, and that a stopped one goes on bit for bit."""

from __future__ import annotations

import multiprocessing
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from fgvc_cli import load
from fgvc_cli.errors import FgvcError
from fgvc_cli.registry import get_registry
from fgvc_cli.runs.folder import Run, find_run
from fgvc_cli.training import run as training
from fgvc_cli.training import trainer as trainer_module
from fgvc_cli.training.callbacks import Callback
from fgvc_cli.training.state import Interrupted


class Watcher(Callback):
    """A view that counts, and does something at a chosen moment."""

    def __init__(self, at=None, do=None):
        self.batches, self.lines, self.at, self.do = 0, [], at, do

    def on_batch_end(self, images, metrics):
        self.batches += 1
        if self.batches == self.at:
            self.do()

    def on_epoch_end(self, metrics, is_best):
        self.lines.append(metrics)


def settings(photos, **train):
    options = {
        "weights": "none",
        "image_size": 32,
        "batch_size": 4,
        "epochs": 3,
        "device": "cpu",
        "workers": 0,
        "label_smoothing": 0.1,
        **train,
    }
    return [
        {
            "backbone": {"name": "timm/test_resnet"},
            "head": {"name": "pim", "fpn_size": 16, "num_selects": 8},
            "optimizer": {"name": "sgd", "lr": 0.02},
            "dataset": {"data": str(photos)},
            "train": options,
        }
    ]


def train(photos, out, view=None, **options):
    return training.train(settings(photos, **options), "scratch", out, True, get_registry(), [view or Watcher()])


def figures(run):
    """The metrics by epoch without the wall times."""
    timed = ("seconds", "images_per_second")
    return [{k: v for k, v in line.as_json().items() if k not in timed} for line in run.metrics]


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    """A training that nothing stopped."""
    return train(photos, tmp_path_factory.mktemp("whole") / "run").run


def assert_same(run, whole):
    assert figures(run) == figures(whole)
    for file in ("model.safetensors", "last/state.safetensors"):
        ours, theirs = load_file(run.path / file), load_file(whole.path / file)
        assert ours.keys() == theirs.keys()
        for name in ours:
            assert torch.equal(ours[name], theirs[name]), f"{file}: {name}"
    assert run.summary.test == whole.summary.test
    assert run.summary.weights == whole.summary.weights


def test_a_run_folder_has_all_that_the_design_promises(whole):
    names = {str(p.relative_to(whole.path)) for p in whole.path.rglob("*") if p.is_file()}
    assert names == {
        "config.toml", "metrics.jsonl", "model.safetensors", "last/state.safetensors", "summary.json", "curves.png",
        *(f"evaluation/test/{name}" for name in ("summary.json", "predictions.csv", "per_class.csv")),
    }  # fmt: skip
    summary = whole.summary
    assert summary.classes == 3 and 0 <= summary.test.top1 <= 1
    assert summary.val.images == 6 and summary.train.images == 27 and summary.epochs == 3
    assert summary.components["head"]["name"] == "pim"
    assert summary.parameters["total"] == summary.parameters["backbone"] + summary.parameters["head"]
    assert {"torch", "timm", "fgvc-cli"} <= summary.versions.keys()


def test_it_learns_and_its_model_file_alone_predicts(whole, tmp_path, photos):
    from fgvc_cli.data.images import read_image

    assert whole.metrics[-1].train.loss < whole.metrics[0].train.loss
    copy = shutil.copy(whole.model_file, tmp_path / "model.safetensors")
    classifier = load(copy)
    pixels = torch.stack([classifier.preprocessing(read_image(p)) for p in sorted((photos / "test").rglob("*.png"))])
    probabilities = classifier.probabilities(pixels)
    assert classifier.class_names == ("blue", "green", "red") and probabilities.shape == (12, 3)
    top1 = (probabilities.argmax(1) == torch.arange(12) // 4).float().mean().item()
    assert top1 == pytest.approx(whole.summary.test.top1)


@pytest.mark.parametrize("at", [3, 7, 10, 21])
def test_an_interrupted_run_goes_on_bit_for_bit(photos, tmp_path, whole, at):
    view = Watcher(at, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted) as caught:
        train(photos, tmp_path / "run", view)
    assert caught.value.exit_code == 130 and not Run(tmp_path / "run").finished
    torch.rand(17)  # whatever else a process drew must not matter
    assert_same(training.resume(tmp_path / "run", get_registry(), [Watcher()]).run, whole)


@pytest.mark.parametrize("at", [2, 7, 9, 16])
def test_a_killed_run_goes_on_bit_for_bit(photos, tmp_path, whole, at):
    class Killed(BaseException):
        pass

    def kill():
        raise Killed

    with pytest.raises(Killed):
        train(photos, tmp_path / "run", Watcher(at, kill))
    assert_same(training.resume(tmp_path / "run", get_registry(), [Watcher()]).run, whole)


@pytest.mark.parametrize("step", ["save_classifier", "append_line", "save_state"])
def test_a_kill_between_two_writes_of_an_epoch_does_no_harm(photos, tmp_path, whole, monkeypatch, step):
    """Every file of an epoch's end is written before or after the others; a kill may come after any of them."""
    owner = trainer_module.files if step == "append_line" else trainer_module
    real, calls = getattr(owner, step), []

    def write_then_die(*args, **kwargs):
        real(*args, **kwargs)
        calls.append(1)
        if len(calls) == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, step, write_then_die)
        with pytest.raises(KeyboardInterrupt):
            train(photos, tmp_path / "run")
    assert_same(training.resume(tmp_path / "run", get_registry(), [Watcher()]).run, whole)


def test_sigterm_has_its_own_exit_code(photos, tmp_path):
    with pytest.raises(Interrupted) as caught:
        train(photos, tmp_path / "run", Watcher(2, lambda: signal.raise_signal(signal.SIGTERM)))
    assert caught.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_accumulation_and_workers_resume_bit_for_bit_too(photos, tmp_path):
    options = {"grad_accum_steps": 2, "workers": 1, "epochs": 2}
    straight = train(photos, tmp_path / "straight", **options).run
    with pytest.raises(Interrupted):
        train(photos, tmp_path / "run", Watcher(2, lambda: signal.raise_signal(signal.SIGINT)), **options)
    assert_same(training.resume(tmp_path / "run", get_registry(), [Watcher()]).run, straight)


def test_a_run_is_reproduced_by_its_config_file(photos, tmp_path, whole):
    from fgvc_cli.config.run_config import read_config

    layer, recipe = read_config(whole.config_file)
    again = training.train([layer], recipe, tmp_path / "again", True, get_registry(), [Watcher()]).run
    assert_same(again, whole)


def test_a_finished_run_and_no_run_are_not_resumed(whole, tmp_path):
    with pytest.raises(FgvcError, match="finished"):
        training.resume(whole.path, get_registry(), [Watcher()])
    with pytest.raises(FgvcError, match="not a run folder"):
        training.resume(tmp_path, get_registry(), [Watcher()])


def test_a_loss_that_is_not_finite_stops_with_what_to_try(photos, tmp_path, monkeypatch):
    from fgvc_cli.contracts import Classifier

    run = Run(tmp_path / "run")
    real, calls = Classifier.normalize, []

    def spoiled(self, pixels):
        calls.append(1)
        return real(self, pixels) * (float("nan") if self.training and len(calls) > 12 else 1)

    monkeypatch.setattr(Classifier, "normalize", spoiled)
    with pytest.raises(FgvcError, match=r"not finite at step \d+ \(epoch 2.*rate.*kept.*--lr"):
        train(photos, run.path)
    state = load_file(run.state_file)
    assert all(torch.isfinite(v).all() for v in state.values() if v.is_floating_point())
    assert len(run.metrics) == 1


def test_early_stopping_stops(photos, tmp_path):
    run = train(photos, tmp_path / "run", epochs=9, patience=1, min_delta=1.0).run
    assert run.summary.epochs == 2 and run.summary.stopped_early


def test_out_of_memory_says_what_to_lower(photos, tmp_path, monkeypatch):
    def out_of_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer_module.Trainer, "_update", out_of_memory)
    with pytest.raises(FgvcError, match=r"--batch-size 2 --set train.grad_accum_steps=2"):
        train(photos, tmp_path / "run")


def test_a_full_disk_keeps_the_last_state(photos, tmp_path, monkeypatch):
    import errno

    run, real, calls = Run(tmp_path / "run"), trainer_module.save_state, []

    def full_from_the_second(path, *args):
        calls.append(1)
        if len(calls) > 1:
            from fgvc_cli import files

            with files.replacing(path):
                raise OSError(errno.ENOSPC, "No space left on device")
        real(path, *args)

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "save_state", full_from_the_second)
        with pytest.raises(FgvcError, match="No space left"):
            train(photos, run.path)
    assert training.resume(run.path, get_registry(), [Watcher()]).run.finished


def test_a_batch_of_one_with_batch_norm_is_refused(photos, tmp_path):
    with pytest.raises(FgvcError, match="--batch-size 2"):
        train(photos, tmp_path / "run", batch_size=1)
    assert not (tmp_path / "run").exists()


def test_an_existing_folder_is_not_overwritten(photos, whole):
    with pytest.raises(FgvcError, match="exists"):
        train(photos, whole.path)


def test_an_unreadable_image_is_counted_and_training_goes_on(photos, tmp_path):
    data = shutil.copytree(photos, tmp_path / "photos")
    (data / "train" / "red" / "3.png").write_bytes(b"not an image")
    run = train(data, tmp_path / "run", epochs=1).run
    assert list(run.summary.unreadable) == ["train/red/3.png"] and run.summary.train.images == 26
    with pytest.raises(FgvcError, match=r"3\.png"):
        train(data, tmp_path / "strict", epochs=1, strict_data=True)


def test_an_unreadable_validation_image_is_warned_of_once(photos, tmp_path, caplog):
    data = shutil.copytree(photos, tmp_path / "photos")
    (data / "val" / "red" / "1.png").write_bytes(b"not an image")
    run = train(data, tmp_path / "run", epochs=3).run
    assert caplog.text.count("1.png") == 1
    assert [line.val.images for line in run.metrics] == [5, 5, 5]
    assert list(run.summary.unreadable) == ["val/red/1.png"]


def test_unreadable_images_of_one_name_in_two_splits_are_two(photos, tmp_path):
    data = shutil.copytree(photos, tmp_path / "photos")
    for split in ("train", "test"):
        (data / split / "red" / "1.png").write_bytes(b"not an image")
    summary = train(data, tmp_path / "run", epochs=1).summary
    assert sorted(summary.unreadable) == ["test/red/1.png", "train/red/1.png"]


def test_a_run_into_the_working_directory_has_its_name(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert train(photos, Path(), epochs=1).summary.run == tmp_path.name


def test_weights_by_relative_path_are_found_from_elsewhere(photos, tmp_path, monkeypatch, whole):
    monkeypatch.chdir(whole.path)
    run = train(photos, tmp_path / "run", epochs=1, weights="model.safetensors").run
    run.summary_file.unlink()
    run.state_file.unlink()
    monkeypatch.chdir(tmp_path)
    training.resume(run.path, get_registry(), [Watcher()])
    assert run.finished


class Unscored(Callback):
    """A view that stops the training at a batch of the validation."""

    def __init__(self, at):
        self.at = at

    def on_images_scored(self, images):
        self.at -= 1
        if self.at == 0:
            signal.raise_signal(signal.SIGINT)


def test_a_run_interrupted_in_validation_goes_on_bit_for_bit(photos, tmp_path, whole):
    with pytest.raises(Interrupted, match="epoch 2"):
        train(photos, tmp_path / "run", Unscored(4))  # two batches an epoch
    assert_same(training.resume(tmp_path / "run", get_registry(), [Watcher()]).run, whole)


def test_no_process_of_a_loader_outlives_the_training(photos, tmp_path, monkeypatch):
    real, left = training.finish, []

    def finish(*args):
        left.extend(multiprocessing.active_children())
        return real(*args)

    monkeypatch.setattr(training, "finish", finish)
    train(photos, tmp_path / "run", epochs=2, workers=1)
    assert not left and not multiprocessing.active_children()


def test_no_process_of_a_loader_outlives_a_training_that_is_stopped(photos, tmp_path):
    before = multiprocessing.active_children()
    stopping = Watcher(at=2, do=lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted) as stopped:
        train(photos, tmp_path / "run", stopping, epochs=1, workers=2)
    assert multiprocessing.active_children() == before
    assert stopped.tb  # which holds all that the training had at hand


def test_the_processes_of_validation_start_once(photos, tmp_path):
    """Where processes do not start as copies of this one, each takes seconds to import torch."""
    seen = []

    class Epochs(Watcher):
        def on_epoch_end(self, metrics, is_best):
            seen.append({child.pid for child in multiprocessing.active_children()})

    train(photos, tmp_path / "run", Epochs(), epochs=2, workers=1)
    assert seen[0] == seen[1] and len(seen[0]) == 2


def test_the_newest_finished_run_is_found(whole, tmp_path, monkeypatch):
    monkeypatch.setenv("FGVC_RUNS", str(whole.path.parent))
    assert find_run(None).path == whole.path
    assert find_run(whole.model_file).path == whole.path
    monkeypatch.setenv("FGVC_RUNS", str(tmp_path))
    with pytest.raises(FgvcError, match="No finished run"):
        find_run(None)


def test_a_damaged_model_is_one_clear_line(whole, tmp_path):
    copy = shutil.copytree(whole.path, tmp_path / "copy")
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(FgvcError, match="damaged"):
        load(copy)


def unfinished(whole, to):
    """A copy of a run that was stopped after its last epoch, before its summary."""
    copy = Run(shutil.copytree(whole.path, to))
    copy.summary_file.unlink()
    return copy


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "has 0 epochs"), (b'{"epoch": 1', "line 1"), (b"\xff\n" * 3, "line 1")],
)
def test_damaged_metrics_are_one_clear_line(whole, tmp_path, content, words):
    run = unfinished(whole, tmp_path / "copy")
    run.metrics_file.unlink() if content is None else run.metrics_file.write_bytes(content)
    with pytest.raises(FgvcError, match=words) as caught:
        training.resume(run.path, get_registry(), [Watcher()])
    assert f"`config={run.config_file}`" in str(caught.value)


def test_a_half_written_line_after_those_of_the_state_is_cut_off(whole, tmp_path):
    run = unfinished(whole, tmp_path / "copy")
    with run.metrics_file.open("ab") as file:
        file.write(b'{"epoch": 4, "tr\xc3')
    training.resume(run.path, get_registry(), [Watcher()])
    assert_same(run, whole)


def test_an_emptied_config_is_damage_and_not_a_wish_for_the_defaults(whole, tmp_path):
    run = unfinished(whole, tmp_path / "copy")
    run.config_file.write_text("")
    with pytest.raises(FgvcError, match=r"damaged: it has no \[backbone\]"):
        training.resume(run.path, get_registry(), [Watcher()])


def test_what_a_killed_training_had_half_written_goes_on_resuming(whole, tmp_path):
    run = unfinished(whole, tmp_path / "copy")
    left = [run.path / ".model.safetensors.1.part", run.path / "last" / ".state.safetensors.1.part"]
    for path in left:
        path.write_bytes(b"half")
    training.resume(run.path, get_registry(), [Watcher()])
    assert not any(path.exists() for path in left)


def test_a_download_that_fails_under_auto_is_recorded_as_training_from_scratch(photos, tmp_path, monkeypatch):
    from fgvc_cli.training import setup
    from fgvc_cli.training.weights import WeightsChoice

    monkeypatch.setattr(setup, "choose", lambda *_: WeightsChoice("pretrained", "downloading"))
    monkeypatch.setattr(setup, "apply", lambda *_: None)
    layers = settings(photos, epochs=1, weights="auto")
    run = training.train(layers, None, tmp_path / "run", False, get_registry(), [Watcher()]).run
    assert 'weights = "none"' in run.config_file.read_text() and run.summary.recipe == "scratch"


def test_a_run_is_replaced_only_with_force_and_other_folders_never(photos, tmp_path):
    first = train(photos, tmp_path / "run", epochs=1).run
    with pytest.raises(FgvcError, match="`force=true`"):
        train(photos, first.path, epochs=1)
    layers = settings(photos, epochs=2)
    again = training.train(layers, "scratch", first.path, True, get_registry(), [Watcher()], force=True).run
    assert again.summary.epochs == 2
    (first.path / "thesis.tex").write_text("mine")
    with pytest.raises(FgvcError, match=r"thesis\.tex"):
        training.train(layers, "scratch", first.path, True, get_registry(), [Watcher()], force=True)
    assert (first.path / "thesis.tex").read_text() == "mine"


def test_a_resumed_run_without_its_best_weights_is_refused_at_once(photos, tmp_path):
    with pytest.raises(Interrupted):
        train(photos, tmp_path / "run", Watcher(9, lambda: signal.raise_signal(signal.SIGINT)))
    (tmp_path / "run/model.safetensors").unlink()
    with pytest.raises(FgvcError, match=r"model\.safetensors.*missing.*`config="):
        training.resume(tmp_path / "run", get_registry(), [Watcher()])


def test_a_model_that_cannot_be_compiled_here_is_one_clear_line(photos, tmp_path, monkeypatch):
    from torch._dynamo.exc import BackendCompilerFailed

    def fail(*_):
        raise BackendCompilerFailed(print, RuntimeError("no compiler"), None)

    monkeypatch.setattr(trainer_module.Trainer, "_update", fail)
    with pytest.raises(FgvcError, match=r"--compile failed.*leave it out"):
        train(photos, tmp_path / "run")


@pytest.mark.gpu
def test_a_training_on_a_gpu_is_interrupted_resumed_and_finished(photos, tmp_path):
    with pytest.raises(Interrupted):
        train(photos, tmp_path / "run", Watcher(9, lambda: signal.raise_signal(signal.SIGINT)), device="cuda")
    run = training.resume(tmp_path / "run", get_registry(), [Watcher()]).run
    assert run.summary.device == torch.cuda.get_device_name() and run.summary.epochs == 3
    assert load(run.path, "cuda").device.type == "cuda"
