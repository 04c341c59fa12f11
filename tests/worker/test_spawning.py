"""A box on which no process can be made for a while: nothing leaks, nobody blames the database, and no run suffers."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.store.toy import LEASE, holder, toy_study
from tuner.search.driver import StudyDriver
from tuner.store import workers
from tuner.store.database import Database
from tuner.store.leases import Beats
from tuner.worker.devices import SlotPlace
from tuner.worker.events import Event, Notice, RunEnded
from tuner.worker.heartbeat import Heartbeat
from tuner.worker.options import WorkerOptions
from tuner.worker.slot import Job, Slot
from tuner.worker.supervisor import Supervisor


class _Heard:
    def __init__(self) -> None:
        self.notices: list[str] = []
        self.ends: list[RunEnded] = []

    def show(self, event: Event) -> None:
        if isinstance(event, Notice):
            self.notices.append(f"{event.level}: {event.text}")
        elif isinstance(event, RunEnded):
            self.ends.append(event)

    def close(self) -> None:
        pass


def slot_in(folder: Path) -> Slot:
    return Slot(
        place=SlotPlace(name="cpu/0", device="cpu", threads=1),
        log=folder / "logs" / "runner.log",
        cache=folder / "cache",
        runner="tests.worker.odd_training",
    )


def no_log(slot: Slot, _: pytest.MonkeyPatch) -> Callable[[], None]:
    slot.log.mkdir(parents=True)
    return slot.log.rmdir


def no_program(_: Slot, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    program = sys.executable
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    return lambda: monkeypatch.setattr(sys, "executable", program)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def open_files() -> set[int]:
    return {number for number in range(1024) if _is_open(number)}


@pytest.mark.parametrize("broken", [no_log, no_program])
def test_a_process_that_cannot_be_made_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: Callable[[Slot, pytest.MonkeyPatch], Callable[[], None]]
) -> None:
    slot = slot_in(tmp_path)
    mend = broken(slot, monkeypatch)
    before = open_files()
    for pause in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0):
        began = time.monotonic()
        with pytest.raises(OSError, match=r"Is a directory|No such file"):
            slot.start()
        assert began + pause <= slot.start_after <= time.monotonic() + pause
    assert open_files() == before
    assert slot.cannot_start.startswith("the runner of cpu/0 cannot be started: ") and not slot.is_alive
    mend()
    slot.start()
    slot.kill()
    slot.reap()
    assert (slot.cannot_start, slot.failed_spawns, open_files()) == ("", 0, before)


def test_a_runner_that_cannot_be_started_is_no_outage_and_is_tried_again_later(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Database.open(sqlite_url, create=True) as db:
        heard, slot = _Heard(), slot_in(tmp_path)
        mend = no_log(slot, monkeypatch)
        options = WorkerOptions(storage=sqlite_url, files=tmp_path, devices="cpu")
        supervisor = Supervisor(db, options=options, display=heard, places=["cpu/0"])
        supervisor.slots = [slot]
        workers.register(db, supervisor.identity, devices=["cpu/0"], version="1", lease=LEASE)
        heartbeat = Heartbeat(
            db,
            worker=supervisor.identity.worker,
            beats=Beats(),
            interval=60.0,
            lease=LEASE,
            held=lambda: ("running", []),
        )
        try:
            for failures in (1, 2):
                slot.start_after = 0.0
                supervisor._round(heartbeat)
                assert slot.failed_spawns == failures and slot.start_after > 0.0
            slot.start_after = time.monotonic() + 3600.0
            supervisor._round(heartbeat)
            assert slot.failed_spawns == 2, "not before its time"
            assert not supervisor._outage.is_on
            assert heard.notices == ["error: the runner of cpu/0 cannot be started: Is a directory; it is tried again"]
            mend()
            slot.start_after = 0.0
            supervisor._round(heartbeat)
            assert slot.is_alive
        finally:
            heartbeat.close()
            supervisor._leave()


def test_a_run_that_was_to_begin_in_a_fresh_runner_is_given_back(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Database.open(sqlite_url, create=True) as db:
        toy_study(db)
        heard, slot = _Heard(), slot_in(tmp_path)
        no_log(slot, monkeypatch)
        options = WorkerOptions(storage=sqlite_url, files=tmp_path, devices="cpu")
        supervisor = Supervisor(db, options=options, display=heard, places=["cpu/0"])
        driver = StudyDriver(db, name="toy")
        lease = driver.claim(holder())
        assert lease is not None
        slot.renew()
        place = str(tmp_path / "run")
        slot.job = Job(
            lease=lease, driver=driver, claimed_at=time.monotonic(), log_start=0, place=place, shelf=supervisor._shelf
        )
        supervisor._deal_with(slot)
        told = [(end.outcome.value, end.reason) for end in heard.ends]
        assert told == [("preempted", "the runner of cpu/0 cannot be started: Is a directory")]
        heir = driver.claim(holder("w2"))
        assert heir is not None and heir.number == lease.number
