"""Base classes of all kinds of component.

Shapes throughout: normalized images B,3,H,W; feature maps B,C,H,W for every architecture; scores (logits) B,K.
"""

from fgvc_cli.contracts.backbone import (
    Backbone,
    BackboneInfo,
    CamLayer,
    Features,
    ImageSizes,
    LabeledFeatures,
    MapInfo,
    PretrainedWeights,
    Reads,
    TokenBlocks,
    WeightsPackage,
    WeightsReport,
)
from fgvc_cli.contracts.classifier import Classifier, Preprocessing
from fgvc_cli.contracts.dataset import Dataset, DatasetRequest, Download, EncodedImage, Provision, Split
from fgvc_cli.contracts.explainer import Explainer
from fgvc_cli.contracts.exporter import ExportedModel, Exporter, ExportJob, ExportPrecision
from fgvc_cli.contracts.head import FittedHead, Head, Loss, Model, Objective, PublishedState
from fgvc_cli.contracts.launcher import Launcher, LaunchRun, LaunchStudy, RunEnded
from fgvc_cli.contracts.optimizer import (
    Closure,
    ComposedOptimizer,
    Evaluation,
    Optimizer,
    ParameterGroup,
    SingleEvaluation,
    TorchOptimizer,
)
from fgvc_cli.contracts.targets import cross_entropy
from fgvc_cli.contracts.taxonomy import Taxonomy
from fgvc_cli.contracts.tracker import RunStart, Tracker, scalars

__all__ = [
    "Backbone",
    "BackboneInfo",
    "CamLayer",
    "Classifier",
    "Closure",
    "ComposedOptimizer",
    "Dataset",
    "DatasetRequest",
    "Download",
    "EncodedImage",
    "Evaluation",
    "Explainer",
    "ExportJob",
    "ExportPrecision",
    "ExportedModel",
    "Exporter",
    "Features",
    "FittedHead",
    "Head",
    "ImageSizes",
    "LabeledFeatures",
    "LaunchRun",
    "LaunchStudy",
    "Launcher",
    "Loss",
    "MapInfo",
    "Model",
    "Objective",
    "Optimizer",
    "ParameterGroup",
    "Preprocessing",
    "PretrainedWeights",
    "Provision",
    "PublishedState",
    "Reads",
    "RunEnded",
    "RunStart",
    "SingleEvaluation",
    "Split",
    "Taxonomy",
    "TokenBlocks",
    "TorchOptimizer",
    "Tracker",
    "WeightsPackage",
    "WeightsReport",
    "cross_entropy",
    "scalars",
]
