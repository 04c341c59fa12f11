"""A box whose files are others than those of a study's first trial: its runs are given back before an epoch, with a reason."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.toy import LEASE, holder, toy_study
from tuner.errors import ConfigurationError
from tuner.search.driver import StudyDriver
from tuner.store import leases
from tuner.store.database import Database
from tuner.worker import protocol
from tuner.worker.dealing import Desk, deal
from tuner.worker.devices import SlotPlace
from tuner.worker.events import Event
from tuner.worker.health import Health
from tuner.worker.outage import Outage
from tuner.worker.room import Room
from tuner.worker.shelf import Shelf
from tuner.worker.slot import Job, Slot

FIRST = {"data": "a" * 64, "weights": "b" * 64, "teacher": "c" * 64}


def show(_: Event) -> None:
    pass


class Box:
    """A worker's desk and a slot with a run; what it would tell its runner can be read."""

    def __init__(self, db: Database, folder: Path, *, allow_skew: bool) -> None:
        self.refused: list[ConfigurationError] = []
        self._ends = os.pipe()
        self._runner = protocol.LineReader(self._ends[0])
        driver = StudyDriver(db, name="toy")
        first, lease = driver.claim(holder("w1")), driver.claim(holder("w2"))
        assert first is not None
        assert lease is not None
        leases.store_facts(db, first, FIRST)
        self.desk = Desk(
            db=db,
            show=show,
            lease=LEASE,
            outage=Outage(show=show, budget=60.0),
            health=Health(module="nothing", show=show, tell=lambda **_: None),
            room=Room(files=folder, show=show),
            refuse=None if allow_skew else lambda _, error: self.refused.append(error),
        )
        self.slot = Slot(place=SlotPlace(name="cpu/0", device="cpu", threads=1), log=folder / "log", cache=folder)
        self.slot._to_runner = self._ends[1]
        shelf = Shelf(str(folder), files=folder, worker="w2", show=show)
        self.job = Job(lease=lease, driver=driver, claimed_at=time.monotonic(), log_start=0, place="", shelf=shelf)
        self.slot.job = self.job

    def close(self) -> None:
        for descriptor in self._ends:
            os.close(descriptor)

    def start(self, **facts: str) -> None:
        """The runner tells of its run."""
        deal(self.desk, self.slot, protocol.Started(key=self.job.key, facts=dict(facts)), is_draining=False)

    def told(self) -> list[protocol.Message]:
        return list(self._runner.read())


@pytest.fixture
def box(sqlite_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Box]:
    with Database.open(sqlite_url, create=True) as db:
        toy_study(db)
        found = Box(db, tmp_path, allow_skew=getattr(request, "param", False))
        yield found
        found.close()


@pytest.mark.parametrize(
    ("fact", "words"),
    [
        (
            "data",
            "the rows of train.csv or of its validation are others here than those of trial 0 - digest aaaaaaaaaaaa there, ",
        ),
        (
            "weights",
            "the pretrained weights of model are others here than those of trial 0 - digest bbbbbbbbbbbb there, ",
        ),
        (
            "teacher",
            "the weights of the teacher, or the order of its labels, are others here than those of trial 0 - digest cccc",
        ),
    ],
)
def test_a_run_that_learns_from_other_files_is_given_back(box: Box, fact: str, words: str) -> None:
    box.start(**{**FIRST, fact: "d" * 64})
    assert len(box.refused) == 1
    assert str(box.refused[0]).startswith(words)
    assert "dddddddddddd here; put the old file" in box.job.release_reason
    assert box.told() == [protocol.Interrupt(key=box.job.key, verdict="release")]


@pytest.mark.parametrize("box", [True], indirect=True)
def test_who_allows_skew_trains_nevertheless(box: Box) -> None:
    box.start(data="d", weights="d", teacher="d")
    assert box.job.stop_asked_at is None


@pytest.mark.parametrize("facts", [FIRST, {}, {"data": FIRST["data"]}, {**FIRST, "teacher": ""}])
def test_what_is_the_same_or_unknown_trains(box: Box, facts: dict[str, str]) -> None:
    box.start(**facts)
    assert not box.refused
    assert box.job.stop_asked_at is None
