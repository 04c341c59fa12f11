"""What a study will have cost, while it runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.report.samples import make_spec, make_study, make_trial
from tuner.report.outlook import foresee_end, spending_words
from tuner.store.records import BudgetUse, Outcome, StudySnapshot, StudyState, TrialRecord, WorkerRecord


def running(trials: tuple[TrialRecord, ...], *, planned: int, **budget: Any) -> StudySnapshot:
    """A study that searches."""
    spec = make_spec(trials=planned)
    spec = spec.model_copy(
        update={
            "budget": spec.budget.model_copy(update=budget),
            "confirm": spec.confirm.model_copy(update={"finalists": 0}),
        }
    )
    study = make_study(spec=spec, trials=trials, state=StudyState.SEARCHING)
    seconds = sum(trial.seconds for trial in trials)
    used = BudgetUse(
        trials=len(trials), epochs=3 * len(trials), gpu_seconds=seconds, confirm_seconds=0.0, wall_seconds=seconds / 2
    )
    return StudySnapshot(study=replace(study, used=used), trials=trials, finalists=())


def many(count: int, *, first: int = 0, **changes: Any) -> tuple[TrialRecord, ...]:
    return tuple(make_trial(first + index, **changes) for index in range(count))


def test_nothing_is_said_before_two_epochs_and_after_the_end() -> None:
    assert foresee_end(running((), planned=9)) is None
    assert foresee_end(running(many(1, values=(0.5,)), planned=9)) is None
    snapshot = running(many(3), planned=9)
    assert foresee_end(snapshot) is not None
    over = replace(snapshot, study=replace(snapshot.study, state=StudyState.FINISHED))
    assert foresee_end(over) is None


def test_what_is_used_is_part_of_it_and_pruning_moves_the_mean() -> None:
    whole = running(many(10), planned=30, price_per_hour=360.0)
    found = foresee_end(whole)
    assert found is not None
    spent = whole.study.used.gpu_seconds
    assert found.device_hours.low * 3600 > spent
    assert found.device_hours.low * 3600 <= 3 * spent <= found.device_hours.high * 3600
    assert found.money is not None
    assert found.money.high == pytest.approx(found.device_hours.high * 360.0)
    pruned = many(8, first=10, outcome=Outcome.PRUNED, values=(0.5,), seconds=1.0)
    less = foresee_end(running((*whole.trials, *pruned), planned=38))
    assert less is not None
    assert less.device_hours.high < found.device_hours.high + 8 / 3600


def test_as_many_slots_as_train_now() -> None:
    trials = (*many(6), *many(2, first=6, outcome=Outcome.RUNNING, values=(0.5,), seconds=1.0))
    found = foresee_end(running(trials, planned=20))
    assert found is not None
    assert found.workers == 2
    assert found.stands_on == "6 trials of this study"


def test_slots_that_wait_at_this_moment_make_the_low_end_by_the_clock() -> None:
    trials = (*many(6), *many(1, first=6, outcome=Outcome.RUNNING, values=(0.5,), seconds=1.0))
    snapshot = running(trials, planned=20)
    worker = WorkerRecord(
        worker="w",
        host="box",
        pid=1,
        devices=("cuda:0", "cuda:1", "cuda:2"),
        state="running",
        started_at=0.0,
        seen_at=0.0,
        is_alive=True,
    )
    alone, three = foresee_end(snapshot), foresee_end(replace(snapshot, workers=(worker,)))
    assert alone is not None
    assert three is not None
    assert (alone.workers, three.workers) == (1, 3)
    assert three.hours.low < alone.hours.low
    assert three.hours.high == alone.hours.high
    assert three.device_hours == alone.device_hours


def test_the_line_of_the_report() -> None:
    assert spending_words(running((), planned=9)) == "0.0 s of device time"
    words = spending_words(running(many(10), planned=30, price_per_hour=360.0))
    assert words.startswith("1 min 30 s of device time, cost 9.00; at the end ")
    assert ", cost " in words.partition(";")[2]
