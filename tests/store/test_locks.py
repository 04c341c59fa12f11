"""What two do at the same moment, on the databases where both can: they keep each other waiting, and nothing is done twice."""

from __future__ import annotations

import threading
from collections.abc import ItemsView, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy.engine import Connection

from tests.store.toy import holder, toy_study
from tuner.errors import LeaseLost, NotFoundError
from tuner.search.driver import StudyDriver
from tuner.store import leases, optuna_rows, studies
from tuner.store.database import Database
from tuner.store.leases import Lease
from tuner.store.metrics import store_report
from tuner.study.domains import Value

WHILE = 0.5
"""Seconds that a transaction stays open, so that whoever need not wait for it is done before its end."""


@pytest.fixture(params=["postgres", "mariadb"])
def db(request: pytest.FixtureRequest) -> Iterator[Database]:
    url = str(request.getfixturevalue(f"{request.param}_url"))
    with Database.open(url, create=True) as database:
        yield database


@pytest.fixture
def crowd() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


class Slow(dict[str, Any]):
    """Values that are written to the database slowly."""

    def __init__(self) -> None:
        super().__init__()
        self.is_asked = threading.Event()
        self.may_end = threading.Event()

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        self.is_asked.set()
        self.may_end.wait(WHILE)
        return super().items()


def claim(db: Database) -> Lease:
    lease = StudyDriver(db, name="toy").claim(holder())
    assert lease is not None
    return lease


def test_equal_values_that_are_drawn_at_once_are_trained_with_different_seeds(
    db: Database, crowd: ThreadPoolExecutor
) -> None:
    toy_study(db)
    first, second = claim(db), claim(db)
    same: dict[str, Value] = {"learning_rate": 1e-3, "batch_size": 8}
    slow = Slow()
    early = crowd.submit(leases.bind_proposal, db, first, strategy="full", params=same, drawn=slow)
    assert slow.is_asked.wait(60.0)
    late: Future[Lease] = crowd.submit(leases.bind_proposal, db, second, strategy="full", params=same, drawn={})
    late.add_done_callback(lambda _: slow.may_end.set())
    assert early.result().seed != late.result().seed


def test_a_study_is_deleted_while_a_trial_reports(db: Database, crowd: ThreadPoolExecutor) -> None:
    toy_study(db)
    lease, slow = claim(db), Slow()
    report: dict[str, Any] = {"epoch": 1, "objective": 0.5, "seconds": 1.0, "extend": 60.0}
    _delete_during(crowd.submit(store_report, db, lease, values=slow, **report), slow=slow, db=db, crowd=crowd)
    with pytest.raises(LeaseLost):
        store_report(db, lease, values={}, **report)


def test_a_study_is_deleted_while_optuna_writes_of_a_trial(db: Database, crowd: ThreadPoolExecutor) -> None:
    toy_study(db)
    lease, slow = claim(db), Slow()

    def _write(tx: Connection) -> None:
        optuna_rows.set_user_attributes(tx, lease.trial_id, {"said": "by somebody else"})
        slow.items()

    _delete_during(crowd.submit(db.write, _write), slow=slow, db=db, crowd=crowd)
    with pytest.raises(NotFoundError):
        studies.find_study(db, "toy")


def _delete_during(early: Future[Any], *, slow: Slow, db: Database, crowd: ThreadPoolExecutor) -> None:
    """Delete the study while a transaction is held open; both end well."""
    assert slow.is_asked.wait(60.0)
    late = crowd.submit(studies.delete_study, db, "toy")
    late.add_done_callback(lambda _: slow.may_end.set())
    early.result()
    late.result()
