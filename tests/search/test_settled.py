"""When a search is told that more of it is not worth its time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import optuna
import pytest

from tests.store.toy import holder, run_out, toy_result, toy_study
from tuner.errors import ConflictError
from tuner.report.summary import summarise
from tuner.search.budget import why_no_new_trial
from tuner.search.driver import StudyDriver
from tuner.search.settled import expected_gain, why_settled
from tuner.store import control
from tuner.store.database import Database
from tuner.store.queries import load_snapshot
from tuner.store.records import StudyRecord, StudyState


def by_subsets(values: Sequence[float], *, ahead: int) -> float:
    """What the closed form stands for, counted out."""
    subsets = list(itertools.combinations(values, len(values) - ahead))
    return max(values) - sum(max(subset) for subset in subsets) / len(subsets)


def test_the_gain_is_what_so_many_trials_brought_on_average() -> None:
    values = [0.9, 0.1, 0.5, 0.7, 0.3, 0.2]  # the best came first: the last two brought nothing
    assert expected_gain(values, ahead=2) == pytest.approx(by_subsets(values, ahead=2))


def test_or_what_the_last_ones_did_bring_if_that_is_more() -> None:
    assert expected_gain([0.1, 0.2, 0.1, 0.2, 0.9], ahead=1) == pytest.approx(0.7)


def test_with_few_trials_nothing_is_said() -> None:
    assert expected_gain([0.5] * 9, ahead=5) == math.inf
    assert expected_gain([0.5] * 10, ahead=5) == 0.0


def test_of_random_draws_the_estimate_is_not_too_low() -> None:
    draws = np.random.default_rng(0).random((300, 60))
    expected = [expected_gain(row[:40].tolist(), ahead=20) for row in draws]
    true = draws.max(axis=1) - draws[:, :40].max(axis=1)
    assert true.mean() < np.mean(expected) < 4 * true.mean()


def study_of(values: Sequence[float], *, direction: Literal["minimize", "maximize"]) -> optuna.Study:
    study = optuna.create_study(direction=direction)
    for value in values:
        study.tell(study.ask(), value)
    return study


def test_of_a_loss_less_is_more() -> None:
    values = [0.5, 0.4, 0.4, 0.41, 0.42, 0.43]
    falling = study_of(values, direction="minimize")
    assert why_settled(falling, gain=0.0005, trials=2, metric="loss") == ""
    reason = why_settled(falling, gain=0.05, trials=2, metric="loss")
    assert reason == "2 more trials are expected to lower loss by 0.00067, less than 0.05 (judged by the 6 that ended)"


def test_a_trial_that_could_not_run_and_one_that_said_nothing_are_not_judged_by() -> None:
    study = study_of([0.5, 0.5, 0.5], direction="maximize")
    broken = study.ask()
    broken.report(99.0, 1)
    broken.set_constraint("runs", 1.0)
    study.tell(broken, state=optuna.trial.TrialState.PRUNED)
    study.tell(study.ask(), state=optuna.trial.TrialState.PRUNED)
    pruned = study.ask()
    pruned.report(0.4, 1)
    study.tell(pruned, state=optuna.trial.TrialState.PRUNED)
    assert "judged by the 4 that ended" in why_settled(study, gain=0.1, trials=2, metric="f1")


@pytest.mark.parametrize(("gain", "trials"), [(0.05, 6), (0.001, 12)])
def test_a_study_ends_when_it_is_settled(tmp_path: Path, gain: float, trials: int) -> None:
    """Each trial is a little better than the one before: what is too little is the user's to say."""
    with Database.open(f"sqlite:///{tmp_path / 'tuner.db'}", create=True) as db:
        search = {"stop_when": {"gain": gain, "trials": 3}, "pruner": "none"}
        toy_study(db, search=search, budget={"trials": 12}, confirm={"finalists": 0})
        driver = StudyDriver(db, name="toy")
        while (lease := driver.claim(holder())) is not None:
            driver.finish(lease, result=toy_result(0.5 + 0.01 * lease.number, epochs=3))
        study = driver.advance()
        assert study.state is StudyState.FINISHED
        assert len(load_snapshot(db, "toy").trials) == trials
        assert study.state_reason.startswith("3 more trials are expected to raise f1 by 0.03, ") is (trials < 12)


def test_a_study_that_settled_says_so_to_its_end_and_goes_on_when_it_is_resumed(tmp_path: Path) -> None:
    def serve(driver: StudyDriver) -> StudyRecord:
        while driver.advance().state.is_open:
            lease = driver.claim(holder())
            assert lease is not None
            driver.finish(lease, result=toy_result(0.5 + 0.01 * lease.number, epochs=3))
        return driver.study

    with Database.open(f"sqlite:///{tmp_path / 'tuner.db'}", create=True) as db:
        search = {"stop_when": {"gain": 0.05, "trials": 3}, "pruner": "none"}
        toy_study(db, search=search, budget={"trials": 9}, confirm={"finalists": 1, "seeds": 1})
        at_work = StudyDriver(db, name="toy")
        early = serve(at_work)
        assert early.used.trials == 6
        assert early.state_reason.startswith(
            "finalists are confirmed; the search ended early: 3 more trials are expected to raise f1 by 0.03, "
        )
        told = summarise(load_snapshot(db, "toy")).sentences[-1]
        assert told.startswith("The search ended early, after 6 of 9 trials: 3 more trials are expected to raise f1 ")
        with pytest.raises(ConflictError, match=r"does not search any more - .*; tuner study resume toy$"):
            control.enqueue(db, "toy", strategy="full", values={}, who="anna@box", quota=why_no_new_trial)
        assert control.resume(db, "toy", who="anna@box").state is StudyState.SEARCHING
        later = serve(at_work)  # a worker that knew the study before asks for no early end any more
        assert (later.used.trials, later.state_reason) == (9, "finalists are confirmed")
        assert not any("ended early" in text for text in summarise(load_snapshot(db, "toy")).sentences)
        with pytest.raises(ConflictError, match="raise its budget: tuner study set toy --trials 19"):
            control.resume(db, "toy", who="anna@box")


def test_an_early_end_that_was_taken_back_is_nobodys_reason_to_end_the_search_again(tmp_path: Path) -> None:
    with Database.open(f"sqlite:///{tmp_path / 'tuner.db'}", create=True) as db:
        search = {"stop_when": {"gain": 0.05, "trials": 3}, "pruner": "none"}
        toy_study(db, search=search, budget={"trials": 9})
        other = StudyDriver(db, name="toy")  # of another worker, which has read the study before
        driver = StudyDriver(db, name="toy")
        for _ in range(6):
            lease = driver.claim(holder())
            assert lease is not None
            driver.finish(lease, result=toy_result(0.5, epochs=3))
        assert driver.advance().state is StudyState.FINISHED
        control.resume(db, "toy", who="anna@box")
        for _ in range(3):
            lease = other.claim(holder())
            assert lease is not None
            other.finish(lease, result=toy_result(0.5, epochs=3))
        assert other.advance().state_reason == "budget of 9 trials is used"


def test_advice_for_more_names_the_limit_that_ended_the_search(tmp_path: Path) -> None:
    with Database.open(f"sqlite:///{tmp_path / 'tuner.db'}", create=True) as db:
        toy_study(db, budget={"trials": 40, "epochs": 6}, search={"pruner": "none"})
        driver = StudyDriver(db, name="toy")
        run_out(driver)
        with pytest.raises(ConflictError, match="tuner study set toy --epochs 36"):
            control.resume(db, "toy", who="anna@box")
