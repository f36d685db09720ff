import json

import torch

from fgvc_cli import FgvcError
from fgvc_cli.contracts import ExportedModel, Exporter


class Sound(Exporter):
    def __init__(self, options):
        pass

    def export(self, job):
        torch.save([job.network, json.dumps(job.document), job.precision], job.path)
        return []

    def open(self, path):
        try:
            network, document, precision = torch.load(path, weights_only=False)
        except Exception as error:
            raise FgvcError(f"{path} is damaged") from error
        return ExportedModel(json.loads(document), lambda images: self.scores(network, images, precision))

    @torch.no_grad()
    def scores(self, network, images, precision):
        return network(images)


class Shifted(Sound):
    def scores(self, network, images, precision):
        scores = super().scores(network, images, precision)
        return scores + torch.arange(scores.shape[1])


class Fixed(Sound):
    def scores(self, network, images, precision):
        return super().scores(network, images, precision)[:1].expand(8, -1)


class Coarse(Sound):
    def scores(self, network, images, precision):
        scores = super().scores(network, images, precision)
        return scores * float("nan") if precision == "int8" else scores


class Nameless(Sound):
    def open(self, path):
        return ExportedModel({}, super().open(path).scores)


class Sidecar(Sound):
    def export(self, job):
        (job.path.parent / "weights.bin").write_bytes(b"")
        return super().export(job)


class Awake(Sound):
    def export(self, job):
        super().export(job)
        job.network.train()
        return []


class Trusting(Sound):
    def open(self, path):
        return ExportedModel(json.loads(torch.load(path, weights_only=False)[1]), lambda images: images)


class Chatty(Sound):
    def script(self, model):
        return "print('It is a bird')"


class Crashing(Sound):
    def script(self, model):
        return "raise SystemExit('no bird')"
