import torch

from fgvc_cli.contracts import Explainer


class Sound(Explainer):
    """The size of the gradient at each pixel."""

    def __init__(self, options):
        self.largest = torch.zeros(())

    def gradient(self, classifier, images, targets):
        with torch.enable_grad():
            inputs = images.detach().requires_grad_()
            chosen = classifier.scores(inputs).gather(1, targets[:, None])
            (gradient,) = torch.autograd.grad(chosen.sum(), inputs)
        return gradient.abs().amax(1).float()

    def explain(self, classifier, images, targets):
        return self.scaled(self.gradient(classifier, images, targets))

    def scaled(self, size):
        return size / size.amax((1, 2), keepdim=True).clamp_min(1e-12)


class Raw(Sound):
    def scaled(self, size):
        return size + 2


class Shared(Sound):
    def scaled(self, size):
        return size / size.max().clamp_min(1e-12)


class Remembering(Sound):
    def explain(self, classifier, images, targets):
        self.largest = self.largest + 1
        return super().explain(classifier, images, targets) / self.largest


class Grads(Sound):
    def gradient(self, classifier, images, targets):
        with torch.enable_grad():
            inputs = images.detach().requires_grad_()
            classifier.scores(inputs).gather(1, targets[:, None]).sum().backward()
        return inputs.grad.abs().amax(1).float()


class Frozen(Sound):
    def gradient(self, classifier, images, targets):
        classifier.requires_grad_(False)
        return super().gradient(classifier, images, targets)


class Hooked(Sound):
    def gradient(self, classifier, images, targets):
        handle = classifier.backbone.register_forward_hook(lambda *_: None)
        gradient = super().gradient(classifier, images, targets)
        handle.remove()
        return gradient


class Edges(Sound):
    def gradient(self, classifier, images, targets):
        return images.mean(1).abs().detach()


class Coarse(Sound):
    def scaled(self, size):
        return (
            super().scaled(size).to(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else size.dtype)
        )


class OneNote(Sound):
    def notes(self, classifier):
        return "a note"


class Waiting(Sound):
    def scaled(self, size):
        return torch.stack([one / max(one.max().item(), 1e-12) for one in size])


class Mapped(Sound):
    def explain(self, classifier, images, targets):
        assert classifier.head.reads().maps[-1] >= 0
        return super().explain(classifier, images, targets)


class Writing(Sound):
    def explain(self, classifier, images, targets):
        maps = super().explain(classifier, images, targets)
        images.mul_(0.5)
        return maps


class Moving(Sound):
    def explain(self, classifier, images, targets):
        maps = super().explain(classifier, images, targets)
        with torch.no_grad():
            next(classifier.parameters()).add_(0.1)
        return maps


class Sleeping(Sound):
    def explain(self, classifier, images, targets):
        classifier.head.train()
        return super().explain(classifier, images, targets)


class Switching(Sound):
    def explain(self, classifier, images, targets):
        maps = super().explain(classifier, images, targets)
        torch.set_grad_enabled(True)
        return maps
