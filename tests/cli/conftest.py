"""What the tests of the command line share: a finished study, and the commands in this process."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.cli.little import STUDY, write_model, write_rows
from tests.cli.rehearsal import Ends, open_study, play
from tuner.cli.app import app

Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """``run("study", "list")``: a command in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def _run(*words: str, answer: str | None = None, env: Mapping[str, str] | None = None) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words], input=answer, env=env, prog_name="tuner")

    return _run


@pytest.fixture(scope="session")
def _finished_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("finished") / "tuner.db"
    open_study(f"sqlite:///{file}", trials=8)
    play(f"sqlite:///{file}", ends=Ends(errored=frozenset({4}), infeasible=frozenset({5})))
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file


@pytest.fixture
def finished(_finished_file: Path, tmp_path: Path) -> str:
    """The URL of a database of one's own with the finished study ``played``: 8 trials, some of which ended badly."""
    shutil.copy(_finished_file, tmp_path / "tuner.db")
    return f"sqlite:///{tmp_path / 'tuner.db'}"


@pytest.fixture(scope="session")
def _model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("little") / "model"
    write_model(folder)
    return folder


@pytest.fixture
def study_file(_model: Path, tmp_path: Path) -> Path:
    """A study that can be trained in a moment, with its model and its rows beside it."""
    (tmp_path / "model").symlink_to(_model)
    write_rows(tmp_path / "rows.csv")
    file = tmp_path / "little.yaml"
    file.write_text(STUDY, encoding="utf-8")
    return file
