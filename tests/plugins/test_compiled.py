"""Every built-in backbone and every head is captured without a graph break, in training and in prediction.

A backbone is captured for what a head reads of it: each backbone meets the head that reads all of its maps, and each
head a backbone of convolutions and one of tokens.
"""

from __future__ import annotations

from contextlib import nullcontext
from itertools import product

import pytest
import torch
from torch._dynamo.utils import counters

from fgvc_cli.contracts import Classifier, ParameterGroup
from fgvc_cli.devices import MAX_GRAPHS, compile_in_place
from fgvc_cli.options import build
from fgvc_cli.registry import get_registry
from fgvc_cli.training.update import Update

SIZE, CLASSES = 64, 5


def built_in(kind: str) -> list[str]:
    return [component.name for component in get_registry().components(kind) if component.builtin]


PAIRS = {
    *product(["timm/test_resnet", *built_in("backbone")], ["pim"]),
    *product(["resnet50", "swin_t"], built_in("head")),
}


def update_of(model: Classifier) -> Update:
    """Two passes an update, as the hardest for a compiler: weights and statistics move between them."""
    groups = [ParameterGroup(p, dict(getattr(model, p).named_parameters())) for p in ("backbone", "head")]
    base, over = (get_registry().find("optimizer", name) for name in ("sgd", "sam"))
    made = base.load()(groups=groups, options=build(base.options_type(), {"lr": 1e-4}, "optimizer"))
    optimizer = over.load()(groups=groups, options=build(over.options_type(), {}, "optimizer"), base=made)
    return Update(model, model.head, optimizer, nullcontext, clip_norm=1.0)


@pytest.mark.slow  # compiling takes 10 s and more
@pytest.mark.parametrize(("backbone", "head"), sorted(PAIRS))
@pytest.mark.timeout(900)
def test_training_and_prediction_have_no_graph_break(classifier_of, backbone, head):
    torch._dynamo.reset()
    counters.clear()
    model = classifier_of(backbone, head, SIZE, CLASSES).train()
    update = update_of(model)
    compile_in_place(model, backend="eager")  # graphs are captured, and run without waiting for a compiler
    images, targets = torch.randn(2, 3, SIZE, SIZE), torch.tensor([0, 3])
    update([(images, targets)])
    captured = counters["frames"]["total"]
    update([(images, targets)])
    assert counters["frames"]["total"] == captured, "a second update captures nothing anew"
    model.eval()
    with torch.inference_mode():
        assert model.scores(images).shape == (2, CLASSES)
    assert counters["frames"]["ok"] == counters["frames"]["total"] > captured > 0
    assert not counters["graph_break"] and not counters["unimplemented"]
    assert counters["frames"]["total"] < MAX_GRAPHS
