import torch

from fgvc_flawed.explainers import Sound


class Bound(Sound):
    def explain(self, classifier, images, targets):
        maps = super().explain(classifier, images, targets)
        return maps * torch.ones((), requires_grad=True)


class Writing(Sound):
    def explain(self, classifier, images, targets):
        maps = super().explain(classifier, images, targets)
        images.mul_(0.5)
        return maps


class Switching(Sound):
    def explain(self, classifier, images, targets):
        maps = super().explain(classifier, images, targets)
        torch.set_grad_enabled(True)
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


class Spilling(Sound):
    """Leaves gradients where a head has many parameters."""

    def explain(self, classifier, images, targets):
        if sum(1 for _ in classifier.head.parameters()) > 4:
            for parameter in classifier.head.parameters():
                parameter.grad = torch.zeros_like(parameter)
        return super().explain(classifier, images, targets)
