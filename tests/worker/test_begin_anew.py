"""A worker that a restored database does not know, where its first word to that database is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.store.toy import LEASE, holder, toy_study
from tuner.errors import UnavailableError
from tuner.search.driver import StudyDriver
from tuner.store import workers
from tuner.store.database import Database
from tuner.store.leases import Beats
from tuner.worker.events import Event
from tuner.worker.heartbeat import Heartbeat
from tuner.worker.options import WorkerOptions
from tuner.worker.supervisor import Supervisor


class _Silent:
    def show(self, event: Event) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def db(sqlite_url: str) -> Iterator[Database]:
    with Database.open(sqlite_url, create=True) as database:
        yield database


@pytest.mark.parametrize("took_effect", [False, True])
def test_what_was_held_under_the_old_name_is_free_although_a_try_failed(
    db: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, took_effect: bool
) -> None:
    toy_study(db)
    options = WorkerOptions(storage="sqlite:///unused.db", files=tmp_path, devices="cpu")
    supervisor = Supervisor(db, options=options, display=_Silent(), places=["cpu/0"])
    first = supervisor.identity
    workers.register(db, first, devices=["cpu/0"], version="1", lease=LEASE)
    driver = StudyDriver(db, name="toy")
    lease = driver.claim(holder(first.worker))
    assert lease is not None
    register, tries = workers.register, [0]

    def _broken_once(*arguments: Any, **options: Any) -> None:
        tries[0] += 1
        if tries[0] > 1 or took_effect:
            register(*arguments, **options)
        if tries[0] == 1:
            raise UnavailableError("the connection broke")

    monkeypatch.setattr(workers, "register", _broken_once)
    heartbeat = Heartbeat(
        db, worker=first.worker, beats=Beats(), interval=60.0, lease=LEASE, held=lambda: ("running", [])
    )
    with pytest.raises(UnavailableError):
        supervisor._begin_anew(heartbeat)
    supervisor._begin_anew(heartbeat)
    heartbeat.close()
    assert [worker.worker for worker in workers.list_workers(db)] == [supervisor.identity.worker]
    assert supervisor.identity.worker != first.worker
    heir = driver.claim(holder("w2"))
    assert heir is not None
    assert (heir.number, heir.attempt) == (lease.number, 2)
