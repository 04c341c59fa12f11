"""What is remembered about memory, and the one more attempt of a run that ran out of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.store.toy import holder, sql, toy_spec, toy_study, train
from tuner.errors import LeaseLost
from tuner.search.driver import StudyDriver
from tuner.store import checks, fits, leases
from tuner.store.database import Database
from tuner.store.fits import Beginning, FitKey, read_beginning, remember, try_with_less
from tuner.store.leases import Lease
from tuner.store.queries import load_snapshot
from tuner.store.records import Outcome

KEY = FitKey.of(toy_spec(), strategy="lora", device="toy, 1 GiB")


@pytest.fixture
def db(storage_url: str) -> Iterator[Database]:
    with Database.open(storage_url, create=True) as database:
        yield database


@pytest.fixture
def driver(db: Database) -> StudyDriver:
    toy_study(db)
    return StudyDriver(db, name="toy")


def claimed(driver: StudyDriver) -> Lease:
    lease = driver.claim(holder())
    assert lease is not None
    return lease


def run_short(db: Database, lease: Lease, *, micro_batch: int = 2) -> bool:
    return try_with_less(db, lease, micro_batch=micro_batch, reason="no memory", seconds=1.5, log_tail="the log")


def test_the_smallest_size_counts(db: Database, driver: StudyDriver) -> None:
    lease = claimed(driver)
    begins = []
    for size in (8, 4, 16):
        remember(db, KEY, size)
        begins.append(read_beginning(db, lease, key=KEY))
    assert begins == [Beginning(micro_batch=8), Beginning(micro_batch=4), Beginning(micro_batch=4)]
    assert read_beginning(db, lease, key=None) == Beginning()


@pytest.mark.parametrize("change", [{"strategy": "full"}, {"device": "toy, 2 GiB"}, {"length": 64}, {"model": "other"}])
def test_another_kind_of_trial_knows_nothing_of_it(
    db: Database, driver: StudyDriver, change: dict[str, str | int]
) -> None:
    remember(db, KEY, 8)
    assert read_beginning(db, claimed(driver), key=replace(KEY, **change)) == Beginning()  # type: ignore[arg-type]


def test_a_revision_of_a_model_is_another_model() -> None:
    one, same, other = (
        FitKey.of(toy_spec(name, revision=revision), strategy="lora", device="x")
        for name, revision in (("a", "1"), ("b", "1"), ("a", "2"))
    )
    assert one == same
    assert one != other


def test_what_was_learnt_long_ago_is_forgotten(db: Database, driver: StudyDriver) -> None:
    remember(db, KEY, 2)
    db.write(sql(f"UPDATE tuner_fits SET at = at - {fits.FRESH_SECONDS + 1}"))
    lease = claimed(driver)
    assert read_beginning(db, lease, key=KEY) == Beginning()
    remember(db, KEY, 8)
    assert read_beginning(db, lease, key=KEY) == Beginning(micro_batch=8)


def test_a_run_short_of_memory_has_one_more_attempt(db: Database, driver: StudyDriver) -> None:
    lease = claimed(driver)
    assert run_short(db, lease)
    trial = load_snapshot(db, "toy").trial(0)
    assert (trial.outcome, trial.reason) == (Outcome.WAITING, "waiting again: no memory")
    (attempt,) = trial.attempts
    assert (attempt.outcome, attempt.reason, attempt.seconds) == (Outcome.INFEASIBLE, "no memory", 1.5)
    assert attempt.log_tail == "the log"
    assert not checks.find_problems(db)
    again = claimed(driver)
    assert (again.number, again.attempt, again.params) == (0, 2, lease.params)
    assert read_beginning(db, again, key=KEY) == Beginning(micro_batch=2, in_fresh_process=True)
    remember(db, KEY, 1)
    assert read_beginning(db, again, key=KEY).micro_batch == 1
    assert not run_short(db, again)
    train(driver, again)
    assert load_snapshot(db, "toy").trial(0).outcome is Outcome.COMPLETE


def test_an_attempt_after_another_fault_begins_small_in_any_process(db: Database, driver: StudyDriver) -> None:
    assert run_short(db, claimed(driver))
    second = claimed(driver)

    leases.release(db, second, reason="the worker was told to stop", seconds=1.0)
    assert read_beginning(db, claimed(driver), key=None) == Beginning(micro_batch=2)


def test_giving_back_twice_is_giving_back_once(db: Database, driver: StudyDriver) -> None:
    lease = claimed(driver)
    assert run_short(db, lease)
    assert run_short(db, lease), "as after a commit whose answer was lost"
    assert claimed(driver).attempt == 2


def test_who_has_lost_the_lease_gives_nothing_back(db: Database, driver: StudyDriver) -> None:
    lease = claimed(driver)
    with pytest.raises(LeaseLost):
        run_short(db, replace(lease, token="another"))
    assert load_snapshot(db, "toy").trial(0).outcome is Outcome.RUNNING
