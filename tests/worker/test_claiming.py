"""Which studies a worker serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.toy import estrange, toy_study
from tuner.errors import ConfigurationError
from tuner.store.database import Database
from tuner.worker.events import Event, Notice
from tuner.worker.options import WorkerOptions
from tuner.worker.supervisor import Supervisor


class _Heard:
    def __init__(self) -> None:
        self.events: list[Event] = []

    def show(self, event: Event) -> None:
        self.events.append(event)

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
        told = [event.text for event in heard.events if isinstance(event, Notice)]
        assert len(told) == 1
        assert told[0].startswith('study "strange" is not served: study "strange" cannot be read - it was made by')


def test_a_worker_for_a_study_that_cannot_be_read_ends(sqlite_url: str, tmp_path: Path) -> None:
    with Database.open(sqlite_url, create=True) as db:
        toy_study(db, "strange")
        estrange(db, "strange")
        options = WorkerOptions(storage=sqlite_url, files=tmp_path, devices="cpu", studies=("strange",))
        claiming = Supervisor(db, options=options, display=_Heard(), places=["cpu/0"])._claiming
        with pytest.raises(ConfigurationError, match="cannot be read"):
            claiming._driver("strange")
