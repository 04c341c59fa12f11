"""Each end of an attempt is stored once, however often it is told, and says what it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import optuna
import pytest
from sqlalchemy import select
from sqlalchemy.engine import Connection

from tests.store.toy import LEASE, holder, toy_result, toy_study
from tuner.errors import LeaseLost
from tuner.search.driver import StudyDriver
from tuner.store import leases
from tuner.store.database import Database
from tuner.store.ends import MOST_LOSSES
from tuner.store.leases import Lease
from tuner.store.queries import load_snapshot, load_trial
from tuner.store.records import Outcome
from tuner.store.tables import events

DIED = "the runner was killed by SIGKILL"
FAULT = "OSError: [Errno 5] Input/output error"


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with Database.open(f"sqlite:///{tmp_path}/tuner.db", create=True) as database:
        toy_study(database, budget={"trials": 20})
        yield database


def claim(db: Database, worker: str = "w1") -> Lease:
    lease = StudyDriver(db, name="toy").claim(holder(worker))
    assert lease is not None
    return lease


def complete(db: Database, lease: Lease) -> None:
    leases.finish(db, lease, outcome=Outcome.COMPLETE, reason="", seconds=1.0, value=0.5, result=toy_result(0.5))


def diverge(db: Database, lease: Lease) -> None:
    leases.finish(db, lease, outcome=Outcome.DIVERGED, reason="nan", seconds=1.0, log_tail="x")


def release(db: Database, lease: Lease) -> None:
    leases.release(db, lease, reason="the worker was told to stop", seconds=1.0)


def lose(db: Database, lease: Lease) -> Outcome:
    return leases.lose(db, lease, reason=DIED, seconds=1.0, log_tail="x")


def stumble(db: Database, lease: Lease) -> Outcome:
    return leases.lose(db, lease, reason=FAULT, seconds=1.0, log_tail="x", ended=Outcome.ERRORED)


ENDS: list[tuple[Callable[[Database, Lease], object], list[str]]] = [
    (complete, ["run_complete"]),
    (diverge, ["run_diverged"]),
    (release, ["run_preempted"]),
    (lose, ["run_lost"]),
    (stumble, ["run_stumbled"]),
]


@pytest.mark.parametrize(("end", "kinds"), ENDS, ids=lambda value: getattr(value, "__name__", ""))
def test_an_end_whose_acknowledgement_was_lost_is_stored_once(
    db: Database, end: Callable[[Database, Lease], object], kinds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks after the commit: the same function runs again, and the worker may even ask again minutes later."""
    lease = claim(db)
    write = db.write

    def _twice(function: Callable[[Connection], object]) -> object:
        write(function)
        return write(function)

    monkeypatch.setattr(db, "write", _twice)
    answers = [end(db, lease), end(db, lease)]
    assert answers[0] == answers[1]
    told = db.read(lambda tx: tx.execute(select(events.c.kind).where(events.c.number == 0)).scalars().all())
    assert [kind for kind in told if kind != "run_claimed"] == kinds
    assert len(load_snapshot(db, "toy").trial(0).attempts) == 1


@pytest.mark.parametrize("end", [release, lose, stumble])
def test_an_end_told_again_after_the_next_claim_changes_nothing(
    db: Database, end: Callable[[Database, Lease], object]
) -> None:
    lease = claim(db)
    end(db, lease)
    heir = claim(db, "w2")
    assert (heir.number, heir.attempt) == (0, 2)
    with pytest.raises(LeaseLost):
        end(db, lease)
    trial = load_snapshot(db, "toy").trial(0)
    assert [attempt.outcome for attempt in trial.attempts][1] is Outcome.RUNNING
    complete(db, heir)


def test_a_run_says_why_it_waits_and_why_it_runs_again(db: Database) -> None:
    first = claim(db)
    assert load_snapshot(db, "toy").trial(0).reason == "on box, cpu/0"
    assert stumble(db, first) is Outcome.WAITING
    assert load_snapshot(db, "toy").trial(0).reason == f"waiting again: {FAULT}"
    second = claim(db)
    assert load_snapshot(db, "toy").trial(0).reason == f"on box, cpu/0, again after: {FAULT}"
    release(db, second)
    claim(db)
    assert load_snapshot(db, "toy").trial(0).reason == "on box, cpu/0, again after: the worker was told to stop"


def test_deaths_and_passing_faults_are_charged_together_and_being_told_to_stop_is_not(db: Database) -> None:
    outcomes = [end(db, claim(db)) for end in (lose, release, stumble, release, release, lose)]
    assert outcomes == [Outcome.WAITING, None, Outcome.WAITING, None, None, Outcome.ERRORED]
    trial = load_snapshot(db, "toy").trial(0)
    assert trial.reason == f"{DIED}; given up after {MOST_LOSSES} attempts"
    assert [attempt.outcome.value for attempt in trial.attempts] == [
        "lost",
        "preempted",
        "errored",
        "preempted",
        "preempted",
        "lost",
    ]
    assert [attempt.reason for attempt in trial.attempts if attempt.outcome is Outcome.LOST] == [DIED, DIED]


def test_a_worker_that_fell_silent_is_named(db: Database) -> None:
    bare = StudyDriver(db, name="toy").claim(holder("w-dead", lease=-1.0))
    assert bare is not None
    heir = claim(db, "w2")
    story = load_trial(db, "toy", 0)
    assert heir.number == 0
    assert story.trial.attempts[0].reason == "worker w-dead fell silent"
    assert story.trial.reason == "on box, cpu/0, again after: worker w-dead fell silent"
    assert [(event.kind, event.worker) for event in story.events] == [
        ("run_claimed", "w-dead"),
        ("run_lost", "w-dead"),
        ("run_claimed", "w2"),
    ]


def test_optunas_dashboard_is_told_our_words(db: Database) -> None:
    driver = StudyDriver(db, name="toy")
    for outcome in (Outcome.INFEASIBLE, Outcome.DIVERGED, Outcome.ERRORED):
        driver.fail(claim(db), outcome=outcome, reason=f"it {outcome.value}", seconds=1.0, log_tail="")
    for _ in range(MOST_LOSSES):
        lose(db, claim(db))
    trials = optuna.load_study(study_name="toy", storage=db.optuna_storage()).trials
    said = [(trial.user_attrs["tuner:outcome"], trial.user_attrs["tuner:reason"]) for trial in trials]
    assert said == [
        ("infeasible", "it infeasible"),
        ("diverged", "it diverged"),
        ("errored", "it errored"),
        ("errored", f"{DIED}; given up after 3 attempts"),
    ]


def test_a_report_with_progress_clears_what_was_charged(db: Database) -> None:
    driver = StudyDriver(db, name="toy")
    for epoch in (1, 2):
        for _ in range(MOST_LOSSES - 1):
            assert lose(db, claim(db)) is Outcome.WAITING
        lease = claim(db)
        driver.report(lease, epoch=epoch, metrics={"f1": 0.1}, seconds=1.0, extend=LEASE)
        release(db, lease)
    assert load_snapshot(db, "toy").trial(0).outcome is Outcome.WAITING
