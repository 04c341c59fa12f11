from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import replace

import pytest

from tests.report.samples import START, cut_short, make_finalist, make_snapshot, make_spec, make_study, make_trial
from tuner.report import summarise
from tuner.report.verdict import Basis
from tuner.store.records import (
    ConfirmationRecord,
    FinalistRecord,
    Outcome,
    StudySnapshot,
    StudyState,
    TrialRecord,
)

RECIPE = make_trial(0, strategy="full", values=(0.70, 0.80), is_recipe=True)
BEST = make_trial(1, values=(0.80, 0.95))
GOOD = make_trial(2, strategy="bitfit", values=(0.80, 0.90))


def confirmed(*finalists: FinalistRecord, trials: tuple[TrialRecord, ...] = (RECIPE, BEST, GOOD)) -> StudySnapshot:
    return StudySnapshot(study=make_study(spec=make_spec(), trials=trials), trials=trials, finalists=finalists)


def text_of(snapshot: StudySnapshot) -> str:
    summary = summarise(snapshot)
    return " ".join([summary.headline, *summary.sentences])


def test_a_clear_winner_in_numbers_and_words() -> None:
    summary = summarise(
        confirmed(
            make_finalist(1, rank=1, validation=(0.92, 0.94), accuracy=(0.90, 0.92)),
            make_finalist(2, rank=2, validation=(0.91, 0.91), accuracy=(0.91, 0.91)),
            make_finalist(0, rank=3, validation=(0.78, 0.80), accuracy=(0.70, 0.72), is_baseline=True),
        )
    )
    assert summary.headline == "lora wins: macro_f1 0.9100 on 200 test rows, +0.2000 over the default recipe of full"
    assert summary.test_rows == 200
    assert summary.optimism == pytest.approx(0.95 - 0.91)
    baseline, runner_up = summary.baseline, summary.runner_up
    assert baseline is not None
    assert runner_up is not None
    assert (baseline.other, baseline.rows, baseline.seed_wins, baseline.seed_pairs) == (0, 200, 2, 2)
    assert baseline.difference == pytest.approx(0.20)
    assert baseline.is_clear
    assert baseline.low is not None
    assert 0.08 < baseline.low < 0.20
    assert (runner_up.other, runner_up.difference) == (2, 0.0)
    assert runner_up.probability == pytest.approx(0.5, abs=0.05)
    assert summary.cheaper is not None
    assert summary.cheaper.trial is GOOD
    assert summary.winner_params == {"learning_rate": 8e-4, "batch_size": 16, "weight_decay": 0.01}
    assert summary.fixed_params == {"schedule": "linear", "warmup_ratio": 0.06}
    assert summary.sentences[0] == (
        "Trial 1 (lora) with learning_rate 8e-4, batch_size 16, weight_decay 0.01 has the best mean validation score "
        "over 2 fresh seeds among 3 finalists."
    )
    assert summary.sentences[1] == (
        "On 200 test rows, which the search never saw, it scores macro_f1 0.9100 (mean of 2 seeds, standard deviation 0.0141)."
    )
    assert summary.sentences[2].startswith("Expect 0.9100 (95 % interval 0.")
    assert summary.sentences[2].endswith(" over test rows and seeds: few seeds make it wide).")
    assert summary.sentences[3].startswith(
        "Against the default recipe, trial 0 (full), that is +0.2000 (95 % interval +0."
    )
    assert (
        "over test rows and seeds, corrected for 2 comparisons); taken alone, the probability" in summary.sentences[3]
    )
    assert summary.sentences[4].startswith("It is ahead of the runner-up, trial 2 (bitfit), with probability ")
    assert summary.sentences[4].endswith(": the two cannot be told apart.")
    assert summary.sentences[5:] == (
        "Statistically tied with it at 95 %: trial 2 (bitfit) (Holm's correction for 2 comparisons).",
        "The cheapest of these is trial 2 (bitfit): it trains 4.1 k parameters instead of 12.3 k.",
        "The search claimed 0.9500 on validation; on the test rows fresh seeds say 0.9100: the claim was 0.0400 too good.",
    )
    assert [score.trial.number for score in summary.standing.tied] == [1, 2]
    assert not summary.standing.is_baseline_tied


def test_a_gain_within_the_noise_is_called_so() -> None:
    snapshot = confirmed(
        make_finalist(1, rank=1, validation=(0.92, 0.94), accuracy=(0.90, 0.92)),
        make_finalist(0, rank=2, validation=(0.80, 0.82), accuracy=(0.89, 0.92), is_baseline=True),
    )
    assert "lora wins, but not clearly" in text_of(snapshot)
    assert "not larger than what chance may give" in text_of(snapshot)
    assert "runner-up" not in text_of(snapshot)  # it is the default recipe, of which all is said


@pytest.mark.parametrize(("accuracy", "said"), [(0.6, "It beats the runner-up"), (0.99, "the test rows disagree.")])
def test_a_runner_up_that_is_clearly_off_is_not_called_equal(accuracy: float, said: str) -> None:
    snapshot = confirmed(
        make_finalist(1, rank=1, validation=(0.92, 0.94), accuracy=(0.80, 0.81)),
        make_finalist(2, rank=2, validation=(0.91, 0.93), accuracy=(accuracy, accuracy)),
        make_finalist(0, rank=3, validation=(0.78, 0.80), accuracy=(0.50, 0.52), is_baseline=True),
    )
    assert said in text_of(snapshot)
    assert "told apart" not in text_of(snapshot)


def test_a_claim_is_held_against_the_test_rows() -> None:
    # Fresh validation is above the claim of 0.95, the test rows are below it.
    snapshot = confirmed(make_finalist(1, rank=1, validation=(0.96, 0.98), accuracy=(0.90, 0.92)))
    assert summarise(snapshot).optimism == pytest.approx(0.04)
    assert "fresh seeds say 0.9100: the claim was 0.0400 too good." in text_of(snapshot)


def test_a_winner_that_the_test_rows_contradict_is_called_so() -> None:
    snapshot = confirmed(
        make_finalist(1, rank=1, validation=(0.92, 0.94), accuracy=(0.60, 0.62)),
        make_finalist(0, rank=2, validation=(0.80, 0.82), accuracy=(0.90, 0.91), is_baseline=True),
    )
    assert "the default recipe of full is better on test" in text_of(snapshot)
    assert "prefer the default recipe" in text_of(snapshot)


def test_an_unbeaten_recipe_is_called_so() -> None:
    snapshot = confirmed(
        make_finalist(1, rank=1, validation=(0.85, 0.86), accuracy=(0.8, 0.8)),
        make_finalist(0, rank=2, validation=(0.90, 0.91), accuracy=(0.9, 0.9), is_baseline=True),
    )
    summary = summarise(snapshot)
    assert summary.headline == "The default recipe of full was not beaten: macro_f1 0.9000 on 200 test rows"
    assert summary.baseline is None


def test_a_pruned_recipe_that_wins_has_no_optimism() -> None:
    pruned = make_trial(0, strategy="full", outcome=Outcome.PRUNED, values=(0.4,), is_recipe=True)
    snapshot = confirmed(
        make_finalist(0, rank=2, validation=(0.96, 0.97), is_baseline=True),
        make_finalist(1, rank=1, validation=(0.9, 0.9)),
        trials=(pruned, BEST),
    )
    summary = summarise(snapshot)
    assert summary.winner is not None
    assert summary.winner.trial is pruned
    assert summary.optimism is None


def test_a_recipe_without_any_report_that_wins_is_called_confirmed() -> None:
    pruned = replace(
        make_trial(0, strategy="full", outcome=Outcome.PRUNED, values=(0.4,), is_recipe=True), value=None, epochs=()
    )
    snapshot = confirmed(
        make_finalist(0, rank=2, validation=(0.96, 0.97), is_baseline=True),
        make_finalist(1, rank=1, validation=(0.9, 0.91)),
        trials=(pruned, BEST),
    )
    summary = summarise(snapshot)
    assert summary.headline == ("The default recipe of full was not beaten: macro_f1 0.9650 on validation, fresh seeds")
    assert summary.optimism is None


def test_without_test_rows_validation_is_compared_by_seeds() -> None:
    snapshot = confirmed(
        make_finalist(1, rank=1, validation=(0.92, 0.94, 0.93)),
        make_finalist(0, rank=2, validation=(0.78, 0.79, 0.80), is_baseline=True),
    )
    study = replace(snapshot.study, spec=make_spec(test=False))
    summary = summarise(replace(snapshot, study=study))
    assert (
        summary.headline
        == "lora wins: macro_f1 0.9300 on validation, fresh seeds, +0.1400 over the default recipe of full"
    )
    assert summary.baseline is not None
    assert (summary.baseline.split, summary.baseline.rows) == ("validation", 0)
    assert summary.baseline.probability is not None
    assert summary.baseline.probability > 0.99
    assert summary.baseline.is_clear
    assert "The study has no test rows" in " ".join(summary.sentences)
    assert "on validation; fresh seeds say 0.9300: the claim was 0.0200 too good." in " ".join(summary.sentences)
    assert summary.standing.rows == 0


SETTLED = ("was not beaten", "wins", "beats", "no other finalist did better", "prefer")
BUDGET = "budget of 0.5 device hours is used"


def test_a_recipe_that_alone_was_confirmed_is_not_called_unbeaten() -> None:
    recipe = make_finalist(0, rank=3, validation=(0.90, 0.91), accuracy=(0.9, 0.9), is_baseline=True)
    cut = (
        cut_short(make_finalist(1, rank=1, validation=(0.9, 0.9)), kept=0, reason=BUDGET),
        cut_short(make_finalist(2, rank=2, validation=(0.9, 0.9)), kept=0, reason=BUDGET),
    )
    snapshot = confirmed(*cut, recipe)
    summary = summarise(snapshot)
    assert summary.headline == "The default recipe of full leads, not settled: 2 of 6 re-trainings gave a score"
    assert (
        "The confirmation is incomplete, nothing is settled: 2 of 6 re-trainings gave a score. The others: 4 stopped "
        f"({BUDGET})." in summary.sentences
    )
    assert "is the only one of 3 finalists that has a score with a fresh seed." in summary.sentences[0]
    assert (
        "It is the default recipe itself: whether the search has improved on it is not known yet." in summary.sentences
    )
    assert not [word for word in SETTLED if word in text_of(snapshot)]
    assert summary.comparisons == ()
    assert summary.cheaper is None


def test_a_default_recipe_that_broke_a_constraint_is_named() -> None:
    snapshot = confirmed(make_finalist(1, rank=1, validation=(0.92, 0.94)))
    assert "It was not compared with a default recipe: none was trained again with fresh seeds." in text_of(snapshot)
    why = "peak_memory 20 GB breaks the constraint peak_memory <= 10 GB"
    recipe = make_trial(9, strategy="full", outcome=Outcome.INFEASIBLE, values=(), reason=why, is_recipe=True)
    snapshot = replace(snapshot, trials=(*snapshot.trials[1:], recipe))
    assert f"It was not compared with a default recipe: that of full, trial 9, ended as infeasible ({why})." in text_of(
        snapshot
    )


@pytest.mark.parametrize("outcome", [Outcome.PRUNED, Outcome.ERRORED, Outcome.WAITING])
def test_an_incomplete_confirmation_compares_common_seeds_alone(outcome: Outcome) -> None:
    best = make_finalist(1, rank=1, validation=(0.92, 0.94, 0.93), accuracy=(0.90, 0.92, 0.91))
    recipe = make_finalist(0, rank=2, validation=(0.78, 0.80, 0.99), accuracy=(0.70, 0.74, 0.99), is_baseline=True)
    snapshot = confirmed(best, cut_short(recipe, kept=2, outcome=outcome, reason=BUDGET))
    summary = summarise(snapshot)
    baseline = summary.baseline
    assert baseline is not None
    assert baseline.difference == pytest.approx((0.90 + 0.92) / 2 - (0.70 + 0.74) / 2)
    assert (baseline.seed_wins, baseline.seed_pairs, baseline.rows) == (2, 2, 200)
    # The bootstrap is of these two seeds too: its interval surrounds their difference.
    assert baseline.low is not None
    assert baseline.high is not None
    assert (baseline.low + baseline.high) / 2 == pytest.approx(baseline.difference, abs=0.02)
    assert summary.headline == "lora leads, not settled: 5 of 6 re-trainings gave a score"
    assert "that is +0.1900 with 2 fresh seeds in common (95 % interval" in text_of(snapshot)
    assert not [word for word in SETTLED if word in text_of(snapshot)]


def test_finalists_without_a_common_seed_are_not_compared() -> None:
    best = cut_short(make_finalist(1, rank=1, validation=(0.92, 0.94)), kept=1)
    recipe = make_finalist(0, rank=2, validation=(0.78, 0.80), is_baseline=True)
    recipe = replace(recipe, runs=(cut_short(recipe, kept=0).runs[0], recipe.runs[1]))
    summary = summarise(confirmed(best, recipe))
    assert summary.comparisons == ()
    assert any("they have no fresh seed in common." in sentence for sentence in summary.sentences)


def test_a_confirmation_without_any_score_says_why() -> None:
    cut = cut_short(make_finalist(1, rank=1, validation=(0.9, 0.9)), kept=0, reason=BUDGET)
    summary = summarise(confirmed(cut))
    assert summary.headline == "lora leads with macro_f1 0.9500 on validation, not confirmed"
    assert any(
        f"0 of 2 re-trainings gave a score. The others: 2 stopped ({BUDGET})." in each for each in summary.sentences
    )


def test_one_seed_on_test_rows_is_never_clear() -> None:
    snapshot = confirmed(
        make_finalist(1, rank=1, validation=(0.92,), accuracy=(0.95,)),
        make_finalist(2, rank=2, validation=(0.90,), accuracy=(0.60,)),
        make_finalist(0, rank=3, validation=(0.8,), accuracy=(0.6,), is_baseline=True),
    )
    summary = summarise(snapshot)
    baseline = summary.baseline
    assert baseline is not None
    assert baseline.low is not None
    assert baseline.low > 0.2
    assert baseline.probability is None
    assert not baseline.is_clear
    assert summary.cheaper is None
    assert summary.headline == (
        "lora scores best with one seed, which cannot tell: macro_f1 0.9500 on 200 test rows, +0.3500 against the "
        "default recipe of full"
    )
    text = text_of(snapshot)
    assert "over test rows only, corrected for 2 comparisons)." in text
    assert "over test rows and seeds" not in text
    assert "One seed cannot tell how much of that is the luck of the seed" in text
    assert "Against the runner-up, trial 2 (bitfit), it is +0.3500 with one seed in common" in text
    assert not [word for word in ("probability", *SETTLED) if word in text]


def test_a_recipe_that_is_best_with_one_seed_is_not_called_unbeaten() -> None:
    snapshot = confirmed(
        make_finalist(1, rank=1, validation=(0.8,), accuracy=(0.8,)),
        make_finalist(0, rank=2, validation=(0.9,), accuracy=(0.9,), is_baseline=True),
    )
    assert summarise(snapshot).headline == (
        "The default recipe of full scores best with one seed, which cannot tell: macro_f1 0.9000 on 200 test rows"
    )
    assert "no other finalist did better with the one seed, which cannot tell" in text_of(snapshot)


def test_one_seed_gives_no_probability() -> None:
    snapshot = confirmed(
        make_finalist(1, rank=1, validation=(0.92,)), make_finalist(0, rank=2, validation=(0.8,), is_baseline=True)
    )
    summary = summarise(snapshot)
    assert summary.baseline is not None
    assert summary.baseline.probability is None
    assert "nothing can be said about how sure that is" in " ".join(summary.sentences)


def test_seeds_without_spread_give_no_probability() -> None:
    snapshot = confirmed(
        make_finalist(1, rank=1, validation=(0.95, 0.95)),
        make_finalist(0, rank=2, validation=(0.925, 0.925), is_baseline=True),
    )
    summary = summarise(snapshot)
    assert summary.baseline is not None
    assert (summary.baseline.low, summary.baseline.high, summary.baseline.probability) == (None, None, None)
    assert not summary.baseline.is_clear
    assert summary.headline == (
        "lora scores best, how surely cannot be told: macro_f1 0.9500 on validation, fresh seeds, +0.0250 against the "
        "default recipe of full"
    )
    assert "The seeds do not differ in score, so nothing can be said about how sure that is." in summary.sentences
    assert "%" not in " ".join(summary.sentences)


def test_a_running_confirmation_is_provisional() -> None:
    waiting = ConfirmationRecord(
        seed=1001, outcome=Outcome.WAITING, reason="", metrics={}, test=None, checkpoint="", seconds=0.0
    )
    first = make_finalist(1, rank=1, validation=(0.92,), accuracy=(0.9,))
    snapshot = confirmed(replace(first, runs=(*first.runs, waiting)))
    snapshot = replace(snapshot, study=replace(snapshot.study, state=StudyState.CONFIRMING))
    assert summarise(snapshot).headline == "lora leads; the confirmation has not ended"
    assert "Provisional: 1 of 2 re-trainings have ended." in summarise(snapshot).sentences


@pytest.mark.parametrize("state", list(StudyState))
def test_an_unconfirmed_leader_promises_nothing(state: StudyState) -> None:
    study = make_study(spec=make_spec(), trials=(RECIPE, BEST), state=state, reason="asked for by a person")
    summary = summarise(StudySnapshot(study=study, trials=(RECIPE, BEST), finalists=()))
    assert summary.winner is not None
    assert summary.winner.basis is Basis.SEARCH
    assert "not confirmed" in summary.headline
    assert ("so far" in summary.headline) is (state is not StudyState.FINISHED)
    assert "That is +0.1500 against the best default recipe, trial 0 (full)." in summary.sentences
    assert any("expect a lower one on new data" in sentence for sentence in summary.sentences)


def test_no_complete_trial() -> None:
    failed = make_trial(1, strategy="full", outcome=Outcome.ERRORED, values=(), reason="loss became nan at epoch 1")
    pruned = make_trial(2, outcome=Outcome.PRUNED, values=(0.3,))
    study = make_study(spec=make_spec(), trials=(failed, pruned))
    summary = summarise(StudySnapshot(study=study, trials=(failed, pruned), finalists=()))
    assert summary.headline == "No result: none of 2 trials is complete"
    assert "Trials so far: 1 pruned, 1 errored." in summary.sentences
    assert "1 trial errored: loss became nan at epoch 1." in summary.sentences
    assert any("the pruner compares too early" in sentence for sentence in summary.sentences)


def test_no_trial_at_all() -> None:
    study = make_study(spec=make_spec(), state=StudyState.SEARCHING)
    summary = summarise(StudySnapshot(study=study, trials=(), finalists=()))
    assert summary.headline == "No result yet: no trial has been claimed"
    assert summary.sentences == ("Start a worker: tuner worker start --study reuters-r8",)


def test_a_realistic_study_adds_up() -> None:
    snapshot = make_snapshot()
    summary = summarise(snapshot)
    counts = Counter(trial.outcome.value for trial in snapshot.trials)
    assert summary.counts == snapshot.study.counts
    assert dict(sum((Counter(row.counts) for row in summary.strategies), Counter())) == dict(counts)
    assert sum(row.trials for row in summary.strategies) == len(snapshot.trials) == 30
    assert sum(row.seconds for row in summary.strategies) == pytest.approx(summary.savings.seconds_spent)
    means = {
        finalist.number: statistics.fmean(run.metrics["macro_f1"] for run in finalist.runs)
        for finalist in snapshot.finalists
    }
    assert summary.winner is not None
    assert summary.winner.trial.number == max(means, key=lambda number: means[number])
    for finalist in snapshot.finalists:
        score = next(score for score in summary.finalists if score.trial.number == finalist.number)
        tests = [run.test.metrics["macro_f1"] for run in finalist.runs if run.test is not None]
        assert score.test_mean == pytest.approx(sum(tests) / 3)
        assert score.test_sd == pytest.approx(statistics.stdev(tests))
    assert summary.study.created_at == START
