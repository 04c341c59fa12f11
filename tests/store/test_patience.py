"""A server that takes what it is sent and never answers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import psutil
import pytest
import sqlalchemy

from tuner.errors import UnavailableError
from tuner.store import engines
from tuner.store.database import Database
from tuner.store.location import parse_url

pytestmark = pytest.mark.slow

PATIENCE = 5.0  # a busy machine's server has been silent for more than a second


@pytest.fixture
def database(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    monkeypatch.setattr(engines, "PATIENCE_SECONDS", PATIENCE)
    with Database(parse_url(postgres_url)) as opened:
        yield opened


def backend(tx: sqlalchemy.Connection) -> int:
    return int(tx.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())


def test_a_backend_that_was_stopped_is_left_for_another(database: Database) -> None:
    stopped = database.read(backend)
    os.kill(stopped, signal.SIGSTOP)
    try:
        begun = time.monotonic()
        assert database.read(backend) != stopped
        assert time.monotonic() - begun >= PATIENCE
    finally:
        os.kill(stopped, signal.SIGCONT)


def test_a_server_that_was_stopped_is_out_of_reach(database: Database) -> None:
    """The one who opens connections is stopped, too: what is tried again waits for its answer in vain."""
    server = psutil.Process(database.read(backend))
    stopped = (server.pid, server.ppid())
    for process in stopped:
        os.kill(process, signal.SIGSTOP)
    try:
        with pytest.raises(UnavailableError):
            database.read(backend)
    finally:
        for process in stopped:
            os.kill(process, signal.SIGCONT)
