"""What every backbone must keep: what it says of itself, and what it computes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fgvc_cli.contracts import BackboneInfo, Features, PretrainedWeights, Reads
from fgvc_cli.errors import FgvcError, UsageError
from fgvc_cli.testing.backbone_subject import BackboneSubject, tensors_of, text_of
from fgvc_cli.testing.check import Check, Checks, ContractBroken, NotApplicable, expect, some
from fgvc_cli.testing.elsewhere import WHY, expect_moves
from fgvc_cli.testing.models import changed, copied_state, saved_state
from fgvc_cli.testing.subject import Subject
from fgvc_cli.testing.tiny.isolation import isolated
from fgvc_cli.testing.waiting import WaitWatch

COMPUTING: Checks[BackboneSubject] = Checks()

ROUNDING = 1e-3
"""How much features may differ, relative to the largest, by the order of their sums."""


def checks(subject: Subject, partners: bool) -> Iterator[Check]:
    """Return the checks of a backbone."""
    from fgvc_cli.testing.backbone_parts import PARTS
    from fgvc_cli.testing.partners import partner_checks

    backbone = BackboneSubject(subject)
    found = [*COMPUTING.of(backbone), *PARTS.of(backbone), *(partner_checks(subject) if partners else ())]
    for check in found:
        yield Check(check.title, check.about, isolated(check.run), check.advisory)


@COMPUTING("it says who it is", "Heads are built on what a backbone says of itself, and images normalised by it.")
def says(backbone: BackboneSubject) -> None:
    """Name, image size, architecture and normalisation are as they should be."""
    info = backbone.make().info
    expect(isinstance(info, BackboneInfo), "a BackboneInfo as info", f"it is a {type(info).__name__}", "set self.info")
    facts = {"name": (info.name, backbone.spec.name), "image_size": (info.image_size, backbone.size)}
    for what, (found, expected) in facts.items():
        expect(
            found == expected, f"info.{what} to be {expected!r}", f"it is {found!r}", "pass on what it was built with"
        )
    known = ("convolutional", "transformer")
    expect(info.architecture in known, f"an architecture of {known}", f"it is {info.architecture!r}", "choose one")
    for what, values in (("mean", info.mean), ("std", info.std)):
        fits = len(values) == 3 and all(v >= 0 for v in values) and (what == "mean" or all(v > 0 for v in values))
        expect(fits, f"three numbers as info.{what}", f"it is {values}", "give one for each of red, green and blue")


@COMPUTING("its maps are as it says", "A head is built for exact channels and grids before it sees a map.")
def maps(backbone: BackboneSubject) -> None:
    """Every map has the channels and the grid of info, and the embedding its width."""
    module, info = backbone.make().eval(), backbone.info
    features = module(backbone.images(), backbone.everything())
    expect(isinstance(features, Features), "Features from forward", f"a {type(features).__name__}", "return them")
    for index, described in enumerate(info.maps):
        shape = (2, described.channels, *described.grid)
        found = features.maps.get(index)
        expect(
            isinstance(found, Tensor) and found.shape == shape,
            f"map {index} of shape {shape}, as info says",
            f"it is {'missing' if found is None else tuple(found.shape)}",
            "give maps as B,C,H,W, and their exact grids at the image size in info",
        )
    width, embedding = (2, info.embedding_width), features.embedding
    expect(
        isinstance(embedding, Tensor) and embedding.shape == width,
        f"an embedding of shape {width}, as info says",
        f"it is {'missing' if embedding is None else tuple(embedding.shape)}",
        "give the pooled features as B,D, and D in info.embedding_width",
    )
    unfit = [name for name, value in tensors_of(features).items() if not value.isfinite().all()]
    expect(not unfit, "finite features", f"{some(unfit)} are not", "look at how the weights begin")


@COMPUTING("its strides are those of the spec", "What fits together is told by the spec, before anything is built.")
def strides(backbone: BackboneSubject) -> None:
    """The spec's strides, if it gives any, are those of info; they agree with the grids."""
    found = tuple(m.stride for m in backbone.info.maps)
    declared = backbone.spec.strides
    expect(
        not declared or declared == found or bool(backbone.subject.values),
        f"maps of strides {declared}, as the spec says",
        f"info says {found}",
        "make spec and info agree, or leave the spec's strides empty",
    )
    expect(list(found) == sorted(found), "maps from shallow to deep", f"their strides are {found}", "sort them")
    for index, described in enumerate(backbone.info.maps):
        rows, columns = described.grid
        nominal = backbone.size / described.stride
        expect(
            rows == 1 < columns or all(nominal / 2 - 1 <= side <= nominal * 2 + 1 for side in described.grid),
            f"a grid of about {nominal:.0f} points a side for map {index} of stride {described.stride}",
            f"it has {rows} x {columns}",
            "the stride is how many pixels of the image one point of the map stands for",
        )


@COMPUTING("it computes what is asked for", "A head that reads one map must not pay for the others.")
def asked(backbone: BackboneSubject) -> None:
    """Each reading gives the maps it names, the same as when everything is read, and nothing else."""
    module, images = backbone.make().eval(), backbone.images()
    with torch.no_grad():
        whole = tensors_of(module(images, backbone.everything()))
        for reads in backbone.reads():
            features = module(images, reads)
            found = tensors_of(features)
            wanted = {f"map {index}" for index in reads.maps} | ({"the embedding"} if reads.embedding else set())
            expect(
                set(found) == wanted,
                f"{text_of(reads)} and nothing else",
                f"forward gives {', '.join(found) or 'nothing'}",
                "follow reads: None for an embedding that is not asked for",
            )
            _expect_close(
                found, {name: whole[name] for name in wanted}, f"the same features when only {text_of(reads)}"
            )


@COMPUTING("an image's features are its own", "In evaluation mode they must not depend on the batch, nor on the call.")
def alone(backbone: BackboneSubject) -> None:
    """A batch gives what its images give one by one, twice the same, and changes no buffer."""
    module, images, reads = backbone.make().eval(), backbone.images(), backbone.everything()
    before = copied_state(module)
    with torch.no_grad():
        first, second = tensors_of(module(images, reads)), tensors_of(module(images, reads))
        apart = [tensors_of(module(image[None], reads)) for image in images]
    moved = changed(before, copied_state(module))
    expect(not moved, "buffers as they were", f"evaluation changes {some(moved)}", "count only while self.training")
    _expect_close(second, first, "the same features in a second call")
    joined = {name: torch.cat([one[name] for one in apart]) for name in first}
    _expect_close(first, joined, "the same features for an image in any batch")


@COMPUTING("the same seed makes the same backbone", "A run from scratch is repeated from its seed.")
def same_seed(backbone: BackboneSubject) -> None:
    """Weights come from torch's generator."""
    differing = changed(*(copied_state(backbone.make(seed=5)) for _ in range(2)))
    expect(not differing, "equal weights from equal seeds", f"{some(differing)} differ", "draw weights with torch")


@COMPUTING("a saved backbone is the backbone", "model.safetensors holds state_dict() alone: what is not in it is lost.")
def state_round_trip(backbone: BackboneSubject) -> None:
    """After a pass in training mode, its state dict makes another one compute alike."""
    first, images, reads = backbone.make(), backbone.images(4), backbone.everything()
    with torch.no_grad():
        first.train()(images, reads)
        second = backbone.make(seed=1)
        second.load_state_dict(saved_state(first))
        expected, found = (tensors_of(module.eval()(images, reads)) for module in (first, second))
    _expect_close(found, expected, "the same features from a backbone that loads its state dict")


@COMPUTING("it computes in bf16", "On a GPU the forward pass runs under autocast.")
def autocast(backbone: BackboneSubject) -> None:
    """Features under bf16 autocast are finite and near those of float32."""
    module, images, reads = backbone.make().eval(), backbone.images(), backbone.everything()
    with torch.no_grad():
        exact = tensors_of(module(images, reads))
        with torch.autocast("cpu", torch.bfloat16):
            coarse = tensors_of(module(images, reads))
    _expect_close(coarse, exact, "nearly the same features under bf16 autocast", rounding=0.2)


@COMPUTING("it computes in channels-last", "The host may lay images and weights out so; convolutions are faster then.")
def channels_last(backbone: BackboneSubject) -> None:
    """The memory format does not change the features."""
    module, images, reads = backbone.make().eval(), backbone.images(), backbone.everything()
    with torch.no_grad():
        plain = tensors_of(module(images, reads))
        module = module.to(memory_format=torch.channels_last)
        other = tensors_of(module(images.contiguous(memory_format=torch.channels_last), reads))
    _expect_close(other, plain, "the same features of channels-last images")


@COMPUTING("it computes on a GPU as well", WHY)
def elsewhere(backbone: BackboneSubject) -> None:
    """Forward makes no tensor on the CPU that meets one which is not."""
    reads = backbone.everything()
    expect_moves(backbone.make().train(), lambda module, images: module(images, reads), backbone.images())


@COMPUTING(
    "it takes a size or refuses it", "--image-size may be anything; a size that does not fit must be said, not hit."
)
def sizes(backbone: BackboneSubject) -> None:
    """For several sizes it is built and computes as it says, or raises a UsageError."""
    for size in (1, backbone.size + 1, backbone.size + 8, backbone.size * 3 // 2):
        try:
            module = backbone.make(size).eval()
        except UsageError:
            continue
        except Exception as error:
            raise ContractBroken(
                f"a UsageError (or a backbone) for images of {size} px",
                f"it raised {type(error).__name__}: {error}",
                "check the size first: ImageSizes(minimum, multiple).check(image_size, name)",
            ) from error
        last = len(module.info.maps) - 1
        with torch.no_grad():
            found = module(backbone.images(size=size), Reads((last,))).maps[last]
        expect(
            tuple(found.shape[2:]) == module.info.maps[last].grid,
            f"a grid of {module.info.maps[last].grid} at {size} px, as info says",
            f"the deepest map has {tuple(found.shape[2:])}",
            "compute the exact grid for the image size, or refuse the size",
        )


@COMPUTING("its published weights are as the spec says", "`--weights imagenet` asks the backbone, the table the spec.")
def published(backbone: BackboneSubject) -> None:
    """pretrained() and the spec agree, and strange weights are refused in words."""
    module, declared = backbone.make(), backbone.spec.pretrained
    weights = module.pretrained()
    expect(
        bool(declared) == (weights is not None),
        "weights from pretrained() where the spec names some, and nowhere else",
        f"the spec says {declared or 'none'!r} and pretrained() gives {weights!r}",
        "make them agree",
    )
    if weights is None:
        raise NotApplicable("it publishes no weights")
    expect(
        isinstance(weights, PretrainedWeights) and bool(weights.name), "PretrainedWeights", f"{weights!r}", "name them"
    )
    try:
        module.load_weights({"an entry of nothing": torch.zeros(1)})
    except FgvcError:
        return
    raise ContractBroken("an FgvcError for weights of which nothing matches", "they are loaded", "compare the names")


@COMPUTING(
    "it does not wait for the device",
    "Each value that is read off a GPU (.item(), nonzero, a mask as index) lets it run dry.",
    advisory=True,
)
def no_wait(backbone: BackboneSubject) -> None:
    """No operation of forward reads a value off the device."""
    module, images = backbone.make().train(), backbone.images()
    with torch.no_grad(), WaitWatch() as watch:
        module(images, backbone.everything())
    watch.expect_none()


def _expect_close(found: dict[str, Tensor], expected: dict[str, Tensor], what: str, rounding: float = ROUNDING) -> None:
    for name, value in expected.items():
        scale = max(1e-3, float(value.abs().max()))
        worst = float((found[name].float() - value.float()).abs().max()) / scale
        expect(
            worst <= rounding,
            what,
            f"{name} differs by {worst:.2g} of its largest value",
            "let forward depend on the image and the weights alone",
        )
