"""The statistics of a few competitors with the same few seeds, held against other libraries and against their promises."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats  # type: ignore[import-untyped]

from tuner import contest

FIRST, SECOND = (0.90, 0.93, 0.91, 0.95), (0.88, 0.89, 0.84, 0.93)


def test_two_alone_are_compared_by_the_paired_t_test() -> None:
    ahead = contest.lead(FIRST, SECOND, field=[FIRST, SECOND])
    reference = stats.ttest_rel(FIRST, SECOND)
    assert [ahead.difference, ahead.freedom] == pytest.approx([0.0375, 3])
    assert ahead.p_value == pytest.approx(reference.pvalue)
    interval = reference.confidence_interval(0.95)
    assert ahead.interval() == pytest.approx((interval.low, interval.high))
    assert ahead.probability == pytest.approx(1.0 - reference.pvalue / 2.0)


def test_a_seed_that_is_kind_to_all_is_no_noise() -> None:
    shifted = [
        tuple(score + kind for score, kind in zip(row, (0.0, 0.1, -0.1, 0.3), strict=True)) for row in (FIRST, SECOND)
    ]
    plain = contest.lead(FIRST, SECOND, field=[FIRST, SECOND])
    assert contest.lead(*shifted, field=shifted).error == pytest.approx(plain.error)


def test_the_variance_is_pooled_as_in_a_randomised_block_design() -> None:
    rng = np.random.default_rng(3)
    field = rng.normal(size=(5, 4))
    variance, freedom = contest.residual_variance(field.tolist())
    residuals = field - field.mean(1, keepdims=True) - field.mean(0) + field.mean()
    assert freedom == 12
    assert variance == pytest.approx((residuals**2).sum() / 12)


def test_a_wild_pair_is_not_calmed_by_the_field() -> None:
    calm = [(0.5, 0.5001, 0.5002, 0.4999)] * 8
    alone = contest.lead(FIRST, SECOND, field=[FIRST, SECOND])
    assert contest.lead(FIRST, SECOND, field=[FIRST, SECOND, *calm]).error == pytest.approx(alone.error)


def test_rows_add_their_variance_and_their_freedom() -> None:
    alone = contest.lead(FIRST, SECOND, field=[FIRST, SECOND])
    both = contest.lead(FIRST, SECOND, field=[FIRST, SECOND], row_variance=1e-4, rows=500)
    assert both.error == pytest.approx(math.sqrt(alone.error**2 + 1e-4))
    assert alone.freedom < both.freedom < 502
    one_seed = contest.lead(FIRST[:1], SECOND[:1], field=[FIRST[:1], SECOND[:1]], row_variance=1e-4, rows=500)
    assert [one_seed.error, one_seed.freedom] == pytest.approx([0.01, 499])


@pytest.mark.parametrize(
    ("first", "second"), [((0.9,), (0.8,)), ((0.9, 0.9), (0.8, 0.8)), ((0.1 + 0.2, 0.3), (0.2, 0.2))]
)
def test_without_spread_nothing_is_measured(first: tuple[float, ...], second: tuple[float, ...]) -> None:
    assert not contest.lead(first, second, field=[first, second]).is_measured


def test_holm_is_that_of_the_textbook() -> None:
    found = contest.holm([0.01, 0.04, 0.03, 0.005])
    assert [step.p_value for step in found] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [step.claims for step in found] == [3, 2, 2, 4]
    assert [step.p_value for step in contest.holm([0.7, 0.9])] == [1.0, 1.0]
    assert contest.holm([]) == []


def test_an_interval_leaves_out_zero_where_holm_rejects() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        field = (rng.normal(size=(5, 4)) + np.arange(5)[:, None] * 0.7).tolist()
        leads = [contest.lead(field[4], other, field=field) for other in field[:4]]
        for ahead, step in zip(leads, contest.holm([each.p_value for each in leads]), strict=True):
            low, high = ahead.interval(claims=step.claims)
            assert (low > 0.0 or high < 0.0) == (step.p_value <= contest.LEVEL)


def test_the_interval_of_many_claims_holds_for_all_of_them() -> None:
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(400):
        field = (rng.normal(size=(6, 3)) + rng.normal(size=3)).tolist()  # all are worth the same
        ends = [contest.lead(field[0], other, field=field).interval(claims=5) for other in field[1:]]
        missed += any(low > 0.0 or high < 0.0 for low, high in ends)
    assert missed <= 30  # 5 % are 20, and four standard errors more are 37


def test_who_is_far_behind_falls_and_the_spared_one_stays() -> None:
    scores = {7: (0.90, 0.91), 3: (0.89, 0.91), 5: (0.50, 0.52), 1: (0.40, 0.41)}
    assert set(contest.fallen(scores)) == {5, 1}
    assert set(contest.fallen(scores, spared=[1])) == {5}
    assert contest.fallen({number: row[:1] for number, row in scores.items()}) == {}
    assert contest.fallen({7: (0.9, 0.8)}) == {}


def test_a_wild_competitor_is_not_called_different_too_often() -> None:
    rng = np.random.default_rng(3)
    told = 0
    for _ in range(1500):
        field = (rng.normal(size=(3, 5)) * np.array([[5.0], [1.0], [1.0]]) + rng.normal(size=5)).tolist()
        told += contest.lead(field[0], field[1], field=field).p_value <= contest.LEVEL
    assert told / 1500 < 0.07  # with the pool's degrees of freedom .080


def test_two_go_on_beside_the_spared_one() -> None:
    near = {7: (0.90, 0.91), 3: (0.89, 0.91), 5: (0.88, 0.91), 1: (0.90, 0.88), 2: (0.91, 0.92)}
    assert set(contest.fallen(near)) == {1, 3, 5} - {contest.order(near)[1]}
    assert set(contest.fallen(near, spared=[2])) == {5, 1}
    assert set(contest.fallen(near, spared=[1])) == {3, 5}
    equal = dict.fromkeys(near, (0.9, 0.9))
    assert set(contest.fallen(equal)) == {5, 1, 2}  # nothing varies: those that the search ranked last
    assert contest.fallen({number: near[number] for number in (7, 3)}) == {}
    assert contest.fallen(near, to_come=1) == {}  # one more seed would tell less than they do


def test_a_favourite_is_not_beaten_by_an_equal_one() -> None:
    assert contest.order({1: (0.8, 0.9), 2: (0.8, 0.9)}, favourite=2) == [2, 1]
    assert contest.order({1: (0.81, 0.91), 2: (0.8, 0.9)}, favourite=2) == [1, 2]  # by the same with each seed


def test_rows_that_might_have_been_others_protect_the_favourite() -> None:
    scores = {1: (0.80, 0.81, 0.80), 2: (0.90, 0.91, 0.90)}
    assert contest.order(scores, favourite=1, row_variance={2: 0.03**2}, rows=200) == [2, 1]
    assert contest.order(scores, favourite=1, row_variance={2: 0.08**2}, rows=200) == [1, 2]


def test_the_favourite_is_given_up_for_a_sure_lead_only() -> None:
    better = {1: (0.80, 0.81, 0.80), 2: (0.90, 0.91, 0.90)}
    barely = {1: (0.80, 0.86, 0.80), 2: (0.81, 0.80, 0.86)}
    assert contest.order(better, favourite=1) == [2, 1]
    assert contest.order(barely) == [2, 1]
    assert contest.order(barely, favourite=1) == [1, 2]
    assert contest.order({number: row[:1] for number, row in barely.items()}, favourite=1) == [2, 1]


def test_no_score_chooses_what_it_reports() -> None:
    rows = {1: (0.9, 0.7, 0.8), 2: (0.8, 0.8, 0.7)}
    found = contest.expect(1, choosing=rows, reported=rows)
    # Without the first seed 1 and 2 are equal and 1 is first; without the second 1 leads; without the third 1 and 2 are equal.
    assert found.value == pytest.approx((0.9 + 0.7 + 0.8) / 3)
    rows = {1: (0.9, 0.7, 0.7), 2: (0.7, 0.75, 0.8)}
    # Each is best by the seeds that it is lucky with, and is told by the others.
    assert contest.expect(1, choosing=rows, reported=rows).value == pytest.approx((0.7 + 0.7 + 0.7) / 3)


def test_the_winner_of_equals_is_not_told_too_good() -> None:
    rng = np.random.default_rng(1)
    plain, told, covered = [], [], []
    for _ in range(400):
        rows = {number: row.tolist() for number, row in enumerate(rng.normal(size=(5, 3)))}
        best = contest.order(rows)[0]
        found = contest.expect(best, choosing=rows, reported=rows)
        plain.append(np.mean(rows[best]))
        told.append(found.value)
        assert found.low is not None
        assert found.high is not None
        covered.append(found.low <= 0.0 <= found.high)
    assert np.mean(plain) > 0.5
    assert abs(np.mean(told)) < 0.15
    assert np.mean(covered) > 0.93


def test_one_seed_is_told_as_it_is() -> None:
    assert contest.expect(1, choosing={1: (0.9,)}, reported={1: (0.9,)}) == contest.Estimate(
        value=0.9, low=None, high=None
    )


def test_where_the_luck_of_the_rows_is_not_known_the_favourite_stays() -> None:
    scores = {0: (0.80, 0.81, 0.80), 1: (0.99, 0.98, 0.99)}
    assert contest.order(scores, favourite=0) == [1, 0]
    assert contest.order(scores, favourite=0, can_lose=False) == [0, 1]
    one_seed = {number: row[:1] for number, row in scores.items()}
    assert contest.order(one_seed, favourite=0, can_lose=False) == [1, 0]
