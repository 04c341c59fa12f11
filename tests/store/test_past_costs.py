"""What past trainings took, read from the database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.store.toy import LEASE, holder, toy_result, toy_spec, toy_study
from tuner.search.driver import StudyDriver
from tuner.store.database import Database
from tuner.store.leases import store_facts
from tuner.store.past_costs import past_trainings


@pytest.fixture
def past(storage_url: str) -> Iterator[Database]:
    """A study with one complete trial: 5 s until its first epoch, 2 s for each further one, 3 s after the last."""
    with Database.open(storage_url, create=True) as db:
        toy_study(db, search={"pruner": {"name": "none"}})
        driver = StudyDriver(db, name="toy")
        lease = driver.claim(holder())
        assert lease is not None
        store_facts(db, lease, {"device": "H100", "rows": [90, 30]})
        for epoch in (1, 2, 3):
            driver.report(lease, epoch=epoch, metrics={"f1": 0.5}, seconds=3.0 + 2.0 * epoch, extend=LEASE)
        driver.finish(lease, result=toy_result(0.5, seconds=12.0))
        running = driver.claim(holder())
        assert running is not None
        driver.report(running, epoch=1, metrics={"f1": 0.5}, seconds=1.0, extend=LEASE)
        yield db


def test_what_is_fixed_is_told_from_what_each_epoch_takes(past: Database) -> None:
    (found,) = past_trainings(past, spec=toy_spec("another"))
    assert found.strategy == "lora"
    assert (found.per_epoch, found.fixed) == pytest.approx((2.0, 6.0))
    assert (found.device, found.rows, found.max_length) == ("H100", 100.0, 128)


def test_other_models_tell_nothing(past: Database) -> None:
    assert past_trainings(past, spec=toy_spec("another", model="other")) == ()
    pinned = toy_spec("another", revision="abc")
    assert len(past_trainings(past, spec=pinned)) == 1
