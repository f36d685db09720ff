"""What is said of runs whose study was edited after they had begun."""

from __future__ import annotations

from fgvc_cli.experiments.folder import new_study
from fgvc_cli.experiments.planning import configurations
from fgvc_cli.experiments.sweep import begun_otherwise
from fgvc_cli.registry import get_registry

CELL = """
[[cells]]
name = "one"
backbone = "timm/test_resnet"
head = "linear"
optimizer = { name = "sam", base = "sgd", rho = 0.1 }
"""


def test_a_run_keeps_the_settings_that_it_was_begun_with_and_that_is_said(tiny, tmp_path):
    study = tiny(CELL, seeds=2)
    folder = new_study(study, tmp_path / "study", "demo")
    configs = configurations(study, get_registry())
    folder.run("one-seed1").path.mkdir(parents=True)
    folder.run("one-seed1").config_file.write_text(configs[0].as_toml())
    assert begun_otherwise(study, configs, folder) == []

    edited = tiny(CELL.replace("0.1", "0.2").replace('"linear"', '{ name = "linear", dropout = 0.5 }'), seeds=2)
    (line,) = begun_otherwise(edited, configurations(edited, get_registry()), folder)
    assert line.startswith("one-seed1: begun with head.dropout 0.0 (the study has 0.5), ")
    assert "optimizer.rho 0.1 (the study has 0.2), and kept so. A cell of another name" in line
