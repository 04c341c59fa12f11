"""Metrics of probabilities: the luck of the rows counts where it is known, else seeds alone do not beat the default recipe."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.report.samples import make_finalist, make_spec, make_study, make_test_score, make_trial
from tuner.cli.verdict import verdict_lines
from tuner.report import summarise
from tuner.report.verdict import score_finalists
from tuner.store.records import FinalistRecord, StudySnapshot
from tuner.study.spec import StudySpec
from tuner.tasks.classification import auc_by_row

ROWS = 200
TRUTH = (0,) * (ROWS // 2) + (1,) * (ROWS // 2)


def snapshot_of(*finalists: FinalistRecord, metric: str) -> StudySnapshot:
    document = make_spec(test=False).model_dump(mode="json", exclude_none=True)
    maximize = metric != "loss"
    goal = "maximize" if maximize else "minimize"
    spec = StudySpec.model_validate(document | {"objective": {"metric": metric, "goal": goal}})
    trials = tuple(
        make_trial(finalist.number, strategy="full" if finalist.is_baseline else "lora", values=(0.5,))
        for finalist in sorted(finalists, key=lambda finalist: finalist.number)
    )
    return StudySnapshot(
        study=make_study(spec=spec, trials=trials, maximize=maximize), trials=trials, finalists=finalists
    )


def finalist_of(
    number: int, parts: np.ndarray, *, metric: str, split: str = "held_back", keeps_rows: bool = True
) -> FinalistRecord:
    """A finalist of which every row of ``parts``, (seeds, rows), has the metric as its mean; number 0 is the recipe."""
    scores = tuple(float(value) for value in parts.mean(axis=1))
    whole = make_finalist(number, rank=number + 1, validation=scores, is_baseline=number == 0)
    unseen = make_test_score(TRUTH, TRUTH, labels=("a", "b"))
    runs = []
    for run, score, row in zip(whole.runs, scores, parts, strict=True):
        its = replace(unseen, metrics={metric: score}, by_row=tuple(row.tolist()) if keeps_rows else ())
        runs.append(replace(run, metrics={metric: score}, **{split: its}))  # type: ignore[arg-type]
    return replace(whole, runs=tuple(runs))


def losses(*, lead: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Of a recipe and of one that is better by ``lead`` on average: rows differ much, seeds hardly."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(2, 1, ROWS))
    rows -= rows.mean(axis=2, keepdims=True)
    parts = 0.5 + 0.3 * rows + np.array([0.0, -lead])[:, None, None] + 0.002 * rng.normal(size=(2, 5, ROWS))
    return parts[0], parts[1]


def test_a_lead_that_other_rows_would_turn_does_not_beat_the_default_recipe() -> None:
    """Over seeds it is 30 standard errors; over rows not one."""
    base, best = losses(lead=0.01)
    snapshot = snapshot_of(finalist_of(1, best, metric="loss"), finalist_of(0, base, metric="loss"), metric="loss")
    assert [score.trial.number for score in score_finalists(snapshot)] == [0, 1]
    summary = summarise(snapshot)
    assert summary.winner is not None
    assert summary.winner.is_tie
    assert summary.standing.is_row_luck_counted
    assert "a tie goes to the recipe" in " ".join(summary.sentences)
    base, best = losses(lead=0.2)
    far = snapshot_of(finalist_of(1, best, metric="loss"), finalist_of(0, base, metric="loss"), metric="loss")
    assert [score.trial.number for score in score_finalists(far)] == [1, 0]
    assert "over rows and seeds)" in " ".join(summarise(far).sentences)


def test_results_without_parts_by_row_leave_the_default_recipe_and_say_why() -> None:
    base, best = losses(lead=0.2)
    finalists = [finalist_of(at, parts, metric="loss", keeps_rows=False) for at, parts in enumerate((base, best))]
    summary = summarise(snapshot_of(*finalists, metric="loss"))
    assert [score.trial.number for score in summary.finalists] == [0, 1]
    text = " ".join(summary.sentences)
    assert summary.headline == "The default recipe of full was not clearly beaten: loss 0.5000 on 200 held back rows"
    assert "what other held back rows would do to loss is not known" in text
    assert "over seeds, on these same rows" in text
    assert "rows and seeds" not in text
    assert "trial 1 (lora) (better, rows not counted)" in text
    assert "over seeds, on these same rows" in verdict_lines(summary)[0]
    assert "tied with it or better: trial 1 (lora) (better)" in verdict_lines(summary)


@pytest.mark.parametrize("keeps_rows", [True, False])
def test_an_interval_on_test_rows_says_whether_they_were_drawn(keeps_rows: bool) -> None:
    base, best = losses(lead=0.2)
    finalists = [
        finalist_of(at, parts, metric="loss", split="test", keeps_rows=keeps_rows)
        for at, parts in enumerate((base, best))
    ]
    summary = summarise(snapshot_of(*finalists, metric="loss"))
    assert ("over test rows and seeds" in " ".join(summary.sentences)) is keeps_rows
    assert ("over seeds, on these same test rows" in " ".join(summary.sentences)) is not keeps_rows
    estimate = summary.standing.estimate
    assert estimate is not None and estimate.low is not None and estimate.high is not None
    assert (estimate.high - estimate.low > 4 * 0.3 / ROWS**0.5 * 0.9) is keeps_rows


def test_a_minimised_metric_is_told_as_lower() -> None:
    base, best = losses(lead=0.2)
    finalists = [finalist_of(at, parts, metric="loss", split="test") for at, parts in enumerate((base, best))]
    summary = summarise(snapshot_of(*finalists, metric="loss"))
    assert summary.headline == "lora wins: loss 0.2999 on 200 test rows, 0.2000 lower than the default recipe of full"
    text = " ".join(summary.sentences)
    assert "lower (95 % interval -0.2" in text
    assert "+" not in text


def test_equals_seldom_beat_the_default_recipe_by_their_auc() -> None:
    """Two equals and the recipe see each row in their own way, with every seed; without the rows' luck nearly half would win."""
    rng = np.random.default_rng(5)
    truth = np.array(TRUTH)
    lost = 0
    for _ in range(30):
        common = rng.normal(size=ROWS)
        finalists = []
        for number in (1, 2, 0):
            own = 0.8 * common + 0.6 * rng.normal(size=ROWS)
            parts = []
            for _ in range(5):
                answer = 1.6 * (truth - 0.5) + own + 0.15 * rng.normal(size=ROWS)
                shares = 1 / (1 + np.exp(-answer))
                parts.append(auc_by_row(np.stack([1 - shares, shares], axis=1), truth))
            finalists.append(finalist_of(number, np.array(parts), metric="auc"))
        lost += score_finalists(snapshot_of(*finalists, metric="auc"))[0].trial.number != 0
    assert lost <= 4
