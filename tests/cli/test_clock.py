"""How long ago something was is told by the database's clock: the one of this box may be wrong."""

from __future__ import annotations

import time

import pytest

from tests.cli.conftest import Run
from tests.cli.rehearsal import open_study
from tuner.store import workers
from tuner.store.database import Database
from tuner.store.workers import Identity


@pytest.fixture
def clock_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a day."""
    right = time.time
    monkeypatch.setattr("time.time", lambda: right() + 86_400.0)


@pytest.mark.usefixtures("clock_ahead")
def test_a_study_is_as_old_as_the_database_says(run: Run, sqlite_url: str) -> None:
    open_study(sqlite_url)
    assert " s ago" in run("study", "list", "--storage", sqlite_url).stdout


@pytest.mark.usefixtures("clock_ahead")
def test_a_worker_is_heard_of_by_the_databases_clock(run: Run, sqlite_url: str) -> None:
    open_study(sqlite_url)
    with Database.open(sqlite_url) as database:
        workers.register(database, Identity.of_this_process("w-1"), devices=["cpu/0"], version="1", lease=600.0)
    assert " s ago" in run("worker", "list", "--storage", sqlite_url).stdout
