from __future__ import annotations

from dataclasses import replace

import pytest

from tests.report.samples import make_finalist, make_spec, make_study, make_trial
from tuner.report.verdict import Basis, choose_winner, rank_trials, score_finalists
from tuner.store.records import FinalistRecord, Outcome, StudySnapshot, StudyState, TrialRecord


def snapshot_of(
    *trials: TrialRecord,
    finalists: tuple[FinalistRecord, ...] = (),
    state: StudyState = StudyState.FINISHED,
    maximize: bool = True,
) -> StudySnapshot:
    study = make_study(spec=make_spec(), trials=trials, state=state, maximize=maximize)
    return StudySnapshot(study=study, trials=trials, finalists=finalists)


RECIPE = make_trial(0, strategy="full", values=(0.80,), is_recipe=True)
LUCKY = make_trial(1, values=(0.95,))
SOLID = make_trial(2, values=(0.90,))


def test_fresh_validation_chooses_and_the_test_rows_do_not() -> None:
    snapshot = snapshot_of(
        RECIPE,
        LUCKY,
        SOLID,
        finalists=(
            make_finalist(1, rank=1, validation=(0.84, 0.86), accuracy=(0.99, 0.99)),
            make_finalist(2, rank=2, validation=(0.88, 0.90), accuracy=(0.50, 0.50)),
            make_finalist(0, rank=3, validation=(0.79, 0.81), accuracy=(0.75, 0.75), is_baseline=True),
        ),
    )
    winner = choose_winner(snapshot)
    assert winner is not None
    assert winner.basis is Basis.CONFIRMED
    assert winner.trial is SOLID
    assert winner.claimed == 0.90
    assert winner.score is not None
    assert winner.score.mean == pytest.approx(0.89)
    assert winner.score.sd == pytest.approx(0.0141421356)
    assert winner.runner_up is LUCKY
    assert winner.baseline is RECIPE
    assert [score.trial.number for score in score_finalists(snapshot)] == [2, 1, 0]


def test_equal_means_keep_the_order_of_the_search() -> None:
    finalists = (make_finalist(2, rank=2, validation=(0.9,)), make_finalist(1, rank=1, validation=(0.9,)))
    winner = choose_winner(snapshot_of(LUCKY, SOLID, finalists=finalists))
    assert winner is not None
    assert winner.trial is LUCKY


def test_less_is_better_where_the_metric_is_minimised() -> None:
    finalists = (make_finalist(1, rank=1, validation=(0.4,)), make_finalist(2, rank=2, validation=(0.3,)))
    snapshot = snapshot_of(LUCKY, SOLID, finalists=finalists, maximize=False)
    winner = choose_winner(snapshot)
    assert winner is not None
    assert winner.trial is SOLID
    assert [trial.number for trial in rank_trials(snapshot)] == [2, 1]


def test_an_unfinished_confirmation_is_provisional() -> None:
    done = make_finalist(1, rank=1, validation=(0.84,))
    waiting = replace(make_finalist(2, rank=2, validation=(0.9,)).runs[0], outcome=Outcome.RUNNING, metrics={})
    finalists = (done, FinalistRecord(number=2, rank=2, is_baseline=False, runs=(waiting,)))
    winner = choose_winner(snapshot_of(LUCKY, SOLID, finalists=finalists, state=StudyState.CONFIRMING))
    assert winner is not None
    assert winner.basis is Basis.CONFIRMING
    assert winner.trial is LUCKY
    assert winner.runner_up is None


def test_failed_retrainings_leave_the_search_as_the_only_ground() -> None:
    failed = replace(make_finalist(1, rank=1, validation=(0.9,)).runs[0], outcome=Outcome.FAILED, metrics={})
    finalists = (FinalistRecord(number=1, rank=1, is_baseline=False, runs=(failed,)),)
    winner = choose_winner(snapshot_of(RECIPE, LUCKY, SOLID, finalists=finalists))
    assert winner is not None
    assert winner.basis is Basis.SEARCH
    assert winner.trial is LUCKY
    assert winner.score is None
    assert winner.runner_up is SOLID
    assert winner.baseline is RECIPE


def test_a_recipe_pruned_before_its_first_report_may_win_by_its_fresh_seeds() -> None:
    unreported = make_trial(0, strategy="full", outcome=Outcome.PRUNED, values=(0.80,), is_recipe=True)
    unreported = replace(unreported, value=None, best_epoch=None, epochs=())
    finalists = (
        make_finalist(1, rank=1, validation=(0.84, 0.86)),
        make_finalist(0, rank=2, validation=(0.90, 0.91), is_baseline=True),
    )
    winner = choose_winner(snapshot_of(unreported, LUCKY, finalists=finalists))
    assert winner is not None
    assert winner.basis is Basis.CONFIRMED
    assert winner.trial is unreported
    assert winner.claimed is None
    assert winner.runner_up is LUCKY
    assert winner.score is not None
    assert winner.score.mean == pytest.approx(0.905)


def test_a_pruned_trial_never_wins_the_search() -> None:
    pruned = make_trial(3, outcome=Outcome.PRUNED, values=(0.99,))
    winner = choose_winner(snapshot_of(pruned, SOLID))
    assert winner is not None
    assert winner.trial is SOLID
    assert choose_winner(snapshot_of(pruned)) is None
    assert choose_winner(snapshot_of()) is None
