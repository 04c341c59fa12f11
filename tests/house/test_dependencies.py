"""What a user installs is enough: a study trains with nothing but the declared dependencies."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.little import STUDY, write_model, write_rows
from tests.house.bare import write_site

pytestmark = pytest.mark.slow


def test_a_study_trains_without_the_extras(tmp_path: Path) -> None:
    """All the way to the report."""
    write_model(tmp_path / "model")
    write_rows(tmp_path / "rows.csv")
    (tmp_path / "little.yaml").write_text(STUDY, encoding="utf-8")
    site = tmp_path / "site"
    site.mkdir()
    assert {"pytest", "scikit-learn", "psycopg"} <= write_site(site)
    environment = {**os.environ, "PYTHONPATH": str(site)}

    def tuner(*words: str) -> str:
        command = [sys.executable, "-m", "tuner", *words]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    look = (
        "import importlib.metadata as m, importlib.util as u; print(u.find_spec('sklearn')); m.version('scikit-learn')"
    )
    hidden = subprocess.run([sys.executable, "-c", look], env=environment, capture_output=True, text=True, check=False)
    assert hidden.stdout == "None\n"
    assert "PackageNotFoundError" in hidden.stderr
    tuner("study", "create", "little.yaml")
    tuner("worker", "start", "--study", "little", "--until-done", "--devices", "cpu")
    tuner("study", "report", "little")
