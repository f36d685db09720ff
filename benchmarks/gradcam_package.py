"""Time Grad-CAM: ours, its passes only, and the `grad-cam` package, alternately on one model and batch.

"passes" is the lower bound, written by hand: forward without gradients up to the target layer, from there with
gradients, and backward to the layer, without computing a map. "whole graph" is the same with gradients from the first
layer on. The package (a test extra) gets the model, the layer and the reshape function that ours takes from the
backbone.

    OMP_NUM_THREADS=1 python benchmarks/gradcam_package.py --models timm/resnet18 timm/resnet50 swin_t
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from harness import CLASSES, make_classifier, medians, option_parser, report
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from timm.models.resnet import ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from fgvc_cli.contracts import Classifier
from fgvc_cli.devices import pick_device
from fgvc_cli.explaining.explainers import make_explainer
from fgvc_cli.registry import get_registry


class Scores(nn.Module):
    """A classifier in the form that the package needs, with the target layer and its reshape function."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.classifier = classifier
        self.layer = classifier.backbone.cam_layer(None)

    def forward(self, images: Tensor) -> Tensor:
        """Return scores B,K."""
        return self.classifier.scores(images)

    def reshape(self, output: Tensor) -> Tensor:
        """Reshape the layer's output to B,C,H,W."""
        if self.layer.layout == "BNC":
            return output[:, self.layer.prefix :].transpose(1, 2).unflatten(2, self.layer.grid)
        return output.permute(0, 3, 1, 2) if self.layer.layout == "BHWC" else output


class Passes:
    """The model split at the target layer by hand."""

    def __init__(self, classifier: Classifier) -> None:
        self.model, self.head = classifier.backbone.model, classifier.head
        self.cut = {ResNet: self._resnet, SwinTransformer: self._swin, VisionTransformer: self._vit}[type(self.model)]

    def __call__(self, images: Tensor, targets: Tensor, whole: bool) -> Tensor:
        """Return the gradient of the target layer's output."""
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


def min_correlation(ours: Tensor, theirs: Tensor) -> float:
    """Return the smallest correlation of the two maps of an image, over images whose map is not all zero."""
    pairs = [torch.stack((a.flatten(), b.flatten())) for a, b in zip(ours, theirs, strict=True) if b.any()]
    return min(float(torch.corrcoef(pair)[0, 1]) for pair in pairs)


def measure(name: str, size: int, batch: int, rounds: int, device: torch.device) -> dict[str, float]:
    """Measure one model, print a line per variant, and return the seconds of each."""
    classifier = make_classifier(name, "linear", size, device).eval()
    if classifier.backbone.info.channels_last and device.type == "cuda":
        classifier = classifier.to(memory_format=torch.channels_last)
    images, targets = torch.randn(batch, 3, size, size, device=device), torch.arange(batch, device=device) % CLASSES
    ours = make_explainer("gradcam", {"least_side": 1}, get_registry())
    passes, scores = Passes(classifier), Scores(classifier)
    package = GradCAM(scores, [scores.layer.module], reshape_transform=scores.reshape)
    wanted = [ClassifierOutputTarget(int(k)) for k in targets]
    least = min_correlation(ours.explain(classifier, images, targets).cpu(), torch.from_numpy(package(images, wanted)))
    package.activations_and_grads.release()  # its hooks would run in the other variants too

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
    print(f"{name}, {size} px, batches of {batch}, fp32, {device}, {rounds} rounds; correlation >= {least:.5f}")
    for variant, median in seconds.items():
        line = f"  {variant:17} {1000 * median:8.1f} ms   {batch / median:7.1f} images/s"
        print(line if variant == "gradcam" else f"{line}   gradcam takes {own / median:.2f} of it")
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
