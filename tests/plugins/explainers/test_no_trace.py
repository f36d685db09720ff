"""An explanation leaves the classifier as it found it, costs no memory for good, and never waits for the device."""

from __future__ import annotations

import pytest
import torch

from fgvc_cli import FgvcError

TOKENS = ("legrad", "rollout")
EVERY = ("gradcam", "gradcam++", "layercam", "finer-cam", "eigencam", *TOKENS, "sliding_window", "native", "random")
PAIRS = [*((name, "linear") for name in EVERY if name != "native"), ("gradcam", "cmal"), ("native", "pim")]


def backbone_of(name: str) -> str:
    """A backbone that the explainer supports."""
    return "timm/test_vit" if name in TOKENS else "timm/test_resnet"


def hooks(model: torch.nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules())


def snapshot(model: torch.nn.Module) -> tuple:
    """What an explanation could have changed."""
    return (
        [(name, p.requires_grad, p.grad) for name, p in model.named_parameters()],
        [(name, module.training) for name, module in model.named_modules()],
        {name: tensor.clone() for name, tensor in model.state_dict().items()},
        hooks(model),
    )


def assert_same(before: tuple, after: tuple) -> None:
    assert before[0] == after[0]
    assert before[1] == after[1]
    assert before[3] == after[3] == 0
    for name, tensor in before[2].items():
        assert torch.equal(tensor, after[2][name]), name


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("grad", [True, False], ids=["gradients enabled", "gradients disabled"])
def test_the_classifier_is_unchanged(name, grad, classifier_of, explainer_of, images_of):
    classifier = classifier_of(backbone_of(name), "linear" if name == "legrad" else "pim", 32)
    classifier.backbone.requires_grad_(False)  # some parameters are frozen, some are not
    if name != "legrad":
        classifier.head.combiner.train()  # and modes differ
        classifier.head.combiner.apply(lambda m: m.eval() if "BatchNorm" in type(m).__name__ else None)
    before = snapshot(classifier)
    images, targets = images_of(3, 32)
    given = images.clone()
    with torch.set_grad_enabled(grad):
        maps = explainer_of(name, **({"window": 0.5, "stride": 0.5} if name == "sliding_window" else {})).explain(
            classifier, images, targets
        )
        assert torch.is_grad_enabled() == grad
    assert_same(before, snapshot(classifier))
    assert not maps.requires_grad
    assert torch.equal(images, given) and not images.requires_grad


def test_a_module_that_does_not_run_is_an_error(tiny, explainer_of, monkeypatch):
    from fgvc_cli.contracts import CamLayer

    aside = torch.nn.ReLU()
    monkeypatch.setattr(tiny.backbone, "cam_layer", lambda index: CamLayer(aside, "BCHW"))
    with pytest.raises(FgvcError, match="does not run"):
        explainer_of("gradcam").explain(tiny, torch.randn(2, 3, 6, 6), torch.tensor([0, 1]))
    assert hooks(aside) == 0


def test_a_head_that_cuts_the_gradient_is_an_error(tiny, explainer_of, monkeypatch):
    scores = tiny.head.predict
    monkeypatch.setattr(tiny.head, "predict", lambda model, images: scores(model, images).detach())
    with pytest.raises(FgvcError, match="no gradient"):
        explainer_of("gradcam").explain(tiny, torch.randn(2, 3, 6, 6), torch.tensor([0, 1]))


def test_no_graph_outlives_its_batch(classifier_of, explainer_of, images_of):
    """Graphs are not the garbage collector's: what they save is watched instead."""
    classifier, explainer = classifier_of("timm/test_resnet", "cmal", 32), explainer_of("gradcam")
    saved, freed = 0, 0

    class Kept:
        def __init__(self, tensor: torch.Tensor) -> None:
            nonlocal saved
            saved += 1
            self.tensor = tensor

        def __del__(self) -> None:
            nonlocal freed
            freed += 1

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        explainer.explain(classifier, *images_of(2, 32))
    assert saved == freed > 0


def test_only_the_first_pass_from_the_layer_on_is_recorded(classifier_of, explainer_of, images_of):
    """CMAL looks twice. What the graph keeps must be as much as for the first pass's experts alone."""
    classifier, explainer = classifier_of("timm/test_resnet", "cmal", 32), explainer_of("gradcam")
    shapes: list[tuple[int, ...]] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(tensor.shape))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        explainer.explain(classifier, *images_of(3, 32))
    largest = max((s for s in shapes if len(s) == 4 and s[0] == 3), key=lambda s: s[2])
    assert largest[2] == classifier.backbone.info.maps[-1].grid[0]  # the deepest map's grid, nothing of a shallower


@pytest.mark.parametrize("name", TOKENS)
def test_an_error_in_the_head_leaves_no_trace(name, classifier_of, explainer_of, images_of, monkeypatch):
    classifier = classifier_of("timm/test_vit", "linear", 32)
    before, (images, targets) = snapshot(classifier), images_of(2, 32)
    monkeypatch.setattr(classifier.head, "forward", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        explainer_of(name).explain(classifier, images, targets)
    assert_same(before, snapshot(classifier))
    assert not torch.overrides._get_current_function_mode_stack()


@pytest.mark.parametrize(("name", "head"), PAIRS)
def test_no_synchronization_and_no_loop_over_images(name, head, classifier_of, explainer_of, images_of, strict_device):
    classifier, explainer = classifier_of(backbone_of(name), head, 32), explainer_of(name)
    counts = []
    for count in (2, 4):
        images, targets = images_of(count, 32)
        if name == "sliding_window":  # one pass for all of them
            explainer = explainer_of(name, window=0.5, stride=0.5, passes=100)
        explainer.check(classifier)  # as the host does; finds the layer
        with strict_device() as device:
            explainer.explain(classifier, images, targets)
        counts.append(device.operations)
    assert counts[0] == counts[1]


@pytest.mark.gpu
@pytest.mark.parametrize(("name", "head"), PAIRS)
def test_no_synchronization_on_a_gpu(name, head, classifier_of, explainer_of, images_of):
    classifier = classifier_of(backbone_of(name), head, 32).to("cuda")
    given = {"window": 0.5, "stride": 0.5, "passes": 100} if name == "sliding_window" else {}
    explainer, (images, targets) = explainer_of(name, **given), (tensor.to("cuda") for tensor in images_of(4, 32))
    explainer.explain(classifier, images, targets)  # kernels are chosen
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        maps = explainer.explain(classifier, images, targets)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert maps.isfinite().all()


def test_a_compiled_classifier_can_be_explained(classifier_of, explainer_of, images_of):
    """Compiled code does not run hooks that come later: it is left aside."""
    classifier, explainer = classifier_of("timm/test_resnet", "linear", 32), explainer_of("gradcam")
    images, targets = images_of(2, 32)
    expected = explainer.explain(classifier, images, targets)
    classifier.compile(backend="eager")
    with torch.no_grad():
        classifier.scores(images)
    torch.testing.assert_close(explainer.explain(classifier, images, targets), expected)
