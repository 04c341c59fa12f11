"""Which studies a worker serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.toy import estrange, holder, toy_study, train
from tuner.errors import ConfigurationError
from tuner.store.database import Database
from tuner.store.records import Outcome
from tuner.worker.devices import SlotPlace
from tuner.worker.events import Event, Notice
from tuner.worker.options import WorkerOptions
from tuner.worker.slot import Slot
from tuner.worker.supervisor import Supervisor


class _Heard:
    def __init__(self) -> None:
        self.notices: list[str] = []

    def show(self, event: Event) -> None:
        if isinstance(event, Notice):
            self.notices.append(event.text)

    def close(self) -> None:
        pass


def test_a_study_that_cannot_be_read_is_told_of_once_and_the_others_are_served(sqlite_url: str, tmp_path: Path) -> None:
    with Database.open(sqlite_url, create=True) as db:
        toy_study(db, "strange")
        toy_study(db, "toy")
        estrange(db, "strange")
        heard = _Heard()
        options = WorkerOptions(storage=sqlite_url, files=tmp_path, devices="cpu")
        claiming = Supervisor(db, options=options, display=heard, places=["cpu/0"])._claiming
        served = [name for _ in range(2) for name in claiming.open_studies() if claiming._driver(name) is not None]
        assert served == ["toy", "toy"]
        told = heard.notices
        assert len(told) == 1
        assert told[0].startswith('study "strange" is not served: study "strange" cannot be read - it was made by')


def served_by(db: Database, folder: Path, *names: str, studies: tuple[str, ...] = ()) -> tuple[Supervisor, list[str]]:
    """A worker that serves studies already, and what it tells of them from now on."""
    heard = _Heard()
    options = WorkerOptions(storage=db.safe_url, files=folder, devices="cpu", studies=studies)
    supervisor = Supervisor(db, options=options, display=heard, places=["cpu/0"])
    for name in names:
        toy_study(db, name)
        assert supervisor._claiming._driver(name) is not None
    return supervisor, heard.notices


def test_a_served_study_that_a_newer_code_changed_is_served_no_more_and_the_others_are(
    sqlite_url: str, tmp_path: Path
) -> None:
    with Database.open(sqlite_url, create=True) as db:
        supervisor, told = served_by(db, tmp_path, "strange", "toy")
        busy = supervisor._claiming.drivers["strange"].claim(holder())
        assert busy is not None
        driver = supervisor._claiming.drivers["strange"]
        estrange(db, "strange")
        for _ in range(2):
            supervisor._showing.hurry()
            supervisor._showing.show_studies()
        assert list(supervisor._claiming.drivers) == supervisor._claiming.open_studies() == ["toy"]
        assert len(told) == 1
        assert told[0].startswith('study "strange" is not served: study "strange" cannot be read - it was made by')
        assert not supervisor._is_over()
        assert train(driver, busy)[0] is Outcome.COMPLETE  # what runs goes on


def test_a_budget_that_a_newer_code_wrote_is_no_reason_to_die(sqlite_url: str, tmp_path: Path) -> None:
    with Database.open(sqlite_url, create=True) as db:
        supervisor, told = served_by(db, tmp_path, "strange")
        driver = supervisor._claiming.drivers["strange"]
        busy = driver.claim(holder())
        assert busy is not None
        estrange(db, "strange", section="budget")
        slot = Slot(place=SlotPlace(name="cpu/0", device="cpu", threads=1), log=tmp_path / "log", cache=tmp_path)
        for _ in range(2):
            assert not supervisor._claiming._claim_for(slot)
        assert len(told) == 1
        assert ": budget.invented: Extra inputs are not permitted; install that tuner here" in told[0]
        assert train(driver, busy)[0] is Outcome.COMPLETE


def test_a_worker_ends_when_the_last_study_that_it_is_for_cannot_be_read(sqlite_url: str, tmp_path: Path) -> None:
    with Database.open(sqlite_url, create=True) as db:
        supervisor, told = served_by(db, tmp_path, "strange", "toy", studies=("strange", "toy"))
        for count, name in enumerate(("strange", "toy"), start=1):
            assert not supervisor._is_over()
            estrange(db, name)
            supervisor._showing.hurry()
            supervisor._showing.show_studies()
            assert len(told) == count
        assert supervisor._is_over()
        with pytest.raises(ConfigurationError, match='study "toy" cannot be read'):
            supervisor.run()
