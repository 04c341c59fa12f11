"""``tuner demo``: from the question to the report, killed on the way, and run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.cli.command import ROOT, tuner
from tests.cli.little import STUDY
from tuner.cli import demo
from tuner.errors import UnavailableError


def test_the_shipped_study_is_found() -> None:
    assert demo.shipped_study("quickstart.yaml").read_text(encoding="utf-8").count("\nname: ") == 1
    with pytest.raises(UnavailableError, match=r"has no nothing\.yaml"):
        demo.shipped_study("nothing.yaml")


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = tuner("demo", "--folder", "file/demo", cwd=tmp_path)
    assert done.returncode == 69
    assert done.stderr.startswith("error: cannot use the folder file/demo")


@pytest.mark.slow
def test_a_killed_demo_goes_on_where_it_was(study_file: Path, tmp_path: Path) -> None:
    # The demo's own study takes minutes; an edited study file in its folder is kept, so this one takes its place.
    folder = tmp_path / "tuner-demo"
    folder.mkdir()
    text = STUDY.replace("model: model", f"model: {tmp_path / 'model'}").replace("rows.csv", str(tmp_path / "rows.csv"))
    (folder / "quickstart.yaml").write_text(text.replace("trials: 2", "trials: 6"), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "tuner", "demo", "--devices", "cpu"]
    first = subprocess.Popen(words, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    assert first.stderr is not None
    for line in first.stderr:
        if "trial 1" in line:
            break
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=30)
    begin = time.monotonic()
    second = tuner("demo", "--devices", "cpu", cwd=tmp_path)
    assert second.returncode == 0, second.stderr
    assert time.monotonic() - begin < 85, "the lease of the killed worker must not be waited for"
    assert "going on after" in second.stderr
    report = folder / "report.html"
    assert f"report: {report.absolute()}" in second.stdout
    assert report.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert second.stderr.count("tuner ") >= 4
    storage = "sqlite:///tuner-demo/tuner.db"
    shown = json.loads(tuner("study", "show", "little", "--json", "--storage", storage, cwd=tmp_path).stdout)
    assert shown["state"] == "finished"
    assert sum(shown["trials"].values()) == 6
    third = tuner("demo", cwd=tmp_path)
    assert third.returncode == 0
    assert "is done already" in third.stderr
    assert "to start over: rm -r tuner-demo && tuner demo" in third.stderr
    assert third.stdout == second.stdout
