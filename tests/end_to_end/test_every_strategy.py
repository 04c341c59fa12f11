"""One study over all that the registry has, three combinations and a sequence, from the file to the report."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.source_tree import ROOT
from tests.tiny import write_study
from tuner.strategies import STRATEGIES
from tuner.study.names import COMBINE, THEN

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # minutes, where the machine has other work

COMPETING = (*STRATEGIES, "lora+bitfit", "adapter+prefix", "adapter+prefix+lora", "head>full")


def tuner(*words: str, folder: Path) -> str:
    """What a command printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tuner", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study, each recipe tried once."""
    folder = tmp_path_factory.mktemp("every")
    study = write_study(
        folder,
        "every",
        strategies=list(COMPETING),
        training={"epochs": 2, "max_length": 32},
        budget={"trials": len(COMPETING)},
        confirm={"finalists": 2, "seeds": 2},
        search={"pruner": "none"},
    )
    for words in (("study", "check", study.name), ("study", "create", study.name)):
        tuner(*words, folder=folder)
    tuner("worker", "start", "--study", "every", "--until-done", folder=folder)
    tuner("study", "report", "every", folder=folder)
    return folder


def test_every_strategy_was_trained_to_its_end(folder: Path) -> None:
    trials: list[dict[str, Any]] = json.loads(tuner("study", "trials", "every", "--json", folder=folder))["trials"]
    assert sorted(trial["strategy"] for trial in trials) == sorted(COMPETING)
    assert {trial["strategy"]: trial["state"] for trial in trials} == dict.fromkeys(COMPETING, "complete")


def test_every_strategy_is_in_the_report(folder: Path) -> None:
    page = (folder / "every.html").read_text(encoding="utf-8").replace("&gt;", ">")
    assert [name for name in COMPETING if not re.search(rf">\s*{re.escape(name)}\s*<", page)] == []


def test_the_study_file_for_everybody_has_them_too() -> None:
    named = yaml.safe_load((ROOT / "studies" / "every-strategy.yaml").read_text(encoding="utf-8"))["strategies"]
    assert [name for name in STRATEGIES if name not in named] == []
    assert sum(COMBINE in name for name in named) >= 3
    assert sum(THEN in name for name in named) >= 1
