"""Which rows and weights a study began with."""

from __future__ import annotations

from tests.store.toy import holder, toy_study
from tuner.search.driver import StudyDriver
from tuner.store import leases
from tuner.store.database import Database
from tuner.store.records import Outcome
from tuner.store.rows import first_facts


def test_a_trial_that_was_given_back_or_ended_badly_is_no_measure_of_others(sqlite_url: str) -> None:
    """A box with another file gives its trial back: the rows of the next one must not be held against that."""
    with Database.open(sqlite_url, create=True) as db:
        toy_study(db)
        driver = StudyDriver(db, name="toy")
        given_back, bad, good, later = (driver.claim(holder(f"box-{number}")) for number in range(4))
        assert given_back is not None
        assert bad is not None
        assert good is not None
        assert later is not None
        assert first_facts(db, good) == (-1, {})
        for lease, rows in ((given_back, "b"), (bad, "c"), (good, "a"), (later, "d")):
            leases.store_facts(db, lease, {"data": rows})
        assert first_facts(db, later) == (given_back.number, {"data": "b"})
        leases.release(db, given_back, reason="its rows are others", seconds=1.0)
        driver.fail(bad, outcome=Outcome.ERRORED, reason="bad rows", seconds=1.0, log_tail="")
        assert first_facts(db, good) == first_facts(db, later) == (good.number, {"data": "a"})
