"""What a report says where the rows are divided into folds."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest

from tests.report.samples import make_finalist, make_spec, make_study, make_trial
from tuner.cli.verdict import verdict_lines
from tuner.report import summarise
from tuner.report.page import render_page
from tuner.report.verdict import score_finalists
from tuner.store.records import FinalistRecord, StudySnapshot
from tuner.study.folds import fold_of, fresh_seed, in_blocks
from tuner.study.spec import StudySpec

TRIALS = (make_trial(0, strategy="full", values=(0.80,), is_recipe=True), make_trial(1, values=(0.95,)))


def spec_of(*, folds: int) -> StudySpec:
    document = make_spec(test=False).model_dump(mode="json", exclude_none=True)
    return StudySpec.model_validate(document | {"data": {**document["data"], "validation": {"folds": folds}}})


def snapshot_of(*finalists: FinalistRecord, folds: int = 5) -> StudySnapshot:
    spec = spec_of(folds=folds)
    with_seeds = [
        replace(one, runs=tuple(replace(run, seed=fresh_seed(spec, at)) for at, run in enumerate(one.runs, start=1)))
        for one in finalists
    ]
    return StudySnapshot(study=make_study(spec=spec, trials=TRIALS), trials=TRIALS, finalists=tuple(with_seeds))


def both(best: tuple[float, ...], base: tuple[float, ...], *, folds: int = 5) -> StudySnapshot:
    return snapshot_of(
        make_finalist(1, rank=1, validation=best),
        make_finalist(0, rank=2, validation=base, is_baseline=True),
        folds=folds,
    )


FOUR = both((0.91, 0.90, 0.93, 0.92), (0.80, 0.81, 0.82, 0.80))


def test_the_verdict_is_told_fold_by_fold() -> None:
    summary = summarise(FOUR)
    told = " ".join(summary.sentences)
    assert summary.headline == "lora wins: macro_f1 0.9150 over 4 folds, +0.1075 over the default recipe of full"
    assert "over 4 folds that judged no trial, with a fresh seed each, among 2 finalists" in told
    assert "on the rows of 4 folds, which judged no trial, it scores macro_f1 0.9150 (mean of 4 seeds" in told
    assert (
        "Of the 5 folds of the training rows the first judged the search. On the others it scores "
        "0.9100 on fold 2, 0.9000 on fold 3, 0.9300 on fold 4 and 0.9200 on fold 5." in told
    )
    assert "over folds: few folds make it wide)" in told
    assert "95 % interval +0.08" in told and "over folds)" in told
    assert "on the other folds fresh seeds say 0.9150: the claim was 0.0350 too good." in told
    assert "seen too" not in told, "the search has seen no such row"
    assert verdict_lines(summary)[0].startswith("expect macro_f1 0.9150 over the folds (95 % interval ")


def test_a_study_without_folds_says_nothing_of_them() -> None:
    trials = (make_finalist(1, rank=1, validation=(0.91, 0.90)), make_finalist(0, rank=2, validation=(0.8, 0.81)))
    study = make_study(spec=make_spec(test=False), trials=TRIALS)
    plain = StudySnapshot(study=study, trials=TRIALS, finalists=trials)
    assert all(not score.folds for score in score_finalists(plain))
    assert "fold" not in " ".join(summarise(plain).sentences)
    assert "Fold by fold" not in render_page(plain)


def test_the_page_has_a_table_of_folds() -> None:
    page = render_page(FOUR)
    table = page[page.index("Fold by fold") :]
    for words in ("fold 2", "fold 5", "0.9300", "0.8200"):
        assert words in table
    assert "fold 1<" not in table


def test_seeds_that_share_a_fold_are_one_block() -> None:
    """Eight seeds on two folds tell no more than the two folds: the interval is that of their means."""
    best, base = (0.90, 0.94) * 4, (0.80, 0.81) * 4
    again, once = (summarise(both(best[:count], base[:count], folds=3)) for count in (8, 2))
    assert again.winner is not None and again.winner.score is not None
    assert again.winner.score.folds == (2, 3) * 4
    assert again.standing.comparisons == once.standing.comparisons
    assert again.standing.comparisons[0].seed_pairs == 2
    assert again.standing.estimate is not None and once.standing.estimate is not None
    assert again.standing.estimate.low == pytest.approx(once.standing.estimate.low)
    assert again.standing.estimate.high == pytest.approx(once.standing.estimate.high)


def test_a_block_is_the_mean_of_its_fold() -> None:
    assert in_blocks([0.1, 0.2, 0.5], places=[3, 2, 3]) == pytest.approx([0.2, 0.3])
    assert in_blocks([0.1, 0.2], places=[7, 1_000_010]) == [0.1, 0.2]
    assert in_blocks([], places=[]) == []
    score = score_finalists(both((0.9, 0.8, 0.7), (0.5, 0.5, 0.5), folds=3))[0]
    assert score.on_fold(2) == pytest.approx(statistics.fmean((0.9, 0.7)))
    assert score.on_fold(4) is None
    assert {fold_of(spec_of(folds=3), seed=seed) for seed in score.seeds} == {2, 3}


def test_the_mean_that_is_told_is_the_one_that_decided() -> None:
    """Three seeds on fold 2 and two on fold 3: the mean of all scores is 0.728, that of the folds 0.71, and it wins by that."""
    steady, wild = (0.80, 0.62) * 2 + (0.80,), (0.90, 0.50) * 2 + (0.90,)
    snapshot = snapshot_of(
        make_finalist(1, rank=1, validation=wild), make_finalist(0, rank=2, validation=steady), folds=3
    )
    summary = summarise(snapshot)
    assert summary.winner is not None and summary.winner.score is not None
    assert summary.winner.trial.number == 0
    assert summary.winner.score.mean == pytest.approx(0.71)
    assert summary.winner.score.sd == pytest.approx(statistics.stdev((0.80, 0.62)))
    text = " ".join(summary.sentences)
    assert "has the best mean validation score over 2 folds that judged no trial, with 5 fresh seeds," in text
    assert "it scores macro_f1 0.7100 (mean of 2 folds, 5 seeds, standard deviation 0.1273)." in text
