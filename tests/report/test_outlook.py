"""What a study will have cost, while it runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.report.samples import make_spec, make_study, make_trial
from tuner.report.outlook import foresee_end, spending_words
from tuner.store.records import BudgetUse, Outcome, StudySnapshot, StudyState, TrialRecord, WorkerRecord
from tuner.study.spec import StopWhenSpec


def running(
    trials: tuple[TrialRecord, ...], *, planned: int, strategies: tuple[str, ...] = ("lora",), **budget: Any
) -> StudySnapshot:
    """A study that searches."""
    spec = make_spec(trials=planned)
    spec = spec.model_copy(
        update={
            "budget": spec.budget.model_copy(update=budget),
            "confirm": spec.confirm.model_copy(update={"finalists": 0}),
            "strategies": strategies,
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


def low_and_high(snapshot: StudySnapshot) -> tuple[float, float]:
    """Device seconds that are foreseen."""
    found = foresee_end(snapshot)
    assert found is not None
    return found.device_hours.low * 3600, found.device_hours.high * 3600


def test_one_strategy_says_nothing_of_the_others() -> None:
    both = ("head", "full")
    heads = many(3, strategy="head")
    assert foresee_end(running(heads, planned=20, strategies=both)) is None
    assert foresee_end(running((*heads, *many(1, first=3, strategy="full")), planned=20, strategies=both)) is not None


def test_a_strategy_that_has_not_been_trained_may_be_dear_or_cheap() -> None:
    trials = (*many(2, strategy="head", seconds=9.0), *many(2, first=2, strategy="lora", seconds=9.0))
    known = low_and_high(running(trials, planned=40, strategies=("head", "lora")))
    unseen = low_and_high(running(trials, planned=40, strategies=("head", "lora", "full")))
    assert unseen[0] < known[0]
    assert unseen[1] > 1.4 * known[1]


def loading(trial: TrialRecord, seconds: float) -> TrialRecord:
    """A trial that had to load before its first epoch."""
    epochs = tuple(replace(one, seconds=one.seconds + seconds) for one in trial.epochs)
    return replace(trial, epochs=epochs, seconds=trial.seconds + seconds)


def test_what_the_first_trials_load_is_not_expected_again() -> None:
    """Each loads for ten times as long as it trains; were that so for all, the others would take ten times as long."""
    recipes = many(3, is_recipe=True)
    cold = running((loading(recipes[0], 90.0), *recipes[1:]), planned=30)
    warm = running(recipes, planned=30)
    assert low_and_high(cold)[0] - 90.0 == pytest.approx(low_and_high(warm)[0])
    assert low_and_high(cold)[1] - 90.0 == pytest.approx(low_and_high(warm)[1])
    first = running((loading(recipes[0], 90.0),), planned=30)
    assert low_and_high(first)[0] - 99.0 < 0.5 * low_and_high(running(recipes[:1], planned=30))[1]


def test_trials_that_run_count_with_what_they_may_yet_take() -> None:
    """Those that ended first are those that were stopped first."""
    stopped = many(6, outcome=Outcome.PRUNED, values=(0.5,), seconds=1.0)
    whole = many(2, first=6, is_recipe=True)
    going = many(6, first=8, outcome=Outcome.RUNNING, values=(0.5,), seconds=1.0)
    without = low_and_high(running((*stopped, *whole), planned=60))
    beside = low_and_high(running((*stopped, *whole, *going), planned=66))
    assert beside[0] == pytest.approx(without[0] + 6.0, rel=0.2)
    assert beside[1] > 1.5 * without[1]


def test_pruning_that_sets_in_makes_the_low_end() -> None:
    """Half of the trials were trained to the end, the later half stopped early: the mean of both is no bound."""
    trials = (*many(10), *many(10, first=10, outcome=Outcome.PRUNED, values=(0.5,), seconds=1.0))
    snapshot = running(trials, planned=1020)
    low, high = low_and_high(snapshot)
    assert low < 1000 * 1.0 + 100.0 < 1000 * 5.0 < high
    mixed = [trial for pair in zip(trials[:10], trials[10:], strict=True) for trial in pair]
    assert low_and_high(replace(snapshot, trials=tuple(mixed)))[0] > 2.0 * low


def test_a_trial_that_was_resumed_tells_the_pace_of_its_last_attempt() -> None:
    """Of boxes that are taken away again and again every trial is such a one."""
    values = (0.5, 0.6, 0.7, 0.8)
    plain = many(4, values=values)
    resumed = many(4, values=values, resumed_at=3)
    lost = tuple(
        replace(
            trial,
            epochs=tuple(replace(one, seconds=one.seconds + 20.0 * (one.attempt - 1)) for one in trial.epochs),
            seconds=trial.seconds + 20.0,
        )
        for trial in resumed
    )
    once, twice = (low_and_high(running(trials, planned=40)) for trials in (plain, lost))
    assert once[1] < twice[1] < 4.0 * once[1]  # what was lost once may be lost again
    assert foresee_end(running(many(4, values=values[:2], resumed_at=2), planned=40)) is None


def test_a_search_that_may_end_early_may_cost_nothing_more() -> None:
    """Whatever is left of its budget: with ``stop_when`` the next trial may be the last."""
    whole = running(many(10), planned=30)
    search = whole.study.spec.search.model_copy(update={"stop_when": StopWhenSpec(gain=0.01, trials=5)})
    spec = whole.study.spec.model_copy(update={"search": search})
    early = replace(whole, study=replace(whole.study, spec=spec))
    (low, high), (low_early, high_early) = low_and_high(whole), low_and_high(early)
    assert low_early == pytest.approx(whole.study.used.gpu_seconds)
    assert low_early < low
    assert high_early == high
