"""A plugin with a sound component of each kind, and one for each flaw that a contract check must find."""

from fgvc_cli import (
    BackboneSpec,
    DatasetSpec,
    ExplainerSpec,
    ExporterSpec,
    Family,
    HeadSpec,
    LauncherSpec,
    OptimizerSpec,
    RecipeSpec,
    StudySpec,
    TrackerSpec,
    hookimpl,
)
from fgvc_flawed.at_run_time.table import MISBEHAVIORS
from fgvc_flawed.table import FLAWS, SOUND, Flaw

OPTIONS = {"optimizer": "fgvc_flawed.options:Rates"}


def specs(kind, spec_type, **sound):
    """Specs of the sound component and of those with a flaw."""
    given = {"summary": "Sound, or not", "options": OPTIONS.get(kind, ""), **sound}
    flaws = [flaw for flaw in (*SOUND, *FLAWS) if flaw.kind == kind and "/" not in flaw.name]
    flaws += [misbehavior for misbehavior in MISBEHAVIORS if misbehavior.kind == kind]
    named = {flaw.name: flaw for flaw in (Flaw(kind, "sound", ""), *flaws)}
    return [spec_type(**{"name": f.name, "target": f.target, **given, **f.spec}) for f in named.values()]


@hookimpl
def fgvc_backbones():
    return specs("backbone", BackboneSpec, strides=(2, 4, 8, 16))


@hookimpl
def fgvc_heads():
    return specs("head", HeadSpec, maps=2)


@hookimpl
def fgvc_optimizers():
    return specs("optimizer", OptimizerSpec)


@hookimpl
def fgvc_datasets():
    return specs("dataset", DatasetSpec)


@hookimpl
def fgvc_explainers():
    return specs("explainer", ExplainerSpec)


@hookimpl
def fgvc_trackers():
    return specs("tracker", TrackerSpec)


@hookimpl
def fgvc_exporters():
    return specs("exporter", ExporterSpec, suffix=".flawed")


@hookimpl
def fgvc_launchers():
    return specs("launcher", LauncherSpec)


def files(kind, spec_type, folder):
    """Specs of the sound file and of those with a flaw."""
    names = ["sound", *(flaw.name for flaw in FLAWS if flaw.kind == kind)]
    return [spec_type(name, f"fgvc_flawed:{folder}/{name}.toml", "Sound, or not") for name in names]


@hookimpl
def fgvc_recipes():
    return files("recipe", RecipeSpec, "recipes")


@hookimpl
def fgvc_studies():
    return files("study", StudySpec, "studies")


@hookimpl
def fgvc_families():
    return [
        Family("head", "any/", "fgvc_flawed:resolve_any", "Resolves any name"),
        Family("backbone", "sound/", "fgvc_flawed:resolve_sound", "sound/1 and sound/2"),
    ]


def resolve_any(name):
    return HeadSpec(name, "fgvc_flawed.heads:Sound", "Sound", maps=2)


def resolve_sound(name):
    return BackboneSpec(name, "fgvc_flawed.backbones:Sound", "Sound") if name in ("sound/1", "sound/2") else None
