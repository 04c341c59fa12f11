"""A study that only errors come out of stops by itself, and goes on when a person says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store.toy import holder, toy_study, train
from tuner.search.driver import StudyDriver
from tuner.store import breaker, control, leases, studies
from tuner.store.database import Database
from tuner.store.ends import MOST_LOSSES
from tuner.store.leases import Lease
from tuner.store.records import Outcome, StudyState

RANDOM = {"sampler": {"name": "random"}, "pruner": {"name": "none"}}


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with Database.open(f"sqlite:///{tmp_path}/tuner.db", create=True) as database:
        yield database


def fail(driver: StudyDriver, lease: Lease, outcome: Outcome = Outcome.ERRORED) -> None:
    driver.fail(lease, outcome=outcome, reason=f"{outcome.value} of trial {lease.number}", seconds=1.0, log_tail="")


def claim(driver: StudyDriver) -> Lease:
    lease = driver.claim(holder())
    assert lease is not None
    return lease


def serve(driver: StudyDriver, ends: str) -> int:
    """One trial for each letter, ``c`` for complete, ``e`` errored, ``d`` diverged, ``i`` infeasible; how many were claimed."""
    bad = {"e": Outcome.ERRORED, "d": Outcome.DIVERGED, "i": Outcome.INFEASIBLE}
    for count, letter in enumerate(ends):
        lease = driver.claim(holder())
        if lease is None:
            return count
        if letter == "c":
            train(driver, lease)
        else:
            fail(driver, lease, bad[letter])
    return len(ends)


def test_ten_poisons_among_the_last_twenty_pause_the_study(db: Database) -> None:
    toy_study(db, budget={"trials": 99}, search=RANDOM)
    driver = StudyDriver(db, name="toy")
    assert serve(driver, "cc" + "ce" * 15) == 2 + 2 * breaker.MOST_POISONS
    study = studies.find_study(db, "toy")
    assert study.state is StudyState.PAUSED
    assert study.state_reason == (
        "10 of the last 20 trials, each with other values, ended with an error, the last with: errored of trial 21; "
        "see tuner study trials toy --state errored, mend it, then: tuner study resume toy"
    )


def test_fewer_poisons_do_not(db: Database) -> None:
    toy_study(db, budget={"trials": 99}, search=RANDOM)
    ends = "c" + "ecc" * 12  # at most 7 in 20
    assert serve(StudyDriver(db, name="toy"), ends) == len(ends)
    assert studies.find_study(db, "toy").state is StudyState.SEARCHING


def test_one_configuration_that_errs_again_and_again_is_one_poison(db: Database) -> None:
    toy_study(db, budget={"trials": 99}, search=RANDOM)
    driver = StudyDriver(db, name="toy")
    serve(driver, "c" * 3)
    for _ in range(12):
        lease = claim(driver)
        leases.bind_proposal(db, lease, strategy="lora", params={"learning_rate": 0.1}, drawn={})
        fail(driver, lease)
    assert studies.find_study(db, "toy").state is StudyState.SEARCHING


@pytest.mark.parametrize("letter", ["d", "i"])
def test_what_teaches_the_sampler_does_not_pause_the_study(db: Database, letter: str) -> None:
    toy_study(db, budget={"trials": 99}, search=RANDOM)
    assert serve(StudyDriver(db, name="toy"), letter * 25) == 25


def test_configurations_that_kill_their_processes_are_poisons(db: Database) -> None:
    toy_study(db, budget={"trials": 99}, search=RANDOM)
    driver = StudyDriver(db, name="toy")
    serve(driver, "cc")
    attempts = 0
    while (lease := driver.claim(holder())) is not None:
        leases.lose(db, lease, reason="the runner was killed by SIGABRT", seconds=1.0)
        attempts += 1
    assert attempts == breaker.MOST_POISONS * MOST_LOSSES
    assert "10 of the last 12 trials" in studies.find_study(db, "toy").state_reason


def test_what_was_before_the_study_was_resumed_does_not_count(db: Database) -> None:
    toy_study(db, budget={"trials": 99}, search=RANDOM)
    driver = StudyDriver(db, name="toy")
    assert serve(driver, "e" * 9) == breaker.FIRST_ERRORS
    assert control.resume(db, "toy", who="anna@box").state is StudyState.SEARCHING
    assert serve(driver, "e" * 4 + "c") == 5
    assert serve(driver, "e" * 20) == breaker.MOST_POISONS - 4
    assert studies.find_study(db, "toy").state is StudyState.PAUSED
