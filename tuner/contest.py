"""Who is better, and how surely, where the same few seeds were given to several competitors: the statistics, and nothing else.

Each competitor has one score a seed. Seeds are blocks: what a seed does to all of them alike cancels in a comparison. A difference is
judged by Student's t with the larger of two variances, that of the pair and that of all competitors pooled, because a few
seeds say little about the variance of one pair, and a wild competitor must not hide behind calm ones. The wilder a pair is, the more
its degrees of freedom are its own. Where rows were drawn too, their variance is added, with Satterthwaite's degrees of freedom (1946,
https://doi.org/10.2307/3002019). Scores are signed so that more is better; nothing here knows what they measure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

LEVEL = 0.05
"""Of every interval and test: 95 % of the intervals hold, one claim in twenty is wrong at most."""

TRUST = 0.975
"""Probability with which the favourite must be beaten to lose its place: less is a tie.

That of a two-sided interval at 95 % that leaves out zero. Chosen by `benchmarks/honesty.py`.
"""

FIRST_SEEDS = 2
"""Seeds that every competitor gets before one is told to leave."""

FINAL = 2
"""How many go on beside those that are spared once two seeds have told them apart as well as two can."""

_NO_SPREAD = 1e-12
"""Standard error below which scores differ by rounding alone."""

ROOM = 2
"""Seeds to come for which it is worth to send competitors away that are not far behind: one more seed tells less than they do."""

Row = Sequence[float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Lead:
    """By how much one competitor is ahead of another.

    Attributes:
        difference: Mean of the paired differences; negative where it is behind.
        error: Its standard error; 0 where nothing varied.
        freedom: Degrees of freedom behind ``error``; infinite where only rows were drawn and they are many.
    """

    difference: float
    error: float
    freedom: float

    @property
    def is_measured(self) -> bool:
        """Whether anything varied: without spread nothing can be said about chance."""
        return self.error > _NO_SPREAD and self.freedom > 0

    @property
    def probability(self) -> float:
        """Probability that the expected difference is above zero, before anything else is known of it."""
        return below(self.difference / self.error, freedom=self.freedom)

    @property
    def p_value(self) -> float:
        """Two-sided: how often chance alone gives a difference as large as this."""
        return 2.0 * below(-abs(self.difference) / self.error, freedom=self.freedom)

    def interval(self, *, claims: int = 1) -> tuple[float, float]:
        """The 95 % interval; with several claims one that is so wide that as many hold at once (Bonferroni)."""
        reach = quantile(1.0 - LEVEL / (2.0 * claims), freedom=self.freedom) * self.error
        return self.difference - reach, self.difference + reach


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What to expect of a competitor that was chosen because its scores were best.

    Attributes:
        value: The mean of scores that did not choose it.
        low: Lower end of the 95 % interval; None with too few seeds or too little spread to tell.
        high: Upper end; None like ``low``.
        luck: By how much the plain mean of its scores is better than ``value``.
    """

    value: float
    low: float | None
    high: float | None
    luck: float = 0.0


def below(statistic: float, *, freedom: float) -> float:
    """The share of Student's t below a value."""
    # Loaded here: it takes longer to import than all of this package, and most calls of the program do without.
    from scipy.special import ndtr, stdtr  # type: ignore[import-untyped]

    return float(ndtr(statistic) if math.isinf(freedom) else stdtr(freedom, statistic))


def quantile(share: float, *, freedom: float) -> float:
    """The value below which this share of Student's t lies."""
    from scipy.special import ndtri, stdtrit

    return float(ndtri(share) if math.isinf(freedom) else stdtrit(freedom, share))


def lead(first: Row, second: Row, *, field: Sequence[Row], row_variance: float = 0.0, rows: int = 0) -> Lead:
    """How far the first is ahead of the second.

    Args:
        first: Its score with each seed.
        second: The other's, with the same seeds in the same order.
        field: The scores of all competitors with these seeds, both included: what the variance is pooled over.
        row_variance: Variance of the difference that comes from which rows were drawn; 0 where none were.
        rows: How many were drawn.
    """
    differences = [left - right for left, right in zip(first, second, strict=True)]
    seeds = len(differences)
    seed_variance, freedom = 0.0, 0.0
    if seeds > 1:
        pooled, freedom = residual_variance(field)
        own, shared = statistics.variance(differences), 2.0 * pooled
        if own > shared:
            # Those of the pool would reject 8 to 16 % of true equals where one competitor is five times as wild as the others.
            freedom = max(seeds - 1.0, freedom * (shared / own) ** 2)
        seed_variance = max(own, shared) / seeds
    variance, freedom_of_both = _sum((seed_variance, freedom), (row_variance, rows - 1))
    return Lead(difference=statistics.fmean(differences), error=math.sqrt(variance), freedom=freedom_of_both)


def residual_variance(field: Sequence[Row]) -> tuple[float, int]:
    """What remains of the scores without the competitors' and the seeds' means: variance and degrees of freedom.

    The randomised block design of Fisher: a seed that is kind to all of them is not noise.
    """
    competitors, seeds = len(field), len(field[0])
    freedom = (competitors - 1) * (seeds - 1)
    if freedom == 0:
        return 0.0, 0
    of_seeds = [statistics.fmean(column) for column in zip(*field, strict=True)]
    mean = statistics.fmean(of_seeds)
    squares = 0.0
    for row in field:
        own = statistics.fmean(row)
        squares += sum((score - own - common + mean) ** 2 for score, common in zip(row, of_seeds, strict=True))
    return squares / freedom, freedom


def _sum(*parts: tuple[float, float]) -> tuple[float, float]:
    """Independent variances, each with its degrees of freedom, added; with Satterthwaite's degrees of freedom of the sum."""
    total = sum(variance for variance, _ in parts)
    weight = sum(variance**2 / freedom for variance, freedom in parts if freedom > 0)
    return total, total**2 / weight if weight > 0.0 else 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What Holm's method makes of one of several p-values.

    Attributes:
        p_value: Made larger so that all claims at a level hold together.
        claims: By how many claims the level was divided in the step that decided about it.
    """

    p_value: float
    claims: int


def holm(p_values: Sequence[float]) -> list[Step]:
    """Correct p-values for the number of claims, the smallest one most (Holm 1979).

    Source:
        https://www.jstor.org/stable/4615733
    """
    ranked = sorted(range(len(p_values)), key=lambda place: p_values[place])
    steps: dict[int, Step] = {}
    largest, claims = 0.0, len(p_values)
    for rank, place in enumerate(ranked):
        if largest <= LEVEL:
            claims = len(p_values) - rank  # from the first that is not rejected on, the level stays as it was there
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        steps[place] = Step(p_value=largest, claims=claims)
    return [steps[place] for place in range(len(p_values))]


def fallen(scores: Mapping[int, Row], *, spared: Collection[int] = (), to_come: int = ROOM) -> dict[int, Lead]:
    """Who leaves the race, with how far the leader is ahead of it: who cannot be expected to win, and all but the :data:`FINAL` best.

    The first is a one-sided test at 5 % for each, not corrected: a race that errs costs a finalist, and makes no claim. Nor does the
    second: the trainings that it saves are worth more as further seeds of those that are left, if those are :data:`ROOM` at least.

    Args:
        scores: Each competitor's score with every seed that all of them have.
        spared: Those that stay in the race whatever they score; they take no place of the others.
        to_come: How many seeds are to come.
    """
    if len(scores) < 2 or len(next(iter(scores.values()))) < FIRST_SEEDS:
        return {}
    field = list(scores.values())
    ranked = sorted(scores, key=lambda number: -statistics.fmean(scores[number]))
    behind, left = {}, 0
    for number in ranked:
        ahead = lead(scores[ranked[0]], scores[number], field=field)
        is_hopeless = number != ranked[0] and ahead.is_measured and 1.0 - ahead.probability <= LEVEL
        if number in spared:
            continue
        if is_hopeless or (left == FINAL and to_come >= ROOM):
            behind[number] = ahead
        else:
            left = min(left + 1, FINAL)
    return behind


def order(
    scores: Mapping[int, Row],
    *,
    favourite: int | None = None,
    row_variance: Mapping[int, float] | None = None,
    rows: int = 0,
    can_lose: bool = True,
) -> list[int]:
    """The competitors, best first; equal ones as they stand in ``scores``, the favourite before all others.

    Args:
        scores: Each competitor's score with every seed that all of them have.
        favourite: Who wins a tie: first is the best of those that beat it with a probability of :data:`TRUST`, or it itself.
        row_variance: Of each one's difference from the favourite, the variance that comes from which rows were drawn.
        rows: How many were drawn.
        can_lose: Whether the favourite may lose. It may not where rows were drawn and their variance is not known: seeds that all see
            the same rows agree on what is luck. With one seed there is no favourite.
    """
    ranked = sorted(scores, key=lambda number: (-statistics.fmean(scores[number]), number != favourite))
    if favourite is None or favourite not in scores or len(scores[favourite]) < 2:
        return ranked
    field = list(scores.values())
    for number in ranked:
        if number == favourite or not can_lose:
            continue
        drawn = (row_variance or {}).get(number, 0.0)
        ahead = lead(
            scores[number], scores[favourite], field=field, row_variance=drawn, rows=rows if drawn > 0.0 else 0
        )
        if ahead.probability >= TRUST if ahead.is_measured else ahead.difference > 0.0:
            return [number, *(other for other in ranked if other != number)]
    return [favourite, *(number for number in ranked if number != favourite)]


def expect(
    chosen: int,
    *,
    choosing: Mapping[int, Row],
    reported: Mapping[int, Row],
    favourite: int | None = None,
    row_variance: float = 0.0,
    rows: int = 0,
) -> Estimate:
    """What to expect of the one that was chosen, free of the luck that it was chosen for.

    For each seed the best by the *other* seeds is looked up, and its score with this one is taken: no score chooses what it
    reports. Where the same one is best each time that is its plain mean. The interval is Student's over these scores, with
    the larger of their variance and of the chosen one's own. One seed is reported as it is.

    Args:
        chosen: Who won.
        choosing: The scores that chose it: every competitor's with every seed that all of them have.
        reported: The scores that are told, with the same seeds; the same ones where there are no others.
        favourite: As in :func:`order`.
        row_variance: Variance of the chosen one's mean that comes from which rows were drawn; 0 where that is not known.
        rows: How many were drawn.
    """
    own = list(reported[chosen])
    seeds = len(own)
    crossed = own
    if seeds > 1 and chosen != favourite:
        crossed = []
        for left_out in range(seeds):
            others = {number: [*row[:left_out], *row[left_out + 1 :]] for number, row in choosing.items()}
            best = max(others, key=lambda number: statistics.fmean(others[number]))
            crossed.append(reported[best][left_out])
    seed_variance = max(statistics.variance(crossed), statistics.variance(own)) / seeds if seeds > 1 else 0.0
    variance, freedom = _sum((seed_variance, seeds - 1), (row_variance, rows - 1))
    value = statistics.fmean(crossed)
    luck = statistics.fmean(own) - value
    if math.sqrt(variance) <= _NO_SPREAD or freedom <= 0:
        return Estimate(value=value, low=None, high=None, luck=luck)
    reach = quantile(1.0 - LEVEL / 2.0, freedom=freedom) * math.sqrt(variance)
    return Estimate(value=value, low=value - reach, high=value + reach, luck=luck)
