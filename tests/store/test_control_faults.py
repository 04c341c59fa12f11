"""What people ask of studies, at the wrong moment: connections that break, budgets that are used, studies that pause themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy.engine import Connection

from tests.store.toy import holder, sql, toy_study
from tuner.search.budget import why_no_new_trial
from tuner.search.driver import StudyDriver
from tuner.store import control, leases, studies
from tuner.store.database import Database
from tuner.store.records import Outcome, StudyState

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


def test_a_study_that_a_claim_pauses_is_not_claimed(db: Database) -> None:
    toy_study(db, budget={"trials": 30})
    driver = StudyDriver(db, name="toy")
    for _ in range(4):
        fail(driver)
    lease = driver.claim(holder())
    for _ in range(2):
        assert lease is not None
        leases.lose(db, lease, reason="killed", seconds=1.0)
        lease = driver.claim(holder())
    enqueue(db)
    db.write(sql("UPDATE tuner_runs SET expires_at = 0 WHERE outcome = 'running'"))
    assert driver.claim(holder("w2")) is None
    study = studies.find_study(db, "toy")
    assert (study.state, study.counts["errored"], study.counts["waiting"]) == (StudyState.PAUSED, 5, 1)
