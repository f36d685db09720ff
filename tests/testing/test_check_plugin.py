"""`fgvc check-plugin`: what it checks, its output, and what it refuses."""

from __future__ import annotations

import json
import sys

import pytest

from fgvc_cli import FgvcError, UsageError
from fgvc_cli.registry import get_registry
from fgvc_cli.specs import KINDS
from fgvc_cli.testing.runner import plan_checks, select

HEAD = """
from fgvc_cli import HeadSpec, hookimpl
@hookimpl
def fgvc_heads():
    return [HeadSpec("sound", "fgvc_flawed.heads:Sound", "Another", maps=2)]
"""
EMPTY = """
from fgvc_cli import hookimpl
@hookimpl
def fgvc_heads():
    return []
"""
FAMILY = """
from fgvc_cli import Family, hookimpl
@hookimpl
def fgvc_families():
    return [Family("head", "broad/", "fgvc_broad:resolve")]
def resolve(name):
    raise KeyError(name)
"""
LISTENER = """
import typer
from fgvc_cli import hookimpl
@hookimpl
def fgvc_epoch_finished(run, metrics):
    print(metrics["val"]["top1"])
@hookimpl
def fgvc_commands(app):
    @app.command()
    def mute():
        pass
"""


@pytest.fixture(scope="module", autouse=True)
def others(flawed, add):
    """Distributions with a flaw of the plugin as a whole."""
    add("fgvc-broken", "import torch_broken\n")
    add("fgvc-empty", EMPTY)
    add("fgvc-broad", FAMILY)
    add("fgvc-listener", LISTENER)
    sound = LISTENER.replace('["val"]["top1"]', '["epoch"]').replace("        pass", "        'Nothing.'")
    add("fgvc-sound-listener", sound)
    add("fgvc-gone", FAMILY.replace("broad/", "gone/").replace(":resolve", ":nothing"))
    add("fgvc-ours", FAMILY.replace("broad/", "same/"))
    add("fgvc-theirs", FAMILY.replace("broad/", "same/"))
    add("fgvc-heavy", f"import torch\n{HEAD}".replace('"sound"', '"heavy"'))
    add("fgvc-twin", HEAD)
    add("fgvc-squatter", HEAD.replace('"sound"', '"squat"'), record="fgvc_heads/__init__.py,,\nfgvc_squatter.py,,\n")


def checked(fgvc, *arguments):
    """Run it with `--json`; return the result, and the checks by what is checked and title."""
    result = fgvc("check-plugin", *arguments, "--json")
    document = json.loads(result.stdout)
    return result, {(f"{c['kind']} {c['name']}", c["check"]): c for c in document["checks"]}


def test_table_of_a_sound_component(fgvc):
    result = fgvc("check-plugin", "fgvc-flawed:sound", "--quick", "--only", "notes")
    assert result.exit_code == 0, result.stderr
    lines = [line.split("  ") for line in result.stdout.splitlines() if line.strip()]
    assert [line[0] for line in lines if line[0].split(" ")[-1] == "sound"] == ["head sound", "explainer sound"]
    assert lines[-1] == ["2 of 2 checks passed."]


def test_failure_is_explained(fgvc):
    result = fgvc("check-plugin", "no-class", "--only", "score per")
    assert result.exit_code == 1
    assert "fgvc: error: no-class breaks its contract: head no-class: predict returns" in result.stderr
    assert "failed: head no-class: predict returns a score per class\n  Expected floating-point" in result.stdout
    assert "  Why: predict must return scores B,K" in result.stdout
    assert result.stdout.endswith("0 of 1 checks passed, 1 failed.\n")


def test_output_of_components_goes_to_stderr(fgvc, monkeypatch):
    from fgvc_flawed import heads

    monkeypatch.setattr(heads.Sound, "notes", lambda self: sys.stdout.write("hello\n") and [])
    result, _ = checked(fgvc, "fgvc-flawed:sound", "--only", "notes")
    assert result.exit_code == 0 and "hello" in result.stderr


def test_quick_skips_built_in_partners(flawed):
    registry = get_registry()
    selection = select("fgvc-flawed:sound", registry)
    titles = [
        {(planned.kind, planned.check.title) for planned in plan_checks(selection, registry, partners=partners)}
        for partners in (True, False)
    ]
    own = {kind: [c.name for c in registry.components(kind) if c.builtin] for kind in KINDS}
    assert titles[0] - titles[1] == {
        *(("head", f"trains on {backbone}") for backbone in own["backbone"]),
        *(("head", f"trains with {optimizer}") for optimizer in own["optimizer"]),
        *((kind, f"is explained by {explainer}") for explainer in own["explainer"] for kind in ("head", "backbone")),
        *(("backbone", f"trains with {head}") for head in own["head"]),
        *(("optimizer", f"trains {head}") for head in own["head"]),
        *(("explainer", f"explains {name}") for name in (*own["head"], *own["backbone"])),
    }


def test_options_and_data_reach_the_components(fgvc, tmp_path):
    only = ("--only", "learning rates for")
    _, checks = checked(fgvc, "fgvc-flawed:sound", *only, "--set", "optimizer.lr=0.5")
    assert checks["optimizer sound", "has learning rates for backbone and head"]["result"] == "passed"
    result, checks = checked(fgvc, "folder", "--data", tmp_path, "--only", "splits start")
    (entry,) = checks.values()
    assert result.exit_code == 0 and entry["result"] == "not applicable" and str(tmp_path) in entry["reason"]
    result, _ = checked(fgvc, "tensorboard", "--only", "target", "--set", "tracker.tensorboard.folder=logs")
    assert result.exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fgvc-flawed:sound", "--set", "optimizer.rate=0.5"], "optimizer.rate: no such option"),
        (["tensorboard", "--set", "tracker.tensorboard.flder=logs"], "tracker.tensorboard.flder: no such option. Did"),
        (["tensorboard", "--set", "tracker.folder=logs"], "tracker.NAME.folder"),
        (["pim", "--set", "optimizer.lr=1"], "nothing of that kind is checked"),
        (["tensorboard", "--set", "tracker.mlflow.x=1"], "'tracker.mlflow'"),
        (["pim", "--data", "photos"], "no dataset is checked"),
        (["pim", "--only", "predict returns a score per clas?"], "Did you mean 'predict returns a score per class'"),
    ],
)
def test_wrong_arguments_are_refused(fgvc, arguments, message):
    result = fgvc("check-plugin", *arguments)
    assert result.exit_code == 2 and message in result.stderr


def test_distribution_is_checked_with_its_plugin(fgvc):
    result, checks = checked(fgvc, "fgvc_twin", "--quick", "--only", "registers")
    assert result.exit_code == 0
    assert list(checks) == [
        ("plugin fgvc-twin", "registers something"),
        ("plugin fgvc-twin", "registers without importing torch"),
        ("head sound", "registers without importing torch"),
    ]


@pytest.mark.parametrize(
    ("distribution", "title", "reason"),
    [
        ("fgvc-broken", "loads", "No module named 'torch_broken'"),
        ("fgvc-empty", "registers something", "the hooks of fgvc_empty return nothing"),
        ("fgvc-squatter", "uses its own package names", "fgvc-squatter==1.0 ships fgvc_heads, as fgvc-cli does"),
        ("fgvc-heavy", "registers without importing torch", "torch must not be imported"),
        ("fgvc-broad", "family resolvers handle unknown names", "fgvc_broad:resolve raised KeyError"),
        ("fgvc-gone", "family resolvers handle unknown names", "fgvc_broad:nothing to be importable"),
        ("fgvc-ours", "family resolvers handle unknown names", "fgvc-theirs==1.0 has it too"),
        ("fgvc-listener", "run events accept a training run", "TypeError: 'NoneType' object is not subscriptable"),
    ],
)
def test_flaw_of_a_plugin_is_found(fgvc, distribution, title, reason):
    result, checks = checked(fgvc, distribution, "--only", title)
    entry = checks[f"plugin {distribution}", title]
    assert result.exit_code == 1 and entry["result"] == "failed" and reason in entry["reason"]


@pytest.mark.parametrize(
    ("distribution", "title", "status"),
    [
        ("fgvc-twin", "depends on fgvc-cli", "advice"),
        ("fgvc-flawed", "depends on fgvc-cli", "passed"),
        ("fgvc-listener", "commands have help texts", "advice"),
        ("fgvc-sound-listener", "commands have help texts", "passed"),
        ("fgvc-sound-listener", "run events accept a training run", "passed"),
        ("fgvc-twin", "run events accept a training run", "not applicable"),
        ("fgvc-cli", "uses its own package names", "not applicable"),
    ],
)
def test_results_that_do_not_fail(fgvc, distribution, title, status):
    result, checks = checked(fgvc, distribution, "--only", title)
    found = {entry["result"] for (what, _), entry in checks.items() if what.startswith("plugin ")}
    assert result.exit_code == 0 and found == {status}


def test_names_are_distributions_components_and_family_members(flawed):
    registry = get_registry()

    def found(name):
        return [f"{c.kind} {c.reference}" for c in select(name, registry).components]

    assert found("gradcam") == ["explainer fgvc-cli:gradcam"]
    assert found("fgvc-twin:sound") == found("Fgvc_Twin") == ["head fgvc-twin:sound"]
    assert found("sound/1") == found("fgvc-flawed:sound/1") == ["backbone fgvc-flawed:sound/1"]


def test_completion_offers_distributions_and_components(flawed):
    from fgvc_cli.cli.common_options import plugins_and_components

    assert plugins_and_components("fgvc-tw")[0] == ("fgvc-twin", "a distribution")
    assert ("gradcam", get_registry().find("explainer", "gradcam").spec.summary) in plugins_and_components("grad")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gradcamm", r"'gradcamm' is neither .* Did you mean 'gradcam'"),
        ("fgvc-flawd", r"neither .* Did you mean 'fgvc-flawed'"),
        ("fgvc-none:pim", r"'fgvc-none' is neither"),
        ("fgvc-flawed:pim", r"'fgvc-flawed:pim' is neither"),
        ("sound", r"more than one distribution; write fgvc-flawed:sound or fgvc-twin:sound"),
        ("sound/3", r"the family 'sound/<name>' has no such member"),
        ("broken-head", r"fgvc-broken==1\.0 failed to load: ModuleNotFoundError: .* 'torch_broken'"),
    ],
)
def test_other_names_are_refused(flawed, name, message):
    with pytest.raises(UsageError, match=message):
        select(name, get_registry())


def test_disabled_plugin_is_not_checked(flawed, monkeypatch):
    monkeypatch.setenv("FGVC_DISABLE_PLUGINS", "fgvc-twin")
    with pytest.raises(FgvcError, match=r"fgvc-twin==1.0 is disabled \(FGVC_DISABLE_PLUGINS\)"):
        select("fgvc-twin", get_registry())


@pytest.mark.parametrize(
    ("arguments", "failed", "reason"),
    [
        (["no-target"], ["target can be imported and called"], "fgvc_flawed.heads has no 'Nowhere'"),
        (
            ["no-options", "--set", "head.width=3"],
            ["options are documented", "registers without importing torch"],
            "has no 'Nowhere'",
        ),
    ],
)
def test_one_flaw_fails_only_the_checks_of_it(fgvc, arguments, failed, reason):
    result, checks = checked(fgvc, *arguments, "--quick")
    assert result.exit_code == 1
    found = [title for (_, title), entry in checks.items() if entry["result"] in ("failed", "advice")]
    assert found == failed and reason in checks[f"head {arguments[0]}", failed[0]]["reason"]
    assert checks[f"head {arguments[0]}", "predict returns a score per class"]["result"] == "not applicable"


def test_checks_with_one_cause_are_grouped(fgvc):
    result = fgvc("check-plugin", "unbuilt", "--quick", "--debug")
    assert result.exit_code == 1
    (group,) = [part for part in result.stdout.split("\n\n") if part.startswith("failed: ")]
    first, reason, _why, others = group.splitlines()
    assert first == "failed: head unbuilt: predict returns a score per class"
    assert "ZeroDivisionError: division by zero was raised (" in reason and "heads.py:" in reason
    assert ": initialization is reproducible; scores do not depend on the batch; " in others
    assert "\nhead unbuilt: predict returns a score per class\nTraceback" in result.stderr


def test_debug_shows_the_traceback_of_a_plugin(fgvc):
    result = fgvc("check-plugin", "fgvc-broken", "--debug")
    assert "\nplugin fgvc-broken: loads\nTraceback" in result.stderr and "import torch_broken" in result.stderr


def test_interruption_shows_the_results_so_far(fgvc, monkeypatch):
    from fgvc_flawed import heads

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(heads.Sound, "notes", interrupted)
    result = fgvc("check-plugin", "fgvc-flawed:sound", "--quick", "--only", "()")
    assert result.exit_code == 130
    assert "reads() matches" in result.stdout and "notes() returns" not in result.stdout
    assert "interrupted after " in result.stderr
    assert not fgvc("check-plugin", "fgvc-flawed:sound", "--quick", "--json", "--only", "()").stdout
