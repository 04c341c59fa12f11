from __future__ import annotations

import pytest

from tests.report.samples import make_space, make_spec, make_study, make_trial
from tuner.report.comparison import compare_strategies, count_savings, list_trials, searched_params
from tuner.report.verdict import rank_trials
from tuner.store.records import Outcome, StudySnapshot, TrialRecord
from tuner.study.domains import Fixed, Range
from tuner.study.space import SearchSpace, StrategySpace


def snapshot_of(*trials: TrialRecord, epochs: int = 9) -> StudySnapshot:
    study = make_study(spec=make_spec(epochs=epochs), trials=trials)
    return StudySnapshot(study=study, trials=trials, finalists=())


def test_strategies_side_by_side() -> None:
    snapshot = snapshot_of(
        make_trial(0, values=(0.5, 0.7), seconds=2.0, is_recipe=True),
        make_trial(1, values=(0.6, 0.9), seconds=3.0),
        make_trial(2, outcome=Outcome.PRUNED, values=(0.99,), seconds=5.0),
        make_trial(3, strategy="full", outcome=Outcome.INFEASIBLE, values=(), seconds=1.0),
        make_trial(4, strategy="", outcome=Outcome.RUNNING, values=()),
    )
    rows = compare_strategies(snapshot, ranked=rank_trials(snapshot), finalists=())
    by_name = {row.strategy: row for row in rows}
    assert [row.strategy for row in rows] == ["lora", "head", "bitfit", "full", ""]  # the best one first
    lora = by_name["lora"]
    assert lora.best is snapshot.trials[1]
    assert lora.median == pytest.approx(0.8)  # the pruned 0.99 is not a result
    assert lora.recipe == pytest.approx(0.7)
    assert lora.seconds == pytest.approx(2 * 2.0 + 2 * 3.0 + 5.0)
    assert lora.trials == 3
    assert (lora.counts["complete"], lora.counts["pruned"]) == (2, 1)
    assert (by_name["full"].counts["infeasible"], by_name["full"].best) == (1, None)
    assert by_name["head"].trials == 0
    assert by_name[""].counts["running"] == 1


def test_savings_are_the_epochs_that_pruned_trials_did_not_train() -> None:
    snapshot = snapshot_of(
        make_trial(0, values=(0.5,) * 9, seconds=2.0),
        make_trial(1, outcome=Outcome.PRUNED, values=(0.5,), seconds=2.0),
        make_trial(2, outcome=Outcome.PRUNED, values=(0.5,) * 3, seconds=4.0),
    )
    savings = count_savings(snapshot)
    assert (savings.pruned, savings.epochs_trained, savings.epochs_saved) == (2, 4, 8 + 6)
    assert savings.seconds_saved == pytest.approx(8 * 2.0 + 6 * 4.0)
    assert savings.seconds_spent == pytest.approx(18.0 + 2.0 + 12.0)


def test_fixed_values_are_not_searched() -> None:
    trial = make_trial(0)
    assert searched_params(trial, space=make_space()) == {
        "learning_rate": 8e-4,
        "batch_size": 16,
        "weight_decay": 0.01,
    }


def test_a_strategys_own_value_is_told_from_the_shared_one() -> None:
    block = StrategySpace(
        strategy="lora",
        prior=1e-3,
        domains={
            "lora.learning_rate": Range(low=1e-4, high=1e-2, log=True),
            "dropout": Range(low=0.0, high=0.3),
            "lora.dropout": Fixed(value=0.05),
        },
        recipe={},
    )
    trial = make_trial(0, params={"dropout": 0.1, "lora.dropout": 0.05, "learning_rate": 1e-3})
    searched = searched_params(trial, space=SearchSpace(strategies=(block,)))
    assert list(searched.items()) == [("learning_rate", 1e-3), ("dropout", 0.1)]


def test_rows_of_trials() -> None:
    rows = list_trials(snapshot_of(make_trial(1, resumed_at=2), make_trial(0, reason="why")))
    assert [(row.number, row.attempts) for row in rows] == [(0, 1), (1, 2)]
    assert rows[0].note == "why; 2 % of the texts were cut at 128 tokens"
