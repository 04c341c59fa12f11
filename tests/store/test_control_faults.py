"""What people ask of studies, at the wrong moment: connections that break, budgets that are used, studies that pause themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy.engine import Connection

from tests.store.toy import holder, toy_study
from tuner.search.budget import why_no_new_trial
from tuner.search.driver import StudyDriver
from tuner.store import control, studies
from tuner.store.database import Database
from tuner.store.records import Outcome

ANNA = "anna@box"


@pytest.fixture
def db(sqlite_url: str) -> Iterator[Database]:
    with Database.open(sqlite_url, create=True) as database:
        yield database


def enqueue(db: Database) -> int:
    return control.enqueue(db, "toy", strategy="lora", values={}, who=ANNA, quota=why_no_new_trial)


def fail(driver: StudyDriver) -> int:
    lease = driver.claim(holder())
    assert lease is not None
    driver.fail(lease, outcome=Outcome.ERRORED, reason="boom", seconds=1.0, log_tail="")
    return lease.number


def test_a_trial_is_enqueued_once_where_the_acknowledgement_was_lost(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_study(db, budget={"trials": 2})
    write = db.write

    def _twice(function: Callable[[Connection], object]) -> object:
        write(function)
        return write(function)

    monkeypatch.setattr(db, "write", _twice)
    assert [enqueue(db), enqueue(db)] == [0, 1]
    assert studies.find_study(db, "toy").used.trials == 2
