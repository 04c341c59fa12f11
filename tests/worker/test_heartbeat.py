"""Signs of life, also where the database refuses one of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.toy import LEASE
from tuner.errors import ConfigurationError
from tuner.store import workers
from tuner.store.database import Database
from tuner.store.leases import Beats
from tuner.store.workers import Identity, Pulse
from tuner.worker.heartbeat import Heartbeat


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with Database.open(f"sqlite:///{tmp_path / 'tuner.db'}", create=True) as database:
        yield database


def test_a_refusal_is_not_the_last_sign_of_life(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that hands its work to another one takes no writes for a moment; a worker that trains on must be alive after it."""
    identity = Identity.of_this_process("w1")
    workers.register(db, identity, devices=["cpu/0"], version="1", lease=LEASE)
    beats, tries, beat = Beats(), [0], workers.beat

    def _refused_once(db: Database, worker: str, *, number: int, state: str, lease: float) -> Pulse:
        tries[0] += 1
        if tries[0] == 2:
            raise ConfigurationError("cannot execute UPDATE in a read-only transaction")
        return beat(db, worker, number=number, state=state, lease=lease)

    monkeypatch.setattr(workers, "beat", _refused_once)
    heartbeat = Heartbeat(db, worker="w1", beats=beats, interval=0.02, lease=LEASE, held=lambda: ("running", []))
    deadline = time.monotonic() + 20.0
    while beats.number < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    heartbeat.close()
    assert beats.number >= 3
    assert not heartbeat.take_news().is_unknown
