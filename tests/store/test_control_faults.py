"""What people ask of studies, at the wrong moment: connections that break, budgets that are used, studies that pause themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy.engine import Connection

from tests.store.toy import holder, sql, toy_result, toy_study, train
from tuner.errors import ConflictError
from tuner.search.budget import why_no_new_trial, why_not_again
from tuner.search.driver import StudyDriver
from tuner.store import control, fits, leases, studies, trial_control
from tuner.store.database import Database
from tuner.store.fits import Beginning
from tuner.store.queries import load_snapshot
from tuner.store.records import Outcome, StudyState
from tuner.study.plan import Verdict

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
    lose_acknowledgements(db, monkeypatch)
    assert [enqueue(db), enqueue(db)] == [0, 1]
    assert studies.find_study(db, "toy").used.trials == 2


@pytest.mark.parametrize("is_running", [False, True])
def test_a_stop_whose_acknowledgement_was_lost_is_no_conflict(
    db: Database, monkeypatch: pytest.MonkeyPatch, is_running: bool
) -> None:
    toy_study(db)
    number = enqueue(db)
    if is_running:
        assert StudyDriver(db, name="toy").claim(holder()) is not None
    lose_acknowledgements(db, monkeypatch)
    outcome = trial_control.stop_trial(db, "toy", number, who=ANNA)
    assert outcome is (Outcome.RUNNING if is_running else Outcome.PRUNED)
    monkeypatch.undo()
    if not is_running:
        with pytest.raises(ConflictError, match="trial 0 is pruned already"):
            trial_control.stop_trial(db, "toy", number, who=ANNA)


def test_a_retry_whose_acknowledgement_was_lost_is_no_conflict(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_study(db, budget={"trials": 9})
    number = fail(StudyDriver(db, name="toy"))
    lose_acknowledgements(db, monkeypatch)
    state = trial_control.retry_trials(db, "toy", [number], who=ANNA, limit=why_not_again)
    assert state is StudyState.SEARCHING
    monkeypatch.undo()
    assert load_snapshot(db, "toy").trial(number).outcome is Outcome.WAITING
    with pytest.raises(ConflictError, match="trial 0 is waiting"):
        trial_control.retry_trials(db, "toy", [number], who=ANNA, limit=why_not_again)


@pytest.mark.parametrize("asks", ["enqueue", "retry"])
def test_what_was_claimed_before_its_acknowledgement_was_lost_is_not_asked_again(
    db: Database, monkeypatch: pytest.MonkeyPatch, asks: str
) -> None:
    toy_study(db, budget={"trials": 9})
    driver = StudyDriver(db, name="toy")
    number = fail(driver) if asks == "retry" else 0
    write = db.write

    def _claimed_between(function: Callable[[Connection], object]) -> object:
        write(function)
        monkeypatch.undo()
        lease = driver.claim(holder())
        assert lease is not None
        assert lease.number == number
        return write(function)

    monkeypatch.setattr(db, "write", _claimed_between)
    if asks == "enqueue":
        assert enqueue(db) == number
    else:
        trial_control.retry_trials(db, "toy", [number], who=ANNA, limit=why_not_again)
    study = studies.find_study(db, "toy")
    assert (study.used.trials, study.counts["running"], study.counts["waiting"]) == (1, 1, 0)


def lose_acknowledgements(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every transaction takes effect, and is tried again as if nobody had heard of it."""
    write = db.write

    def _twice(function: Callable[[Connection], object]) -> object:
        write(function)
        return write(function)

    monkeypatch.setattr(db, "write", _twice)


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


@pytest.mark.parametrize(
    ("budget", "why"),
    [
        ({"gpu_hours": 1.0}, "budget of 1 device hour has 30 min left; a trial needs about 30 min"),
        ({"epochs": 6}, r"budget of 6 epochs is used \(6 trained, a trial needs 3\)"),
    ],
)
def test_nothing_runs_again_where_the_budget_has_no_room(db: Database, budget: dict[str, float], why: str) -> None:
    toy_study(db, budget=budget, search={"pruner": {"name": "none"}})
    driver = StudyDriver(db, name="toy")
    bad = fail(driver)
    while (lease := driver.claim(holder())) is not None:
        driver.finish(lease, result=toy_result(0.5, seconds=1800.0))
    with pytest.raises(ConflictError, match=f'"toy" has no room to run trial {bad} again - {why}; raise its budget'):
        trial_control.retry_trials(db, "toy", [bad], who=ANNA, limit=why_not_again)
    assert load_snapshot(db, "toy").trial(bad).outcome is Outcome.ERRORED


def test_what_has_room_without_its_first_try_runs_again(db: Database) -> None:
    toy_study(db, budget={"epochs": 3})
    driver = StudyDriver(db, name="toy")
    lease = driver.claim(holder())
    assert lease is not None
    driver.report(lease, epoch=2, metrics={"f1": 0.5}, seconds=1.0, extend=60.0)
    driver.fail(lease, outcome=Outcome.DIVERGED, reason="boom", seconds=1.0, log_tail="")
    trial_control.retry_trials(db, "toy", [lease.number], who=ANNA, limit=why_not_again)
    again = driver.claim(holder())
    assert again is not None
    train(driver, again)
    assert studies.find_study(db, "toy").used.epochs == 3


def test_a_trial_that_runs_again_is_judged_by_what_it_says_now(db: Database) -> None:
    median = {"name": "median", "options": {"n_startup_trials": 0}}
    toy_study(db, training={"epochs": 6}, search={"pruner": median})
    driver = StudyDriver(db, name="toy")
    first, second = driver.claim(holder()), driver.claim(holder())
    assert first is not None
    assert second is not None
    for epoch, value in enumerate((0.8, 0.81, 0.82, 0.83, 0.84, 0.85), start=1):
        driver.report(first, epoch=epoch, metrics={"f1": value}, seconds=1.0, extend=60.0)
    driver.finish(first, result=toy_result(0.85, epochs=6))
    trial = driver.claim(holder())
    assert trial is not None
    assert not trial.is_recipe
    for epoch, value in enumerate((0.9, 0.2, 0.1), start=1):
        driver.report(trial, epoch=epoch, metrics={"f1": value}, seconds=1.0, extend=60.0)
    driver.fail(trial, outcome=Outcome.ERRORED, reason="boom", seconds=1.0, log_tail="")
    trial_control.retry_trials(db, "toy", [trial.number], who=ANNA, limit=why_not_again)
    again = driver.claim(holder())
    assert again is not None
    assert again.number == trial.number
    verdict, _ = driver.report(again, epoch=1, metrics={"f1": 0.1}, seconds=1.0, extend=60.0)
    assert verdict is Verdict.PRUNE  # by its first epoch, not by the best of what it said before
    driver.cut(again, reason="stopped", seconds=1.0)
    assert load_snapshot(db, "toy").trial(again.number).value == 0.1


def test_epochs_that_were_trained_count_where_a_run_is_stopped_in_its_preparation(db: Database) -> None:
    toy_study(db)
    driver = StudyDriver(db, name="toy")
    lease = driver.claim(holder())
    assert lease is not None
    driver.report(lease, epoch=2, metrics={"f1": 0.5}, seconds=1.0, extend=60.0)
    leases.release(db, lease, reason="drained", seconds=1.0)
    again = driver.claim(holder())
    assert again is not None
    driver.finish(again, result=toy_result(0.0, epochs=0, ended_by="prune"), reason="stopped by anna@box")
    assert load_snapshot(db, "toy").trial(again.number).value == 0.5
    assert studies.find_study(db, "toy").used.epochs == 2


def test_a_trial_that_ran_out_of_memory_begins_anew_where_a_person_asks_for_it(db: Database) -> None:
    toy_study(db)
    driver = StudyDriver(db, name="toy")
    first = driver.claim(holder())
    assert first is not None
    assert fits.try_with_less(db, first, micro_batch=1, reason="out of memory", seconds=1.0)
    lease = driver.claim(holder())
    assert lease is not None
    assert not fits.try_with_less(db, lease, micro_batch=1, reason="out of memory", seconds=1.0)
    driver.fail(lease, outcome=Outcome.INFEASIBLE, reason="out of memory", seconds=1.0, log_tail="")
    trial_control.retry_trials(db, "toy", [lease.number], who=ANNA, limit=why_not_again)
    lease = driver.claim(holder())
    assert lease is not None
    assert fits.read_beginning(db, lease, key=None) == Beginning()
    assert fits.try_with_less(db, lease, micro_batch=4, reason="out of memory", seconds=1.0)
