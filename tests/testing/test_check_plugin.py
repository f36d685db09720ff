"""`fgvc check-plugin`: what it checks, how it reads, and what it refuses."""

from __future__ import annotations

import json
import re
import sys

import pytest

from fgvc_cli import FgvcError, UsageError
from fgvc_cli.registry import get_registry
from fgvc_cli.specs import KINDS
from fgvc_cli.testing.examine import Examination
from fgvc_cli.testing.select import choose

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
    """Distributions with something wrong with the whole of them."""
    add("fgvc-broken", "import torch_broken\n")
    add("fgvc-empty", EMPTY)
    add("fgvc-broad", FAMILY)
    add("fgvc-listener", LISTENER)
    add(
        "fgvc-sound-listener",
        LISTENER.replace('["val"]["top1"]', '["epoch"]').replace("        pass", "        'Nothing.'"),
    )
    add("fgvc-gone", FAMILY.replace("broad/", "gone/").replace(":resolve", ":nothing"))
    add("fgvc-ours", FAMILY.replace("broad/", "same/"))
    add("fgvc-theirs", FAMILY.replace("broad/", "same/"))
    add("fgvc-heavy", f"import torch\n{HEAD}".replace('"sound"', '"heavy"'))
    add("fgvc-twin", HEAD)
    add("fgvc-squatter", HEAD.replace('"sound"', '"squat"'), record="fgvc_heads/__init__.py,,\nfgvc_squatter.py,,\n")


def checked(fgvc, *arguments):
    """Run it with `--json`; return the exit code, and the results of checks by what is checked and title."""
    result = fgvc("check-plugin", *arguments, "--json")
    document = json.loads(result.stdout)
    return result, {(f"{c['kind']} {c['name']}", c["check"]): c for c in document["checks"]}


def test_a_component_that_keeps_its_contract(fgvc):
    result = fgvc("check-plugin", "fgvc-flawed:sound", "--quick", "--only", "notes")
    assert result.exit_code == 0, result.stderr
    lines = [line.split("  ") for line in result.stdout.splitlines() if line.strip()]
    assert [line[0] for line in lines if line[0].split(" ")[-1] == "sound"] == ["head sound", "explainer sound"]
    assert lines[-1] == ["2 of 2 checks kept."]


def test_one_that_does_not_is_told_in_full_with_what_to_do(fgvc):
    result = fgvc("check-plugin", "no-class", "--only", "scores every")
    assert result.exit_code == 1
    assert result.stderr.startswith("fgvc: error: no-class breaks its contract: head no-class: it scores every class")
    assert "broken: head no-class: it scores every class\n  Expected floating-point scores" in result.stdout
    assert "  Why: predict must return B,K numbers" in result.stdout
    assert result.stdout.endswith("0 of 1 checks kept, 1 broken.\n")


def test_json_is_one_document_with_every_check(fgvc):
    result, checks = checked(fgvc, "no-class", "--only", "every")
    assert result.exit_code == 1
    entry = checks["head no-class", "it scores every class"]
    assert entry["result"] == "broken" and entry["reason"].startswith("Expected floating-point") and entry["about"]
    assert checks["head no-class", "gradients reach every parameter"]["result"] == "kept"


def test_what_a_component_prints_does_not_spoil_the_document(fgvc, monkeypatch):
    from fgvc_flawed import heads

    def talking(self):
        sys.stdout.write("here I am\n")
        return []

    monkeypatch.setattr(heads.Sound, "notes", talking)
    result, _ = checked(fgvc, "fgvc-flawed:sound", "--only", "notes")
    assert result.exit_code == 0 and "here I am" in result.stderr


def test_partners_are_left_out_when_it_is_to_be_quick(flawed):
    registry = get_registry()
    chosen = choose("fgvc-flawed:sound", registry)
    titles = [
        {(planned.kind, planned.check.title) for planned in Examination(chosen, registry, partners=partners).planned()}
        for partners in (True, False)
    ]
    own = {kind: [c.name for c in registry.components(kind) if c.builtin] for kind in KINDS}
    assert titles[0] - titles[1] == {
        *(("head", f"it trains on {backbone}") for backbone in own["backbone"]),
        *(("head", f"it trains by {optimizer}") for optimizer in own["optimizer"]),
        *((kind, f"{explainer} explains it") for explainer in own["explainer"] for kind in ("head", "backbone")),
        *(("backbone", f"{head} trains on it") for head in own["head"]),
        *(("optimizer", f"it trains {head}") for head in own["head"]),
        *(("explainer", f"it explains {name}") for name in (*own["head"], *own["backbone"])),
    }


def test_options_are_the_kinds(fgvc):
    _, checks = checked(fgvc, "fgvc-flawed:sound", "--only", "has a rate", "--set", "optimizer.lr=0.5")
    assert checks["optimizer sound", "it has a rate for each part"]["result"] == "kept"
    refused = fgvc("check-plugin", "fgvc-flawed:sound", "--set", "optimizer.rate=0.5")
    assert refused.exit_code == 2 and "optimizer.rate: no such option" in refused.stderr


def test_a_data_set_is_made_from_what_is_given(fgvc, tmp_path):
    result, checks = checked(fgvc, "folder", "--data", tmp_path, "--only", "it has splits")
    assert result.exit_code == 0
    entry = checks["dataset folder", "it has splits"]
    assert entry["result"] == "not applicable" and str(tmp_path) in entry["reason"]


def test_a_whole_distribution_is_checked_with_its_plugin(fgvc):
    result, checks = checked(fgvc, "fgvc_twin", "--quick", "--only", "it registers")
    assert result.exit_code == 0
    assert list(checks) == [
        ("plugin fgvc-twin", "it registers something"),
        ("plugin fgvc-twin", "it registers without torch"),
        ("head sound", "it registers without torch"),
    ]


@pytest.mark.parametrize(
    ("distribution", "title", "reason"),
    [
        ("fgvc-broken", "it loads", "No module named 'torch_broken'"),
        ("fgvc-empty", "it registers something", "the hooks of fgvc_empty return nothing"),
        ("fgvc-squatter", "its packages are its own", "fgvc-squatter==1.0 ships fgvc_heads, as fgvc-cli does"),
        ("fgvc-heavy", "it registers without torch", "torch must not be imported only to register"),
        ("fgvc-broad", "its families answer", "fgvc_broad:resolve raised KeyError"),
        ("fgvc-gone", "its families answer", "fgvc_broad:nothing to be there; AttributeError: fgvc_broad has no"),
        ("fgvc-listener", "its run events hear a training", "TypeError: 'NoneType' object is not subscriptable was"),
        ("fgvc-ours", "its families answer", "a prefix 'same/' of its own; fgvc-theirs==1.0 has it too"),
    ],
)
def test_what_is_wrong_with_a_plugin_is_told(fgvc, distribution, title, reason):
    result, checks = checked(fgvc, distribution, "--only", title)
    entry = checks[f"plugin {distribution}", title]
    assert result.exit_code == 1 and entry["result"] == "broken" and reason in entry["reason"]


def test_a_missing_dependency_is_advice(fgvc):
    result, checks = checked(fgvc, "fgvc-twin", "--only", "asks for")
    assert result.exit_code == 0
    assert checks["plugin fgvc-twin", "it asks for fgvc-cli"]["result"] == "advice"
    _, checks = checked(fgvc, "fgvc-flawed", "--only", "asks for")
    assert checks["plugin fgvc-flawed", "it asks for fgvc-cli"]["result"] == "kept"


def test_listeners_and_commands_are_looked_at_too(fgvc):
    result, checks = checked(fgvc, "fgvc-listener", "--only", "its commands")
    entry = checks["plugin fgvc-listener", "its commands say what they do"]
    assert result.exit_code == 0 and entry["result"] == "advice" and "mute has none" in entry["reason"]
    _, checks = checked(fgvc, "fgvc-sound-listener", "--only", "its ")
    for title in ("its run events hear a training", "its commands say what they do"):
        assert checks["plugin fgvc-sound-listener", title]["result"] == "kept"
    _, checks = checked(fgvc, "fgvc-twin", "--only", "its run events")
    assert checks["plugin fgvc-twin", "its run events hear a training"]["result"] == "not applicable"


def test_the_built_ins_own_packages_are_theirs(fgvc):
    result, checks = checked(fgvc, "fgvc-cli", "--only", "it loads")
    assert result.exit_code == 0 and {entry["result"] for entry in checks.values()} == {"kept"}
    _, checks = checked(fgvc, "fgvc-cli", "--only", "packages")
    assert {entry["result"] for entry in checks.values()} == {"not applicable"}


def test_names_are_distributions_components_and_members_of_families(flawed):
    registry = get_registry()

    def found(name):
        chosen = choose(name, registry)
        return {(p.distribution for p in chosen.plugins)}, [f"{c.kind} {c.reference}" for c in chosen.components]

    assert found("gradcam")[1] == ["explainer fgvc-cli:gradcam"]
    assert found("fgvc-twin:sound")[1] == found("Fgvc_Twin")[1] == ["head fgvc-twin:sound"]
    assert found("sound/1")[1] == found("fgvc-flawed:sound/1")[1] == ["backbone fgvc-flawed:sound/1"]


def test_the_shell_completes_distributions_and_components(flawed):
    from fgvc_cli.cli.completion import plugins_and_components

    assert plugins_and_components("fgvc-tw")[0] == ("fgvc-twin", "a distribution")
    assert ("gradcam", get_registry().find("explainer", "gradcam").spec.summary) in plugins_and_components("grad")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gradcamm", r"'gradcamm': no distribution .* Did you mean 'gradcam'"),
        ("fgvc-flawd", r"no distribution .* Did you mean 'fgvc-flawed'"),
        ("fgvc-none:pim", r"'fgvc-none': no distribution"),
        ("fgvc-flawed:pim", r"'fgvc-flawed:pim': no distribution with a plugin and no component"),
        ("sound", r"more than one distribution registers that name; write fgvc-flawed:sound or fgvc-twin:sound"),
        ("sound/3", r"the family 'sound/<name>' has no such member"),
    ],
)
def test_other_names_are_refused(flawed, name, message):
    with pytest.raises(UsageError, match=message):
        choose(name, get_registry())


def test_a_disabled_plugin_is_not_checked(flawed, monkeypatch):
    monkeypatch.setenv("FGVC_DISABLE_PLUGINS", "fgvc-twin")
    with pytest.raises(FgvcError, match=r"fgvc-twin==1.0 is disabled \(FGVC_DISABLE_PLUGINS\)"):
        choose("fgvc-twin", get_registry())


@pytest.mark.parametrize(
    ("name", "broken", "others"),
    [
        ("no-target", "fgvc_flawed.heads has no 'Nowhere'", "its target is not there"),
        ("positional", "its signature is (info, number, options)", "its target does not take what it is given"),
    ],
)
def test_what_stands_on_a_target_that_is_not_there_does_not_apply(fgvc, name, broken, others):
    result, checks = checked(fgvc, name, "--quick")
    assert result.exit_code == 1
    found = [title for (_, title), entry in checks.items() if entry["result"] in ("broken", "advice")]
    assert found == ["its target is there"] and broken in checks[f"head {name}", found[0]]["reason"]
    assert checks[f"head {name}", "it scores every class"]["reason"] == others


def test_options_that_cannot_be_imported_are_one_fault(fgvc):
    result, checks = checked(fgvc, "no-options", "--quick", "--set", "head.width=3")
    assert result.exit_code == 1
    broken = [title for (_, title), entry in checks.items() if entry["result"] == "broken"]
    assert broken == ["its options are documented", "it registers without torch"]
    assert "has no 'Nowhere'" in checks["head no-options", "its options are documented"]["reason"]


def test_checks_that_fail_for_one_cause_are_told_together(fgvc):
    result = fgvc("check-plugin", "unbuilt", "--quick")
    assert result.exit_code == 1
    (told,) = [part for part in result.stdout.split("\n\n") if part.startswith("broken: ")]
    first, reason, why, others = told.splitlines()
    assert first == "broken: head unbuilt: it scores every class"
    assert "ZeroDivisionError: division by zero was raised (" in reason and "heads.py:" in reason
    assert why.startswith("  Why: predict must return B,K numbers")
    assert re.match(
        r"  The same for \d\d more checks: the same seed makes the same head; an image is scored alone; ", others
    )


def test_debug_shows_where_a_component_raised_and_where_a_plugin_failed(fgvc):
    result = fgvc("check-plugin", "unbuilt", "--quick", "--debug")
    assert result.stderr.count("ZeroDivisionError: division by zero") >= 1
    assert "\nhead unbuilt: it scores every class\nTraceback" in result.stderr
    result = fgvc("check-plugin", "fgvc-broken", "--debug")
    assert "\nplugin fgvc-broken: it loads\nTraceback" in result.stderr
    assert "import torch_broken" in result.stderr


def test_who_waits_no_longer_sees_what_was_found(fgvc, monkeypatch):
    from fgvc_flawed import heads

    def interrupted(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(heads.Sound, "notes", interrupted)
    result = fgvc("check-plugin", "fgvc-flawed:sound", "--quick")
    assert result.exit_code == 130
    assert "it reads what it says" in result.stdout and "its notes are lines" not in result.stdout
    assert re.fullmatch(r"interrupted after \d+ of \d+ checks\n", result.stderr)
    assert not fgvc("check-plugin", "fgvc-flawed:sound", "--quick", "--json").stdout


def test_options_of_a_tracker_are_written_as_everywhere(fgvc):
    result, checks = checked(fgvc, "tensorboard", "--only", "target", "--set", "tracker.tensorboard.folder=logs")
    assert result.exit_code == 0 and checks["tracker tensorboard", "its target is there"]["result"] == "kept"
    result = fgvc("check-plugin", "tensorboard", "--set", "tracker.tensorboard.flder=logs")
    assert result.exit_code == 2 and "tracker.tensorboard.flder: no such option. Did you mean" in result.stderr
    result = fgvc("check-plugin", "tensorboard", "--set", "tracker.folder=logs")
    assert result.exit_code == 2 and "as in tracker.NAME.folder" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pim", "--set", "optimizer.lr=1"], "--set optimizer.*: nothing of the kind is checked here"),
        (["tensorboard", "--set", "tracker.mlflow.x=1"], "--set tracker.mlflow.*: nothing of the kind is checked"),
        (["pim", "--data", "photos"], "--data photos: no dataset is checked here"),
    ],
)
def test_what_would_be_ignored_is_refused(fgvc, arguments, said):
    result = fgvc("check-plugin", *arguments)
    assert result.exit_code == 2 and said in result.stderr


def test_a_name_that_a_broken_plugin_may_have_meant_names_it(flawed):
    with pytest.raises(UsageError, match=r"fgvc-broken==1\.0 failed to load: ModuleNotFoundError: .* 'torch_broken'"):
        choose("broken-head", get_registry())


def test_a_check_that_is_not_there_is_refused(fgvc):
    result = fgvc("check-plugin", "pim", "--only", "it scores every clas?")
    assert result.exit_code == 2 and "Did you mean 'it scores every class'" in result.stderr
