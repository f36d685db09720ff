"""Knowledge distillation: the targets, the images that the teacher sees, and trainings with one."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from fgvc_cli.config.train_options import TrainOptions
from fgvc_cli.contracts import Preprocessing, cross_entropy
from fgvc_cli.contracts.targets import with_teacher
from fgvc_cli.data.staging import StagedBatch
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.runs import model_file
from fgvc_cli.runs.model_file import load_classifier
from fgvc_cli.training.class_balance import ClassBalance
from fgvc_cli.training.state import Interrupted
from fgvc_cli.training.teacher import Teacher
from fgvc_cli.training.trainer import Trainer
from fgvc_heads.cmal.objectives import CmalOutput, concat_loss, overall_loss
from fgvc_heads.options import PimOptions
from fgvc_heads.pim.losses import PimOutput, pim_loss

K = 5


def hinton(scores, labels, teacher, weight, temperature):
    """Return the loss of the paper, with a KL divergence, and the entropy by which a cross entropy differs from it."""
    soft = F.softmax(teacher / temperature, dim=1)
    divergence = F.kl_div(F.log_softmax(scores / temperature, dim=1), soft, reduction="batchmean")
    entropy = -(soft * soft.log()).sum(dim=1).mean()
    factor = weight * temperature**2
    return (1 - weight) * F.cross_entropy(scores, labels) + factor * divergence, factor * entropy


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    scores = (3 * torch.randn(8, K, generator=generator)).requires_grad_()
    return scores, torch.randint(0, K, (8,), generator=generator), 3 * torch.randn(8, K, generator=generator)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_loss_is_that_of_the_paper(batch, weight, temperature) -> None:
    scores, labels, teacher = batch
    expected, entropy = hinton(scores, labels, teacher, weight, temperature)
    (wanted,) = torch.autograd.grad(expected, scores)
    targets = with_teacher(F.one_hot(labels, K).float(), teacher, weight, temperature)
    loss = cross_entropy(scores, targets)
    assert loss.item() == pytest.approx((expected + entropy).item(), rel=1e-5)
    assert torch.allclose(torch.autograd.grad(loss, scores)[0], wanted, atol=1e-6)
    assert cross_entropy(scores, targets, reduction="sum").item() == pytest.approx(8 * loss.item(), rel=1e-5)


def test_every_cross_entropy_of_pim_and_cmal_has_the_term(batch) -> None:
    scores, labels, teacher = batch
    hard, soft = F.one_hot(labels, K).float(), with_teacher(F.one_hot(labels, K).float(), teacher, 0.4, 3.0)
    options = PimOptions(lambda_s=0.7)
    points = torch.randn(8, 6, K, generator=torch.Generator().manual_seed(1))
    kept = torch.arange(2).repeat(8, 1)
    output = PimOutput(scores, (points,), (kept,), (kept.float(),))
    before, after = pim_loss(output, hard, options), pim_loss(output, soft, options)
    repeated = [value.repeat_interleave(2, dim=0) for value in (labels, teacher)]
    for name, logits, of in (
        ("L_c", scores, (labels, teacher)),
        ("L_b", points.mean(1), (labels, teacher)),
        ("L_s", points[:, :2].flatten(0, 1), repeated),
    ):
        assert after.parts[name].item() == pytest.approx(sum(hinton(logits, *of, 0.4, 3.0)).item(), rel=1e-5)
    assert after.parts["L_n"] == before.parts["L_n"]
    every = CmalOutput((scores, scores, scores), scores, None)
    expected = sum(hinton(scores, labels, teacher, 0.4, 3.0)).item()
    assert concat_loss(every, soft, 2.0).value.item() == pytest.approx(2 * expected, rel=1e-5)
    assert overall_loss(every, soft, 2.0).value.item() == pytest.approx(5 * expected, rel=1e-5)


class Means(torch.nn.Module):
    """A stand-in for a classifier: scores are the mean of each channel, in its own normalization and image size."""

    def __init__(self, size, mean, std) -> None:
        super().__init__()
        self.preprocessing = Preprocessing(size, size, (mean,) * 3, (std,) * 3)
        self.class_names, self.device = ("a", "b", "c"), torch.device("cpu")

    def scores(self, images):
        assert images.shape[-1] == self.preprocessing.image_size
        return images.mean((2, 3))


def test_the_teacher_sees_the_same_images_in_its_own_normalization_and_size() -> None:
    pixels = torch.rand(2, 3, 32, 32) * torch.tensor([0.2, 0.6, 1.0]).view(3, 1, 1)
    ours, theirs = Means(32, 0.4, 0.2), Means(16, 0.5, 0.5)
    options = TrainOptions(teacher_weight=1.0)
    teacher = Teacher(theirs, ours, torch.tensor([2, 0, 1]), options, "fp32", "")
    targets = teacher((pixels - 0.4) / 0.2, torch.tensor([0, 1]))
    expected = ((pixels.mean((2, 3)) - 0.5) / 0.5)[:, [2, 0, 1]].softmax(1)
    assert torch.allclose(targets, expected, atol=2e-3) and not targets.is_inference()


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_the_teacher_is_imitated_without_the_logit_adjustment_of_the_labels(temperature) -> None:
    student, options = Means(8, 0.5, 0.5), TrainOptions(teacher_weight=0.25, teacher_temperature=temperature)
    images, labels, scores, offset = (
        torch.rand(4, 3, 8, 8),
        torch.tensor([0, 1, 2, 0]),
        torch.randn(4, 3),
        torch.randn(3),
    )
    job = SimpleNamespace(
        balance=ClassBalance(offset=offset), teacher=Teacher(student, student, None, options, "fp32", "")
    )
    targets = Trainer._targets(SimpleNamespace(job=job), StagedBatch(images, labels, labels))  # type: ignore[arg-type]
    soft = F.cross_entropy(scores / temperature, (images.mean((2, 3)) / temperature).softmax(1))
    expected = 0.75 * F.cross_entropy(scores + offset, labels) + 0.25 * temperature**2 * soft
    torch.testing.assert_close(cross_entropy(scores, targets), expected)


@pytest.fixture(scope="module")
def taught(train, tmp_path_factory):
    """A run to learn from: another image size and normalization than the student's."""
    folder = tmp_path_factory.mktemp("teacher") / "run"
    return train(folder, image_size=48, mean=[0.4, 0.4, 0.4], std=[0.3, 0.3, 0.3], epochs=1).run


@pytest.mark.parametrize(
    "options",
    [
        {"head": "linear", "optimizer": "sam", "grad_accum_steps": 2, "teacher_temperature": 4.0},
        {"head": "pim", "teacher_temperature": 2.0, "augment": {"mixup": 0.2}},
        pytest.param({"head": "cmal", "label_smoothing": 0.1}, marks=pytest.mark.slow),
    ],
)
def test_a_run_with_a_teacher_resumes_bit_for_bit(
    train, resume, interrupt_at, assert_same, tmp_path, taught, options
) -> None:
    whole = train(tmp_path / "whole", teacher=taught.path, **options).run
    with pytest.raises(Interrupted):
        train(tmp_path / "run", interrupt_at(3), teacher=taught.path, **options)
    assert_same(resume(tmp_path / "run"), whole)
    assert model_file.read_metadata(whole.path)["teacher"]["run"] == str(taught.path)


def test_a_changed_teacher_is_noticed(train, resume, interrupt_at, tmp_path, taught) -> None:
    teacher = shutil.copytree(taught.path, tmp_path / "teacher")
    with pytest.raises(Interrupted):
        train(tmp_path / "run", interrupt_at(3), teacher=teacher)
    state, document = model_file.load(teacher / "model.safetensors")
    state["head.classifier.bias"] += 1
    model_file.save(teacher / "model.safetensors", state, document)
    with pytest.raises(FgvcError, match=r"teacher.*changed"):
        resume(tmp_path / "run")


def test_classes_are_matched_by_name(train, tmp_path, taught) -> None:
    state, document = model_file.load(taught.path / "model.safetensors")
    order = [2, 0, 1]
    for name in ("weight", "bias"):
        state[f"head.classifier.{name}"] = state[f"head.classifier.{name}"][order]
    classes = [document["classes"][i] for i in order]
    model_file.save(tmp_path / "reordered.safetensors", state, {**document, "classes": classes})
    runs = [
        train(tmp_path / f"{i}", teacher=teacher, teacher_temperature=2.0, epochs=1).run
        for i, teacher in enumerate((taught.path, tmp_path / "reordered.safetensors"))
    ]
    first, second = (load_classifier(run.path).state_dict() for run in runs)
    assert all(torch.equal(first[name], second[name]) for name in first)
    renamed = ["azure", *document["classes"][1:]]
    model_file.save(tmp_path / "other.safetensors", state, {**document, "classes": renamed})
    with pytest.raises(UsageError, match=r"(?=.*blue)(?=.*azure)"):
        train(tmp_path / "refused", teacher=tmp_path / "other.safetensors")
    with pytest.raises(FgvcError, match="nowhere"):
        train(tmp_path / "missing", teacher=tmp_path / "nowhere")


def test_a_teacher_that_does_not_exist_is_named_as_such(train, tmp_path) -> None:
    with pytest.raises(FgvcError, match=r"`train\.teacher=.*nowhere`: .*does not exist"):
        train(tmp_path / "run", teacher=tmp_path / "nowhere")
