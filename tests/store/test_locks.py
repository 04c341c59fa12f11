"""What two do at the same moment, on the databases where both can: they keep each other waiting, and nothing is done twice."""

from __future__ import annotations

import threading
from collections.abc import ItemsView, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.store.toy import holder, toy_study
from tuner.search.driver import StudyDriver
from tuner.store import leases
from tuner.store.database import Database
from tuner.store.leases import Lease
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
