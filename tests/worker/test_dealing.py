"""Every way in which a run can end, through a real worker and a real runner, to what is stored and shown."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from sqlalchemy import select

from tests.store.toy import toy_study
from tests.worker import odd_training as odd
from tuner.cli.documents import study_document, trial_document
from tuner.store.database import Database
from tuner.store.queries import load_snapshot
from tuner.store.records import Outcome, StudySnapshot, StudyState
from tuner.store.tables import events
from tuner.worker.events import Event, RunEnded
from tuner.worker.options import WorkerOptions
from tuner.worker.supervisor import run_worker

TRIALS = 12


class Listener:
    """A display that keeps what became of each attempt."""

    def __init__(self) -> None:
        self.ends: dict[int, list[RunEnded]] = {}

    def show(self, event: Event) -> None:
        if isinstance(event, RunEnded):
            self.ends.setdefault(event.number, []).append(event)

    def close(self) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Served:
    """What is known after a worker has served the study."""

    snapshot: StudySnapshot
    shown: dict[int, list[RunEnded]]
    events: dict[int, list[tuple[str, str]]]
    folders: frozenset[str]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The study after one worker has served it to its end."""
    folder = tmp_path_factory.mktemp("odd")
    url = f"sqlite:///{folder}/tuner.db"
    listener = Listener()
    with Database.open(url, create=True) as db:
        search = {"sampler": {"name": "random"}, "pruner": {"name": "none"}}
        toy_study(db, training={"epochs": 1}, budget={"trials": TRIALS}, search=search)
        options = WorkerOptions(
            storage=url, files=folder / "files", devices="cpu", until_done=True, runner="tests.worker.odd_training"
        )
        run_worker(options, display=listener)
        rows = db.read(lambda tx: tx.execute(select(events).order_by(events.c.event_id)).all())
        told: dict[int, list[tuple[str, str]]] = {}
        for row in rows:
            if row.number is not None:
                told.setdefault(row.number, []).append((row.kind, row.text))
        yield Served(
            snapshot=load_snapshot(db, "toy"),
            shown=listener.ends,
            events=told,
            folders=frozenset(path.parent.name for path in (folder / "files" / "checkpoints").glob("*/*/attempt-*")),
        )


@pytest.mark.parametrize(
    ("number", "outcome", "reason", "attempts"),
    [
        (odd.COMPLETE, "complete", "", ["complete"]),
        (odd.INFEASIBLE, "infeasible", "out of memory on toy with 1 row", ["infeasible"]),
        (odd.DIVERGED, "diverged", "loss or gradient became non-finite in epoch 1, step 7", ["diverged"]),
        (odd.BUG, "errored", "KeyError: 'text'", ["errored"]),
        (odd.ONE_FAULT, "complete", "", ["errored", "complete"]),
        (
            odd.FAULTS,
            "errored",
            "OSError: [Errno 5] Input/output error: '/data/rows.csv'; given up after 3 attempts",
            ["errored"] * 3,
        ),
        (odd.ABORTS, "errored", "the runner was killed by SIGABRT; given up after 3 attempts", ["lost"] * 3),
        (odd.ONE_ABORT, "complete", "", ["lost", "complete"]),
        (odd.NAN_REPORT, "diverged", "f1 is nan; lower the learning rate", ["diverged"]),
        (odd.NAN_RESULT, "diverged", "f1 is inf; lower the learning rate", ["diverged"]),
        (odd.NAN_BESIDE, "complete", "", ["complete"]),
        (odd.NO_METRIC, "errored", 'no metric "f1" was reported - got loss; set objective.metric', ["errored"]),
    ],
)
def test_each_end_is_what_it_is(served: Served, number: int, outcome: str, reason: str, attempts: list[str]) -> None:
    trial = served.snapshot.trial(number)
    assert (trial.outcome.value, trial.reason) == (outcome, reason)
    assert [attempt.outcome.value for attempt in trial.attempts] == attempts
    assert [end.outcome.value for end in served.shown[number]][-1] == outcome
    assert len(served.shown[number]) == len(attempts)


def test_the_study_goes_on_to_its_end(served: Served) -> None:
    assert served.snapshot.study.state is StudyState.FINISHED
    assert len(served.snapshot.trials) == TRIALS
    counts = served.snapshot.study.counts
    assert {name: count for name, count in counts.items() if count} == {
        "complete": 4,
        "diverged": 3,
        "errored": 4,
        "infeasible": 1,
    }


def test_bad_ends_keep_the_last_words(served: Served) -> None:
    for number in (odd.INFEASIBLE, odd.DIVERGED, odd.BUG, odd.FAULTS, odd.ABORTS, odd.NAN_REPORT):
        for attempt in served.snapshot.trial(number).attempts:
            assert attempt.log_tail.startswith(f"trial {number} is about to begin")
    bug = served.snapshot.trial(odd.BUG).attempts[0].log_tail
    assert "Traceback (most recent call last):" in bug
    assert bug.endswith("KeyError: 'text'\n")
    assert "Fatal Python error: Aborted" in served.snapshot.trial(odd.ABORTS).attempts[0].log_tail


def test_attempts_keep_their_own_reasons(served: Served) -> None:
    attempts = served.snapshot.trial(odd.ABORTS).attempts
    assert {attempt.reason for attempt in attempts} == {"the runner was killed by SIGABRT"}


def test_whoever_watches_is_told_that_there_is_another_attempt(served: Served) -> None:
    first, second, third = (end.reason for end in served.shown[odd.FAULTS])
    assert first == second
    assert first.endswith("/data/rows.csv'; it waits for another attempt")
    assert third.endswith("; given up")


def test_the_events_tell_the_story_of_each_attempt(served: Served) -> None:
    kinds = {number: [kind for kind, _ in told] for number, told in served.events.items()}
    assert kinds[odd.COMPLETE] == ["run_claimed", "run_complete"]
    assert kinds[odd.ONE_FAULT] == ["run_claimed", "run_stumbled", "run_claimed", "run_complete"]
    assert kinds[odd.ABORTS] == ["run_claimed", "run_lost"] * 3 + ["run_errored"]
    assert kinds[odd.DIVERGED] == ["run_claimed", "run_diverged"]
    kind, text = served.events[odd.ONE_ABORT][2]
    assert kind == "run_claimed"
    assert text.startswith("attempt 2 on ")


def test_nothing_stored_is_not_finite(served: Served) -> None:
    metric = served.snapshot.study.metric
    documents = [study_document(served.snapshot), *(trial_document(trial, metric) for trial in served.snapshot.trials)]
    for document in documents:
        json.dumps(document, allow_nan=False)
    beside = served.snapshot.trial(odd.NAN_BESIDE)
    assert beside.outcome is Outcome.COMPLETE
    assert set(beside.epochs[0].metrics) == {"f1"}


def test_only_what_a_result_names_is_left_on_the_disk(served: Served) -> None:
    assert served.folders == {f"trial-{odd.COMPLETE}"}
