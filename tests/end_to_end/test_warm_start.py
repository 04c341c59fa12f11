"""A second study on similar rows starts with what won in the first: the command line, real trainings, one database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tiny import write_rows, write_study

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent


def run(folder: Path, *words: str) -> str:
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["tuner", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout


def show(folder: Path, name: str) -> dict[str, Any]:
    return dict(json.loads(run(folder, "study", "show", name, "--json")))


def test_a_second_study_starts_with_the_winner_of_the_first(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"strategies": ["head", "full"], "training": {"epochs": 2, "max_length": 32}}
    asked["space"] = {"full": {"learning_rate": {"low": 2e-3, "high": 2e-2, "log": True}}}
    asked["confirm"] = {"finalists": 1, "seeds": 1}
    write_study(tmp_path, "first", **asked, budget={"trials": 4})
    assert "learnt" not in run(tmp_path, "study", "create", "first.yaml")
    run(tmp_path, "worker", "start", "--study", "first", "--until-done", "--devices", "cpu")
    winner = show(tmp_path, "first")["best"]

    write_rows(tmp_path / "others.csv", count=200, seed=3)
    data = {"train": "others.csv", "test": "test.csv", "validation": 0.25}
    write_study(tmp_path, "second", **asked, budget={"trials": 4}, data=data)
    said = run(tmp_path, "study", "create", "second.yaml")
    assert "learnt 1 recipe from past studies, tried first: first (1)\n" in said
    assert f"learnt      {winner['strategy']} of first/{winner['number']}" in run(tmp_path, "study", "show", "second")
    run(tmp_path, "worker", "start", "--study", "second", "--until-done", "--devices", "cpu", "--max-trials", "1")

    trial = json.loads(run(tmp_path, "trial", "show", "second", "0", "--json"))["trial"]
    assert trial["state"] == "complete"
    assert (trial["strategy"], trial["learnt_from"]) == (winner["strategy"], f"first/{winner['number']}")
    assert trial["params"] == pytest.approx(winner["params"])
    assert f"learnt from first/{winner['number']})" in run(tmp_path, "trial", "show", "second", "0")
    assert run(tmp_path, "study", "create", "second.yaml").startswith("study second is already there")
