"""What Grad-CAM costs: ours, the passes alone, and the `grad-cam` package, on one model and batch, in turn.

"passes" is the least: forward without gradients up to the target layer, on from there with, and back to it, written
out by hand, with no map made. "whole graph" is the same where gradients are recorded from the first layer on. The
package (a test extra) gets the model, the layer and the function that reshapes tokens which ours takes from the
backbone.

    OMP_NUM_THREADS=1 python benchmarks/gradcam_package.py --models timm/resnet18 timm/resnet50 swin_t
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from in_turn import medians, option_parser, report
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from timm.models.resnet import ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fgvc_cli.contracts import Classifier, Preprocessing
from fgvc_cli.devices import pick_device
from fgvc_cli.explaining.explainers import make_explainer
from fgvc_cli.options import build
from fgvc_cli.registry import get_registry
from fgvc_cli.runs.model_file import build_backbone, build_head

CLASSES = 100


class Scores(nn.Module):
    """A classifier as the package wants one, with its layer and what brings that layer's output to B,C,H,W."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.layer = classifier.backbone.cam_layer(None)

    def forward(self, images: Tensor) -> Tensor:
        """Return scores B,K."""
        return self.classifier.scores(images)

    def reshape(self, output: Tensor) -> Tensor:
        """Bring the layer's output to B,C,H,W."""
        if self.layer.layout == "BNC":
            return output[:, self.layer.prefix :].transpose(1, 2).unflatten(2, self.layer.grid)
        return output.permute(0, 3, 1, 2) if self.layer.layout == "BHWC" else output


class Passes:
    """The model cut at the target layer by hand."""

    def __init__(self, classifier: Classifier) -> None:
        self.model, self.head = classifier.backbone.model, classifier.head
        self.cut = {ResNet: self._resnet, SwinTransformer: self._swin, VisionTransformer: self._vit}[type(self.model)]

    def __call__(self, images: Tensor, targets: Tensor, whole: bool) -> Tensor:
        """Return the gradient at the layer."""
        with torch.set_grad_enabled(whole):
            activations, rest = self.cut(images)
        if not whole:
            activations = activations.detach().requires_grad_()
        scores = self.head.classifier(self.model.forward_head(rest(activations), pre_logits=True))
        return torch.autograd.grad(scores.gather(1, targets[:, None]).sum(), activations)[0]

    def _resnet(self, images: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        return self.model.forward_features(images), nn.Identity()

    def _swin(self, images: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        return self.model.layers(self.model.patch_embed(images)), self.model.norm

    def _vit(self, images: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        model, last = self.model, self.model.blocks[-1]
        tokens = model.blocks[:-1](model.norm_pre(model.patch_drop(model._pos_embed(model.patch_embed(images)))))

        def rest(normed: Tensor) -> Tensor:
            attended = tokens + last.ls1(last.attn(normed))
            return model.norm(attended + last.ls2(last.mlp(last.norm2(attended))))

        return last.norm1(tokens), rest


def make_classifier(name: str, size: int) -> Classifier:
    """Build a backbone with random weights and a linear head."""
    torch.manual_seed(0)
    component = get_registry().find("backbone", name)
    backbone = build_backbone(component, build(component.options_type(), {}, "backbone"), size)
    component = get_registry().find("head", "linear")
    head = build_head(component, build(component.options_type(), {}, "head"), backbone, CLASSES)
    preprocessing = Preprocessing(size, size, backbone.info.mean, backbone.info.std)
    return Classifier(backbone, head, [str(k) for k in range(CLASSES)], preprocessing).eval()


def alike(ours: Tensor, theirs: Tensor) -> float:
    """Return the least correlation of two maps of one image; of maps that are not all zero."""
    pairs = [torch.stack((a.flatten(), b.flatten())) for a, b in zip(ours, theirs, strict=True) if b.any()]
    return min(float(torch.corrcoef(pair)[0, 1]) for pair in pairs)


def measure(name: str, size: int, batch: int, rounds: int, device: torch.device) -> dict[str, float]:
    """Measure one model, print a line a way, and return the seconds of each."""
    classifier = make_classifier(name, size).to(device)
    if classifier.backbone.info.channels_last and device.type == "cuda":
        classifier = classifier.to(memory_format=torch.channels_last)
    images, targets = torch.randn(batch, 3, size, size, device=device), torch.arange(batch, device=device) % CLASSES
    ours = make_explainer("gradcam", {"least_side": 1}, get_registry())
    passes, scores = Passes(classifier), Scores(classifier)
    package = GradCAM(scores, [scores.layer.module], reshape_transform=scores.reshape)
    wanted = [ClassifierOutputTarget(int(k)) for k in targets]
    least = alike(ours.explain(classifier, images, targets).cpu(), torch.from_numpy(package(images, wanted)))
    package.activations_and_grads.release()  # its hooks would run in the other ways too

    def by_package() -> None:
        with GradCAM(scores, [scores.layer.module], reshape_transform=scores.reshape) as cam:
            cam(images, wanted)

    seconds = medians(
        {
            "gradcam": lambda: ours.explain(classifier, images, targets),
            "passes": lambda: passes(images, targets, whole=False),
            "whole graph": lambda: passes(images, targets, whole=True),
            "grad-cam package": by_package,
        },
        rounds,
        device,
    )
    own = seconds["gradcam"]
    print(f"{name}, {size} px, batches of {batch}, fp32, {device}, {rounds} rounds; least correlation {least:.5f}")
    for way, median in seconds.items():
        line = f"  {way:17} {1000 * median:8.1f} ms   {batch / median:7.1f} images a second"
        print(line if way == "gradcam" else f"{line}   gradcam takes {own / median:.2f} of it")
    return seconds


def main() -> None:
    """Measure and print."""
    parser = option_parser(__doc__)
    parser.add_argument("--models", nargs="+", default=["timm/resnet18", "timm/resnet50", "vit_b16", "swin_t"])
    parser.add_argument("--image-size", type=int, default=112)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    sizes = arguments.image_size, arguments.batch_size, arguments.rounds
    report(arguments, device, {"seconds": {name: measure(name, *sizes, device) for name in arguments.models}})


if __name__ == "__main__":
    main()
