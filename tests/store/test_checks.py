"""Every kind of damage, made by hand: it is found, mended, and not found again; and the study goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import optuna
import pytest
from sqlalchemy import select

from tests.store.toy import holder, run_out, sql, toy_study, train
from tuner.search.driver import StudyDriver
from tuner.store import leases, workers
from tuner.store.checks import find_problems, mend_problems
from tuner.store.database import Database
from tuner.store.queries import load_snapshot
from tuner.store.records import Outcome, StudyState
from tuner.store.tables import events

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:Some regimes for parameter:UserWarning")]

TRIALS = 6


@pytest.fixture
def db(storage_url: str) -> Iterator[Database]:
    """A study with four complete trials, one that runs and one to come."""
    with Database.open(storage_url, create=True) as database:
        toy_study(
            database, budget={"trials": TRIALS}, search={"sampler": {"name": "random"}, "pruner": {"name": "none"}}
        )
        driver = StudyDriver(database, name="toy")
        for _ in range(4):
            lease = driver.claim(holder())
            assert lease is not None
            train(driver, lease)
        running = driver.claim(holder())
        assert running is not None
        leases.renew(database, held=[(running, 1.0)], lease=3600.0)
        yield database


def test_a_healthy_study_has_no_problems(db: Database) -> None:
    assert find_problems(db) == []
    assert mend_problems(db, who="anna@box") == []


STRANGER = "INSERT INTO trials (number, study_id, state) SELECT {number}, study_id, '{state}' FROM tuner_studies"


def _damage(words: str) -> list[str]:
    return [part.strip() for part in words.split(";") if part.strip()]


DAMAGES = {
    "expired_lease": "UPDATE tuner_runs SET expires_at = expires_at - 36000 WHERE number = 4",
    "no_lease": "UPDATE tuner_runs SET expires_at = NULL, worker_id = NULL WHERE number = 4",
    "missing_attempt": "DELETE FROM tuner_attempts WHERE run_id = (SELECT run_id FROM tuner_runs WHERE number = 4)",
    "open_attempt": "UPDATE tuner_attempts SET outcome = 'running' WHERE run_id = (SELECT run_id FROM tuner_runs WHERE number = 1)",
    "unknown_metrics": "UPDATE tuner_metrics SET attempt = 7 WHERE run_id = (SELECT run_id FROM tuner_runs WHERE number = 1)",
    "no_value": "UPDATE tuner_runs SET value = NULL WHERE number = 2",
    "no_value at all": "UPDATE tuner_runs SET value = NULL, result = NULL WHERE number = 2;"
    "DELETE FROM trial_values WHERE trial_id = (SELECT trial_id FROM tuner_runs WHERE number = 2)",
    "missing_trial": "UPDATE tuner_runs SET trial_id = 1000000 WHERE number = 1;"
    "UPDATE trials SET study_id = NULL WHERE number = 1",
    "wrong_number": "UPDATE trials SET number = 1000 WHERE number = 3",
    "double_number": STRANGER.format(number=2, state="FAIL"),
    "unknown_trial": STRANGER.format(number=5, state="RUNNING"),
    "missing_number": STRANGER.format(number=9, state="FAIL"),
    "contradiction of states": "UPDATE trials SET state = 'RUNNING' WHERE number = 0",
    "contradiction of values": "UPDATE trial_values SET value = 123 WHERE trial_id = (SELECT trial_id FROM tuner_runs WHERE number = 0)",
    "finished_too_early": "UPDATE tuner_studies SET state = 'finished'",
    "contradiction by a missing value": "DELETE FROM trial_values WHERE trial_id = (SELECT trial_id FROM tuner_runs WHERE number = 0)",
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found_mended_and_not_found_again(db: Database, name: str) -> None:
    kind = name.split(maxsplit=1)[0]
    for statement in _damage(DAMAGES[name]):
        db.write(sql(statement))
    found = find_problems(db)
    assert kind in {problem.kind for problem in found}
    assert all(problem.study == "toy" and problem.text and problem.repair for problem in found)

    mended = mend_problems(db, who="anna@box")
    assert kind in {problem.kind for problem in mended}
    assert find_problems(db) == []
    said = db.read(lambda tx: list(tx.execute(select(events).where(events.c.kind == "repaired")).all()))
    assert len(said) == len(mended)
    assert all(row.who == "anna@box" and row.at > 1e9 for row in said)
    _goes_on(db)


def _goes_on(db: Database) -> None:
    """The study comes to its end, and everything agrees then."""
    snapshot = load_snapshot(db, "toy")
    for trial in snapshot.trials:
        if trial.outcome is Outcome.RUNNING:
            db.write(sql("UPDATE tuner_runs SET expires_at = 0 WHERE number = 4"))
    run_out(StudyDriver(db, name="toy"))
    snapshot = load_snapshot(db, "toy")
    assert snapshot.study.state is StudyState.FINISHED
    assert find_problems(db) == []
    theirs = optuna.load_study(study_name="toy", storage=db.optuna_storage()).trials
    assert [trial.number for trial in theirs] == list(range(len(theirs)))
    for trial in snapshot.trials:
        assert theirs[trial.number].value == trial.value


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("no_value", lambda trial: trial.outcome is Outcome.COMPLETE and trial.value is not None),
        ("no_value at all", lambda trial: trial.outcome is Outcome.ERRORED and trial.reason == "its value was lost"),
    ],
)
def test_a_lost_value_is_taken_from_the_result(db: Database, name: str, check: Callable[[object], bool]) -> None:
    for statement in _damage(DAMAGES[name]):
        db.write(sql(statement))
    mend_problems(db, who="anna@box")
    assert check(load_snapshot(db, "toy").trial(2))


def test_a_study_deleted_with_optuna_and_a_silent_worker_are_cleared_away(db: Database) -> None:
    workers.register(db, workers.Identity.of_this_process("gone"), devices=["cpu"], version="1", lease=-7200.0)
    workers.register(db, workers.Identity.of_this_process("here"), devices=["cpu"], version="1", lease=60.0)
    optuna.delete_study(study_name="toy", storage=db.optuna_storage())
    assert sorted(problem.kind for problem in find_problems(db)) == ["orphan_study", "silent_worker"]
    assert len(mend_problems(db, who="anna@box")) == 2
    assert find_problems(db) == []
    assert [worker.worker for worker in workers.list_workers(db)] == ["here"]


def test_a_live_run_is_left_alone(db: Database) -> None:
    db.write(sql("UPDATE trials SET state = 'WAITING' WHERE number = 4"))
    mend_problems(db, who="anna@box")
    trial = load_snapshot(db, "toy").trial(4)
    assert (trial.outcome, len(trial.attempts)) == (Outcome.RUNNING, 1)
