"""Export to a torch.export program."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from fgvc_cli import FgvcError
from fgvc_cli.contracts import ExportedModel, Exporter, ExportJob
from fgvc_cli.errors import cause_of
from fgvc_cli.options import NoOptions
from fgvc_exporters.program import KEY, quiet, traced


class TorchExporter(Exporter):
    """Write a classifier as a `.pt2` file, which torch loads without fgvc and timm, and AOTInductor compiles.

    Its description is the extra file `fgvc`. Loading such a file can run code that is in it: load only your own.
    """

    def __init__(self, options: NoOptions) -> None:
        self.options = options

    def export(self, job: ExportJob) -> list[str]:
        """Write the file.

        Raises:
            FgvcError: a layer cannot be traced.
        """
        program, text = traced(job), json.dumps(job.document, ensure_ascii=False)
        with quiet(), job.path.open("wb") as file:
            torch.export.save(program, file, extra_files={KEY: text})
        return []

    def open(self, path: Path) -> ExportedModel:
        """Open a file.

        Raises:
            FgvcError: it is damaged or no such program.
        """
        found = {KEY: ""}
        try:
            with quiet(), path.open("rb") as file:
                network = torch.export.load(file, extra_files=found).module()
            document = json.loads(found[KEY]) if found[KEY] else None
        except Exception as error:  # torch has no type for a damaged file
            raise FgvcError(f"{path} cannot be opened by torch: {cause_of(error)}") from error

        @torch.no_grad()
        def scores(images: Tensor) -> Tensor:
            result: Tensor = network(images)
            return result

        return ExportedModel(document, scores)

    def script(self, model: str) -> str:
        """Return a script that needs torch, numpy and Pillow."""
        return files("fgvc_exporters").joinpath("predict_torch.py").read_text("utf-8").replace("model.pt2", model)
