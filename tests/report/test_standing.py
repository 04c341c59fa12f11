"""How the finalists stand: what is told, what is tied, what fell out of the race."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.report.samples import cut_short, make_finalist, make_spec, make_study, make_test_score, make_trial
from tuner.cli.verdict import verdict_document, verdict_lines
from tuner.report import summarise
from tuner.report.verdict import choose_winner, score_finalists
from tuner.store.records import OUT_OF_THE_RACE, FinalistRecord, Outcome, StudySnapshot, StudyState

RECIPE = make_trial(0, strategy="full", values=(0.80,), is_recipe=True)
LORA = make_trial(1, values=(0.95,))
BITFIT = make_trial(2, strategy="bitfit", values=(0.93,))
LAST = make_trial(3, strategy="bitfit", values=(0.92,))
SMALL = replace(LAST, trainable_params=5)

BEST = make_finalist(1, rank=1, validation=(0.91, 0.90, 0.92))
NEAR = make_finalist(2, rank=2, validation=(0.90, 0.92, 0.90))
BASE = make_finalist(0, rank=4, validation=(0.80, 0.81, 0.79), is_baseline=True)


def snapshot_of(*finalists: FinalistRecord) -> StudySnapshot:
    trials = (RECIPE, LORA, BITFIT, LAST)
    return StudySnapshot(
        study=make_study(spec=make_spec(test=False), trials=trials), trials=trials, finalists=finalists
    )


def minimised(snapshot: StudySnapshot) -> StudySnapshot:
    """The same study with a metric of which less is better."""
    return replace(snapshot, study=replace(snapshot.study, maximize=False))


def dropped(number: int, *, rank: int, validation: tuple[float, ...], planned: int = 3) -> FinalistRecord:
    """A finalist that fell out of the race after these scores."""
    whole = make_finalist(number, rank=rank, validation=validation + (0.0,) * (planned - len(validation)))
    runs = [
        replace(run, outcome=Outcome.PRUNED, reason=f"{OUT_OF_THE_RACE}: far behind", metrics={})
        if place >= len(validation)
        else run
        for place, run in enumerate(whole.runs)
    ]
    return replace(whole, runs=tuple(runs))


def with_held_back(finalist: FinalistRecord, *, right: tuple[int, ...]) -> FinalistRecord:
    """The finalist scored on 200 held back rows: so many of each class are right."""
    truth = (0,) * 100 + (1,) * 100
    runs = [
        replace(
            run,
            held_back=make_test_score(
                truth, (0,) * hits + (1,) * (100 - hits) + (1,) * hits + (0,) * (100 - hits), labels=("a", "b")
            ),
        )
        for run, hits in zip(finalist.runs, right, strict=True)
    ]
    return replace(finalist, runs=tuple(runs))


def test_who_cannot_be_told_apart_is_tied_and_the_cheapest_is_named() -> None:
    summary = summarise(snapshot_of(BEST, NEAR, BASE))
    standing = summary.standing
    assert [score.trial.number for score in standing.tied] == [1, 2]
    assert standing.cheapest is not None
    assert standing.cheapest.trial is BITFIT
    assert not standing.is_baseline_tied
    assert [comparison.is_settled for comparison in standing.comparisons] == [False, True]
    assert {comparison.claims for comparison in standing.comparisons} == {2}
    document = verdict_document(summary)
    assert document is not None
    assert (document["tied"], document["cheapest"], document["default_recipe_is_tied"]) == ([1, 2], 2, False)
    assert "statistically tied with it: trial 2 (bitfit)" in verdict_lines(summary)


def test_of_equal_size_the_faster_one_is_cheapest() -> None:
    trials = (RECIPE, replace(LORA, trainable_params=4096, seconds=9.0), replace(BITFIT, trainable_params=4096), LAST)
    summary = summarise(replace(snapshot_of(BEST, NEAR, BASE), trials=trials))
    assert summary.standing.cheapest is not None
    assert summary.standing.cheapest.trial.number == 2


def test_the_number_that_is_told_was_not_chosen_for_its_luck() -> None:
    lucky = make_finalist(1, rank=1, validation=(0.99, 0.90, 0.90))
    steady = make_finalist(2, rank=2, validation=(0.91, 0.92, 0.92))
    summary = summarise(snapshot_of(lucky, steady))
    assert summary.winner is not None
    assert summary.winner.trial is LORA  # its mean is 0.93
    assert summary.standing.estimate is not None
    # Without its lucky seed the other one is best, and is what counts there.
    assert summary.standing.estimate.value == pytest.approx((0.91 + 0.90 + 0.90) / 3)
    assert summary.optimism == pytest.approx(0.95 - summary.standing.estimate.value)
    assert "its mean less the luck that it was chosen for" in " ".join(summary.sentences)


def test_what_is_told_of_the_winner_and_of_its_lead_fit_together() -> None:
    lucky = make_finalist(1, rank=1, validation=(0.99, 0.90, 0.90))
    steady = make_finalist(2, rank=2, validation=(0.91, 0.92, 0.92))
    base = make_finalist(0, rank=4, validation=(0.50, 0.41, 0.41), is_baseline=True)
    summary = summarise(snapshot_of(lucky, steady, base))
    # Its mean is 0.93; by the other seeds' choice 0.9033, and the recipe's mean is 0.44.
    assert (
        summary.headline
        == "lora wins: macro_f1 0.9033 on validation, fresh seeds, +0.4633 over the default recipe of full"
    )
    assert (
        "Against the default recipe, trial 0 (full), expect +0.4633; the means differ by +0.4900 (95 % interval"
        in " ".join(summary.sentences)
    )
    document = verdict_document(summary)
    assert document is not None
    expected = {each["number"]: (each["difference"], each["expected"]) for each in document["comparisons"]}
    assert expected[0] == pytest.approx((0.49, 0.4633), abs=1e-4)


def test_an_incomplete_tie_says_that_nobody_was_clearly_beaten() -> None:
    base = make_finalist(0, rank=4, validation=(0.905, 0.915, 0.89), is_baseline=True)
    summary = summarise(snapshot_of(cut_short(BEST, kept=2), base))
    assert summary.winner is not None
    assert (summary.winner.trial, summary.winner.basis.value, summary.winner.is_tie) == (RECIPE, "incomplete", False)
    ahead = make_finalist(1, rank=1, validation=(0.93, 0.90, 0.92))
    tied = summarise(snapshot_of(cut_short(ahead, kept=2), base))
    assert tied.winner is not None
    assert (tied.winner.trial, tied.winner.basis.value, tied.winner.is_tie) == (RECIPE, "incomplete", True)
    said = "is not clearly beaten by any other among the 2 of 2 finalists that can be compared, over the 2 fresh seeds in common."
    assert tied.sentences[0].endswith(said)


def test_a_cancelled_retraining_is_no_gap() -> None:
    out = dropped(3, rank=3, validation=(0.70, 0.71))
    summary = summarise(snapshot_of(BEST, NEAR, out, BASE))
    winner = summary.winner
    assert winner is not None
    assert (winner.basis.value, winner.planned, winner.scored, winner.gaps) == ("confirmed", 11, 11, ())
    assert [score.trial.number for score in summary.finalists] == [1, 2, 0, 3]
    assert 3 not in [score.trial.number for score in summary.standing.tied]
    assert (
        "Out of the race before its end: trial 3 (bitfit) after 2 seeds; 1 re-training was cancelled."
        in summary.sentences
    )
    # Those in the race are ranked by all of their three seeds, not by the two that the dropped one has.
    assert summary.standing.against(2).seed_pairs == 3  # type: ignore[union-attr]
    assert summary.standing.against(3).seed_pairs == 2  # type: ignore[union-attr]


def test_a_tie_goes_to_the_default_recipe() -> None:
    base = make_finalist(0, rank=4, validation=(0.905, 0.915, 0.89), is_baseline=True)
    snapshot = snapshot_of(BEST, base)
    winner = choose_winner(snapshot)
    assert winner is not None
    assert winner.trial is RECIPE
    assert winner.is_tie
    summary = summarise(snapshot)
    assert summary.headline.startswith("The default recipe of full was not clearly beaten: ")
    text = " ".join(summary.sentences)
    assert "is better with less than 97.5 % probability, and a tie goes to the recipe" in text
    assert "was not clearly beaten over 3 fresh seeds by any other of 2 finalists." in text
    assert "The runner-up, trial 1 (lora), is ahead of it with probability 67 %: the two cannot be told apart." in text
    assert "best mean" not in summary.sentences[0]  # which another one has
    assert "the runner-up, trial 1 (lora), is ahead of it with probability 67 %" in verdict_lines(summary)
    assert summary.standing.is_baseline_tied


def test_a_lead_that_a_few_rows_make_does_not_beat_the_default_recipe() -> None:
    """A hundredth with every seed alike is sure as far as seeds go; it is two rows of 200."""
    leader = with_held_back(BEST, right=(88, 88, 88))
    base = with_held_back(make_finalist(0, rank=4, validation=(0.8, 0.8, 0.8), is_baseline=True), right=(87, 87, 87))
    few = snapshot_of(leader, base)
    assert [score.trial.number for score in score_finalists(few)] == [0, 1]
    assert "was not clearly beaten" in summarise(few).headline
    far = snapshot_of(with_held_back(BEST, right=(99, 99, 99)), base)
    assert [score.trial.number for score in score_finalists(far)] == [1, 0]


def test_who_left_the_race_without_being_clearly_behind_is_tied_but_not_recommended() -> None:
    out = dropped(3, rank=3, validation=(0.90, 0.89))
    summary = summarise(replace(snapshot_of(BEST, NEAR, out, BASE), trials=(RECIPE, LORA, BITFIT, SMALL)))
    assert [score.trial.number for score in summary.standing.tied] == [1, 2, 3]
    assert summary.standing.cheapest is not None
    assert summary.standing.cheapest.trial.number == 2  # the third one is smaller
    text = " ".join(summary.sentences)
    assert "among 3 of 4 finalists, which finished the race." in text
    assert "trial 3 (bitfit) (by the 2 seeds that it has)" in text
    assert "The cheapest of these that finished the race is trial 2 (bitfit)" in text
    assert "the cheapest of these that finished the race: trial 2 (bitfit)" in verdict_lines(summary)


def test_the_winner_is_the_best_of_those_that_beat_the_default_recipe() -> None:
    wild = make_finalist(1, rank=1, validation=(0.99, 0.80, 0.99))
    base = make_finalist(0, rank=4, validation=(0.76, 0.76, 0.76), is_baseline=True)
    steady = make_finalist(2, rank=2, validation=(0.92, 0.92, 0.92))
    summary = summarise(snapshot_of(wild, steady, base))
    assert [score.trial.number for score in summary.finalists] == [2, 1, 0]
    assert "has of those that beat the default recipe the best mean validation score" in summary.sentences[0]


def test_held_back_rows_choose_where_all_have_them() -> None:
    one = with_held_back(BEST, right=(80, 81, 80))
    two = with_held_back(NEAR, right=(90, 92, 91))
    summary = summarise(snapshot_of(one, two))
    assert summary.winner is not None
    assert summary.winner.trial is BITFIT
    assert (summary.standing.split, summary.standing.rows) == ("held-back", 200)
    comparison = summary.standing.against(1)
    assert comparison is not None
    assert (comparison.split, comparison.rows) == ("held-back", 200)
    assert comparison.difference == pytest.approx(0.91 - 0.8033, abs=1e-3)
    assert "on 200 validation rows that were held back from the search" in " ".join(summary.sentences)
    partly = score_finalists(snapshot_of(one, NEAR))
    assert [score.trial.number for score in partly] == [1, 2]  # by the validation rows, which both have
    assert not any(score.held_back for score in partly)


def test_the_rows_widen_what_the_seeds_alone_would_say() -> None:
    one, two = with_held_back(BEST, right=(90, 90, 91)), with_held_back(NEAR, right=(90, 90, 90))
    estimate = summarise(snapshot_of(one, two)).standing.estimate
    assert estimate is not None
    assert estimate.low is not None
    assert estimate.high is not None
    assert estimate.high - estimate.low > 2 * 1.9 * (0.9 * 0.1 / 200) ** 0.5


def test_one_that_left_the_race_ahead_of_the_recipe_is_named_and_tied() -> None:
    """Two others were better still and went on; both fell behind the recipe."""
    trials = (RECIPE, LORA, BITFIT, LAST)
    finalists = (
        make_finalist(1, rank=1, validation=(0.84, 0.835, 0.76, 0.75, 0.76)),
        make_finalist(2, rank=2, validation=(0.835, 0.84, 0.77, 0.76, 0.75)),
        dropped(3, rank=3, validation=(0.830, 0.831), planned=5),
        make_finalist(0, rank=4, validation=(0.80, 0.802, 0.80, 0.80, 0.80), is_baseline=True),
    )
    summary = summarise(replace(snapshot_of(*finalists), trials=trials))
    assert summary.headline.startswith("The default recipe of full was not beaten by any that finished the race: ")
    text = " ".join(summary.sentences)
    assert "no other finalist that finished the race did better with fresh seeds." in text
    said = "Trial 3 (bitfit) left the race for others; by the 2 seeds that it has it is +0.0295 against the recipe."
    assert said in text
    assert "Tied with it or better at 95 %: " in text
    assert "trial 3 (bitfit) (clearly better by the 2 seeds that it has)" in text
    assert 3 in [score.trial.number for score in summary.standing.tied]
    assert "tied with it or better: " in " ".join(verdict_lines(summary))
    assert summary.standing.cheapest is not None
    assert summary.standing.cheapest.trial.number != 3


def test_one_that_left_the_race_behind_the_recipe_is_not_said_to_be_ahead() -> None:
    out = dropped(3, rank=3, validation=(0.70, 0.71))
    base = make_finalist(0, rank=4, validation=(0.95, 0.96, 0.95), is_baseline=True)
    for snapshot in (snapshot_of(BEST, NEAR, out, base),):
        summary = summarise(snapshot)
        assert summary.headline.startswith("The default recipe of full was not beaten: ")
        assert "left the race" not in " ".join(summary.sentences)
    less = make_finalist(0, rank=4, validation=(0.60, 0.61, 0.60), is_baseline=True)
    summary = summarise(minimised(snapshot_of(BEST, NEAR, out, less)))
    assert summary.headline.startswith("The default recipe of full was not beaten: ")
    assert "left the race" not in " ".join(summary.sentences)


def test_a_tie_with_a_minimised_metric_is_one_with_the_lower_mean() -> None:
    noisy = make_finalist(1, rank=1, validation=(0.30, 0.40, 0.31))
    base = make_finalist(0, rank=4, validation=(0.35, 0.34, 0.36), is_baseline=True)
    tied, best = choose_winner(minimised(snapshot_of(noisy, base))), choose_winner(snapshot_of(noisy, base))
    assert tied is not None and best is not None
    assert (tied.trial, tied.is_tie) == (RECIPE, True)
    assert (best.trial, best.is_tie) == (RECIPE, False)


def test_the_weights_of_a_minimised_metric_are_those_of_the_lowest_score() -> None:
    kept = replace(BEST, runs=tuple(replace(run, checkpoint=f"folder/{run.seed}") for run in BEST.runs))
    winner = choose_winner(minimised(snapshot_of(kept)))
    assert winner is not None
    assert (winner.weights, winner.weights_seed) == ("folder/1001", 1001)


def test_the_best_mean_of_a_minimised_metric_is_the_lowest() -> None:
    low = make_finalist(1, rank=1, validation=(0.30, 0.31, 0.30))
    high = make_finalist(2, rank=2, validation=(0.41, 0.40, 0.40))
    base = make_finalist(0, rank=4, validation=(0.80, 0.81, 0.79), is_baseline=True)
    summary = summarise(minimised(snapshot_of(low, high, base)))
    assert summary.winner is not None
    assert summary.winner.trial is LORA
    assert "has the best mean validation score over 3 fresh seeds" in summary.sentences[0]


def test_rows_are_drawn_over_the_seeds_that_two_share() -> None:
    """The dropped one has two seeds; on the third the winner errs on rows of its own, which is nothing to that pair."""
    best = with_held_back(BEST, right=(90, 90, 50))
    out = dropped(3, rank=3, validation=(0.90, 0.89))
    scored = with_held_back(make_finalist(3, rank=3, validation=(0.90, 0.89, 0.0)), right=(80, 80, 80))
    runs = tuple(
        replace(run, held_back=held.held_back) if run.metrics else run
        for run, held in zip(out.runs, scored.runs, strict=True)
    )
    standing = summarise(snapshot_of(best, replace(out, runs=runs))).standing
    comparison = standing.against(3)
    assert comparison is not None
    assert (comparison.seed_pairs, comparison.rows) == (2, 200)
    assert comparison.low is not None and comparison.high is not None
    alone = summarise(
        snapshot_of(
            replace(best, runs=best.runs[:2]),
            replace(scored, runs=scored.runs[:2]),
        )
    ).standing.comparisons[0]
    assert alone.low is not None
    assert comparison.difference == pytest.approx(0.1)
    assert comparison.low == pytest.approx(alone.low)


@pytest.mark.parametrize("count", [0, 2])
def test_a_study_that_searches_again_says_so(count: int) -> None:
    snapshot = snapshot_of(BEST, BASE)
    counts = {**snapshot.study.counts, "running": count}
    study = replace(snapshot.study, state=StudyState.SEARCHING, counts=counts, finished_at=None)
    summary = summarise(replace(snapshot, study=study))
    assert summary.headline == "lora leads so far, the search goes on: macro_f1 0.9100 on validation, fresh seeds"
    under_way = ": 2 trials under way" if count else ""
    said = f"Provisional: the search goes on after this confirmation{under_way}; what it finds is compared with these."
    assert said in summary.sentences
    assert verdict_lines(summary)[0] == "the search goes on: what it finds is compared with this"
    assert "the search goes on" not in " ".join(summarise(snapshot).sentences)


def test_a_recipe_that_leads_a_confirmation_is_called_the_recipe() -> None:
    leader = make_finalist(1, rank=1, validation=(0.91, 0.92, 0.90))
    base = cut_short(
        make_finalist(0, rank=4, validation=(0.90, 0.93, 0.0), is_baseline=True), kept=2, outcome=Outcome.WAITING
    )
    snapshot = snapshot_of(leader, base)
    summary = summarise(replace(snapshot, study=replace(snapshot.study, state=StudyState.CONFIRMING)))
    assert summary.headline == "The default recipe of full leads; the confirmation has not ended"


def test_with_one_seed_in_common_the_winner_is_told_by_all_that_it_has() -> None:
    """Without a recipe to defend the one common seed ranks them; what is told is no score that was picked alone."""
    first = cut_short(make_finalist(1, rank=1, validation=(0.91, 0.80, 0.0)), kept=2)
    second = cut_short(make_finalist(2, rank=2, validation=(0.50, 0.0, 0.0)), kept=1)
    estimate = summarise(snapshot_of(first, second)).standing.estimate
    assert estimate is not None
    assert estimate.value == pytest.approx(0.855)


def test_no_interval_goes_beyond_what_a_metric_can_be() -> None:
    wild = make_finalist(1, rank=1, validation=(0.99, 0.60))
    base = make_finalist(0, rank=4, validation=(0.10, 0.50), is_baseline=True)
    summary = summarise(snapshot_of(wild, base))
    assert summary.standing.estimate is not None
    assert (summary.standing.estimate.low, summary.standing.estimate.high) == (0.0, 1.0)
    comparison = summary.standing.comparisons[0]
    assert comparison.low == -1.0
    assert comparison.high == 1.0
