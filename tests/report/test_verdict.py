from __future__ import annotations

from dataclasses import replace

import pytest

from tests.report.samples import cut_short, make_finalist, make_spec, make_study, make_trial
from tuner.report import summarise
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


@pytest.mark.parametrize("outcome", [Outcome.PRUNED, Outcome.ERRORED, Outcome.INFEASIBLE, Outcome.WAITING])
@pytest.mark.parametrize("state", [StudyState.FINISHED, StudyState.STOPPED])
def test_a_confirmation_that_lacks_a_score_is_incomplete(outcome: Outcome, state: StudyState) -> None:
    recipe = make_finalist(0, rank=2, validation=(0.79, 0.81), is_baseline=True)
    best = cut_short(make_finalist(1, rank=1, validation=(0.9, 0.9)), kept=0, outcome=outcome, reason="why")
    winner = choose_winner(snapshot_of(RECIPE, LUCKY, finalists=(best, recipe), state=state))
    assert winner is not None
    assert winner.basis is Basis.INCOMPLETE
    assert winner.trial is RECIPE
    assert (winner.planned, winner.scored, winner.runner_up) == (4, 2, None)
    assert len(winner.gaps) == 1
    assert winner.gaps[0].startswith("2 ")
    assert ("(why)" in winner.gaps[0]) is (outcome is not Outcome.WAITING)


def test_a_complete_run_without_the_metric_is_a_gap() -> None:
    best = cut_short(make_finalist(1, rank=1, validation=(0.9, 0.9)), kept=1, outcome=Outcome.COMPLETE, reason="")
    winner = choose_winner(snapshot_of(LUCKY, finalists=(best,)))
    assert winner is not None
    assert winner.basis is Basis.INCOMPLETE
    assert winner.gaps == ("1 without macro_f1",)


def test_runs_that_are_still_to_come_are_no_gaps() -> None:
    best = make_finalist(1, rank=1, validation=(0.9, 0.9, 0.9))
    best = cut_short(cut_short(best, kept=2, outcome=Outcome.WAITING), kept=2, outcome=Outcome.RUNNING)
    for state in (StudyState.CONFIRMING, StudyState.PAUSED):
        winner = choose_winner(snapshot_of(LUCKY, finalists=(best,), state=state))
        assert winner is not None
        assert winner.basis is Basis.CONFIRMING
        assert winner.gaps == ()


def test_finalists_are_ranked_on_the_seeds_that_all_with_a_score_have() -> None:
    lucky = cut_short(make_finalist(1, rank=1, validation=(0.93, 0.5, 0.5)), kept=1)
    solid = make_finalist(2, rank=2, validation=(0.94, 0.86, 0.87))
    none = cut_short(make_finalist(0, rank=3, validation=(0.99,) * 3, is_baseline=True), kept=0)
    snapshot = snapshot_of(RECIPE, LUCKY, SOLID, finalists=(lucky, solid, none))
    assert [score.trial.number for score in score_finalists(snapshot)] == [2, 1, 0]


def test_one_that_lost_most_of_its_seeds_does_not_decide_between_the_others() -> None:
    """By the first seed alone the lucky one is ahead of the recipe."""
    lucky = make_finalist(1, rank=1, validation=(0.905, 0.80, 0.81, 0.80, 0.80))
    recipe = make_finalist(0, rank=2, validation=(0.90, 0.90, 0.91, 0.90, 0.90), is_baseline=True)
    short = cut_short(make_finalist(2, rank=3, validation=(0.99,) * 5), kept=1, outcome=Outcome.ERRORED)
    for finalists in ((lucky, recipe, short), (short, lucky, recipe)):
        scores = score_finalists(snapshot_of(RECIPE, LUCKY, SOLID, finalists=finalists))
        assert [score.trial.number for score in scores] == [0, 1, 2]


def test_one_that_lacks_its_last_seed_is_compared_by_the_others() -> None:
    whole = make_finalist(1, rank=1, validation=(0.80, 0.81, 0.80, 0.99))
    better = cut_short(make_finalist(2, rank=2, validation=(0.85, 0.86, 0.85, 0.0)), kept=3)
    scores = score_finalists(snapshot_of(LUCKY, SOLID, finalists=(whole, better)))
    assert [score.trial.number for score in scores] == [2, 1]


def test_a_recipe_that_lacks_seeds_stays_in_the_comparison() -> None:
    other = make_finalist(1, rank=1, validation=(0.80, 0.81, 0.99, 0.99, 0.99))
    recipe = cut_short(make_finalist(0, rank=2, validation=(0.85, 0.86, 0.0, 0.0, 0.0), is_baseline=True), kept=2)
    scores = score_finalists(snapshot_of(RECIPE, LUCKY, finalists=(other, recipe)))
    assert [score.trial.number for score in scores] == [0, 1]


def test_a_recipe_wins_an_exact_tie_with_one_seed() -> None:
    finalists = (
        make_finalist(1, rank=1, validation=(0.9,)),
        make_finalist(0, rank=2, validation=(0.9,), is_baseline=True),
    )
    scores = score_finalists(snapshot_of(RECIPE, LUCKY, finalists=finalists))
    assert [score.trial.number for score in scores] == [0, 1]


def test_without_a_common_seed_finalists_are_ranked_by_their_own() -> None:
    first = cut_short(make_finalist(1, rank=1, validation=(0.8, 0.5)), kept=1)
    second = make_finalist(2, rank=2, validation=(0.5, 0.9))
    second = replace(second, runs=(cut_short(second, kept=0).runs[0], second.runs[1]))
    assert [score.trial.number for score in score_finalists(snapshot_of(LUCKY, SOLID, finalists=(first, second)))] == [
        2,
        1,
    ]


def test_failed_retrainings_leave_the_search_as_the_only_ground() -> None:
    failed = replace(make_finalist(1, rank=1, validation=(0.9,)).runs[0], outcome=Outcome.ERRORED, metrics={})
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


def test_weights_are_those_of_the_best_retraining_by_the_validation_rows() -> None:
    whole = make_finalist(2, rank=1, validation=(0.88, 0.90, 0.89), accuracy=(0.99, 0.50, 0.70))
    kept = tuple(replace(run, checkpoint=f"folder/{run.seed}") for run in whole.runs)
    winner = choose_winner(snapshot_of(SOLID, finalists=(replace(whole, runs=kept),)))
    assert winner is not None
    assert (winner.weights, winner.weights_seed) == ("folder/1001", 1001)
    searched = choose_winner(snapshot_of(replace(SOLID, checkpoint="folder/search"), finalists=(whole,)))
    assert searched is not None
    assert (searched.weights, searched.weights_seed) == ("folder/search", None)


def with_seeds(number: int, *, rank: int, scores: dict[int, float], planned: int) -> FinalistRecord:
    """A finalist of which the re-trainings with these places gave a score, the others ended in errors; number 0 is the recipe."""
    whole = make_finalist(
        number, rank=rank, validation=tuple(scores.get(at, 0.0) for at in range(planned)), is_baseline=number == 0
    )
    failed = cut_short(whole, kept=0, outcome=Outcome.ERRORED, reason="disk").runs
    return replace(whole, runs=tuple(whole.runs[at] if at in scores else failed[at] for at in range(planned)))


@pytest.mark.parametrize(
    ("best", "recipe", "hopeless"),
    [
        ({0: 0.91, 1: 0.80}, {0: 0.90, 1: 0.90}, {0: 0.5}),
        ({0: 0.91, 1: 0.80, 2: 0.80}, {0: 0.90, 2: 0.90}, {0: 0.5, 1: 0.5}),
        ({0: 0.91, 1: 0.80, 2: 0.90, 3: 0.90, 4: 0.90}, {0: 0.91, 1: 0.91}, {2: 0.5, 3: 0.5, 4: 0.5}),
        ({0: 0.91, 1: 0.80, 2: 0.90}, {0: 0.90, 1: 0.90, 2: 0.91}, {2: 0.5, 3: 0.5, 4: 0.5}),
    ],
)
def test_a_hopeless_finalist_does_not_take_the_default_recipe_out_of_the_comparison(
    best: dict[int, float], recipe: dict[int, float], hopeless: dict[int, float]
) -> None:
    planned = 1 + max({*best, *recipe, *hopeless})
    finalists = (
        with_seeds(1, rank=1, scores=best, planned=planned),
        with_seeds(2, rank=2, scores=hopeless, planned=planned),
        with_seeds(0, rank=3, scores=recipe, planned=planned),
    )
    for chosen in (finalists, finalists[::-1]):
        winner = choose_winner(snapshot_of(RECIPE, LUCKY, SOLID, finalists=chosen))
        assert winner is not None
        assert (winner.trial, winner.basis) == (RECIPE, Basis.INCOMPLETE)


def test_a_recipe_with_one_seed_of_five_defends_nothing() -> None:
    finalists = (
        with_seeds(1, rank=1, scores=dict.fromkeys(range(5), 0.90), planned=5),
        with_seeds(2, rank=2, scores={2: 0.5, 3: 0.5, 4: 0.5}, planned=5),
        with_seeds(0, rank=3, scores={0: 0.91}, planned=5),
    )
    assert [
        score.trial.number for score in score_finalists(snapshot_of(RECIPE, LUCKY, SOLID, finalists=finalists))
    ] == [
        1,
        2,
        0,
    ]


def test_at_the_start_of_a_confirmation_the_first_seed_ranks_all() -> None:
    finalists = (
        with_seeds(1, rank=1, scores={0: 0.80, 1: 0.80}, planned=5),
        with_seeds(2, rank=2, scores={0: 0.85}, planned=5),
        with_seeds(0, rank=3, scores={0: 0.70}, planned=5),
    )
    scores = score_finalists(snapshot_of(RECIPE, LUCKY, SOLID, finalists=finalists, state=StudyState.CONFIRMING))
    assert [score.trial.number for score in scores] == [2, 1, 0]


def test_a_recipe_with_two_seeds_leads_until_another_has_two_of_them() -> None:
    finalists = (
        with_seeds(1, rank=1, scores={0: 0.95}, planned=2),
        with_seeds(0, rank=2, scores={0: 0.90, 1: 0.90}, planned=2),
    )
    snapshot = snapshot_of(RECIPE, LUCKY, SOLID, finalists=finalists)
    assert [score.trial.number for score in score_finalists(snapshot)] == [0, 1]
    said = "leads while no other of 2 finalists has enough fresh seeds in common with it."
    assert summarise(snapshot).sentences[0].endswith(said)


def test_one_that_lost_most_of_its_seeds_does_not_cost_the_best_one_its_evidence() -> None:
    """Four seeds that it shares with the recipe show that it is better, the two that all three share do not."""
    recipe = {0: 0.80, 1: 0.80, 2: 0.80, 3: 0.80}
    best = {at: 0.82 + 0.01 * (at % 2) for at in range(10)}
    short = {0: 0.70, 1: 0.74}
    finalists = tuple(
        with_seeds(number, rank=rank, scores=scores, planned=10)
        for rank, (number, scores) in enumerate([(2, short), (1, best), (0, recipe)], start=1)
    )
    scores = score_finalists(snapshot_of(RECIPE, LUCKY, SOLID, finalists=finalists))
    assert [score.trial.number for score in scores] == [1, 0, 2]
