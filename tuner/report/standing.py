"""How the finalists stand to each other once they were trained again: compared, tied, and what to expect of the winner."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tuner import contest
from tuner.contest import Estimate, Lead
from tuner.report.evidence import Comparison, RowLuck, find_row_luck
from tuner.report.verdict import Basis, FinalistScore, Winner, common_seeds, comparable
from tuner.store.records import Outcome, StudySnapshot
from tuner.study.catalogue import RANGES


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """The finalists against the winner.

    Attributes:
        comparisons: The winner against each other finalist that has a fresh seed in common with it, best first.
        split: ``test``, ``held-back``, ``folds`` or ``validation``: the rows that the number which is told comes from.
        rows: How many they are, 0 where that is not known.
        is_row_luck_counted: Whether the intervals contain the luck of which rows were drawn, which needs predictions, or each row's
            part in the metric; else they are over seeds, on these same rows.
        estimate: What to expect of the winner on such rows, free of the luck that it was chosen for; None without a score.
        tied: The winner and the finalists that cannot be told from it, best first; those that left the race are among them unless
            they are clearly behind. Empty while the confirmation goes on, and where one seed, or seeds that do not differ, cannot tell.
        cheapest: Of those that finished the race the one that trains the fewest parameters, and needs the fewest seconds among
            equals; None where nothing is tied, or no size is known.
        optimism: How much better the search's claim is than ``estimate``, negative if it is worse; None without a
            confirmation or if the winner was pruned in the search.
    """

    comparisons: tuple[Comparison, ...] = ()
    split: str = "validation"
    rows: int = 0
    is_row_luck_counted: bool = False
    estimate: Estimate | None = None
    tied: tuple[FinalistScore, ...] = ()
    cheapest: FinalistScore | None = None
    optimism: float | None = None

    @property
    def is_baseline_tied(self) -> bool:
        """Whether the default recipe cannot be told from the winner, or is it."""
        return any(score.is_baseline for score in self.tied)

    def against(self, number: int | None) -> Comparison | None:
        """The comparison with one other finalist."""
        return next((each for each in self.comparisons if each.other == number), None)

    def expected_lead(self, comparison: Comparison) -> float:
        """How far ahead of the other one to expect the winner: the difference of their means, less the luck that it was chosen for."""
        return comparison.difference - (0.0 if self.estimate is None else self.estimate.luck)


def find_standing(snapshot: StudySnapshot, winner: Winner | None, *, finalists: Sequence[FinalistScore]) -> Standing:
    """Compare the finalists with the winner, on rows that chose none of them where there are any.

    Args:
        snapshot: The study.
        winner: As :func:`tuner.report.verdict.choose_winner` found it.
        finalists: As :func:`tuner.report.verdict.score_finalists` orders them.
    """
    if winner is None or winner.score is None:
        return Standing()
    split = _best_split(finalists)
    bootstrap = _bootstrap(snapshot, split=split)
    comparisons = _correct(_compare_all(snapshot, winner.score, finalists=finalists, split=split, bootstrap=bootstrap))
    estimate = _estimate(snapshot, winner.score, finalists=finalists, split=split, bootstrap=bootstrap)
    least, most = _range(snapshot, estimate)
    comparisons = tuple(
        replace(
            each, low=_within(each.low, least - most, most - least), high=_within(each.high, least - most, most - least)
        )
        for each in comparisons
    )
    tied = _tied(winner, finalists=finalists, comparisons=comparisons)
    return Standing(
        comparisons=comparisons,
        split=split,
        rows=_count_rows(snapshot, split),
        is_row_luck_counted=bootstrap is not None,
        estimate=estimate,
        tied=tied,
        cheapest=_cheapest(tied),
        optimism=_optimism(winner, estimate, maximize=snapshot.study.maximize),
    )


def _best_split(finalists: Sequence[FinalistScore]) -> str:
    """Test rows where every finalist with a score was scored on them; else what chose the winner."""
    scored = [score for score in finalists if score.seeds]
    if all(score.test for score in scored):
        return "test"
    if all(score.folds for score in scored):
        return "folds"
    return "held-back" if all(score.held_back for score in scored) else "validation"


def _bootstrap(snapshot: StudySnapshot, *, split: str, seeds: frozenset[int] | None = None) -> RowLuck | None:
    """What the drawn rows do; None on the validation rows, whose predictions are not kept, and where each seed has a fold of its own."""
    if split in ("validation", "folds"):
        return None
    return find_row_luck(snapshot.finalists, metric=snapshot.study.metric, split=split, seeds=seeds)


def _compare_all(
    snapshot: StudySnapshot,
    winner: FinalistScore,
    *,
    finalists: Sequence[FinalistScore],
    split: str,
    bootstrap: RowLuck | None,
) -> list[tuple[Comparison, Lead]]:
    """The winner against every other finalist, each on the fresh seeds that both have."""
    sign = 1.0 if snapshot.study.maximize else -1.0
    found = []
    for other in finalists:
        common = frozenset(winner.seeds) & frozenset(other.seeds)
        if other.trial.number == winner.trial.number or not common:
            continue
        drawn = bootstrap
        if bootstrap is not None and any(common != frozenset(score.seeds) for score in (winner, other)):
            drawn = _bootstrap(snapshot, split=split, seeds=common)
        mine, theirs, *field = (
            _signed(score, split=split, seeds=sorted(common), sign=sign)
            for score in (winner, other, *finalists)
            if common <= frozenset(score.seeds)
        )
        numbers = (winner.trial.number, other.trial.number)
        has_rows = drawn is not None and drawn.holds(*numbers)
        rows = drawn.rows if drawn is not None and has_rows else 0
        variance = drawn.variance(numbers[0], other=numbers[1]) if drawn is not None and has_rows else 0.0
        ahead = contest.lead(mine, theirs, field=field, row_variance=variance, rows=rows)
        found.append(
            (
                Comparison(
                    other=numbers[1],
                    split=split,
                    rows=rows,
                    difference=ahead.difference,
                    low=None,
                    high=None,
                    # Resampled rows know nothing of the luck of the seed, which is most of what training varies by.
                    probability=ahead.probability if ahead.is_measured and len(mine) > 1 else None,
                    seed_pairs=len(mine),
                    seed_wins=sum(left > right for left, right in zip(mine, theirs, strict=True)),
                ),
                ahead,
            )
        )
    return found


def _correct(found: Sequence[tuple[Comparison, Lead]]) -> tuple[Comparison, ...]:
    """P-values by Holm's method, and intervals as wide as the step that decided: they leave out zero where it rejects."""
    told = [place for place, (comparison, _) in enumerate(found) if comparison.probability is not None]
    steps = contest.holm([found[place][1].p_value for place in told])
    adjusted = dict(zip(told, steps, strict=True))
    corrected = []
    for place, (comparison, ahead) in enumerate(found):
        step = adjusted.get(place)
        claims = len(found) if step is None else step.claims
        low, high = ahead.interval(claims=claims) if ahead.is_measured else (None, None)
        p_value = None if step is None else step.p_value
        corrected.append(replace(comparison, low=low, high=high, p_value=p_value, claims=len(found)))
    return tuple(corrected)


def _estimate(
    snapshot: StudySnapshot,
    winner: FinalistScore,
    *,
    finalists: Sequence[FinalistScore],
    split: str,
    bootstrap: RowLuck | None,
) -> Estimate | None:
    """What to expect of the winner on the rows of a split, in the metric's own sign."""
    sign = 1.0 if snapshot.study.maximize else -1.0
    racing = comparable(finalists)
    seeds = sorted(common_seeds(racing))
    if winner not in racing or len(seeds) < min(contest.FIRST_SEEDS, len(winner.seeds)):
        racing, seeds = [winner], sorted(winner.seeds)
    number = winner.trial.number
    drawn = bootstrap if bootstrap is not None and bootstrap.holds(number) else None
    found = contest.expect(
        number,
        choosing={
            score.trial.number: _signed(
                score, split="held-back" if score.held_back else "validation", seeds=seeds, sign=sign
            )
            for score in racing
        },
        reported={score.trial.number: _signed(score, split=split, seeds=seeds, sign=sign) for score in racing},
        favourite=next((score.trial.number for score in racing if score.is_baseline), None),
        row_variance=drawn.variance(number) if drawn is not None else 0.0,
        rows=drawn.rows if drawn is not None else 0,
    )
    low, high = (found.low, found.high) if sign > 0 else (_negative(found.high), _negative(found.low))
    found = replace(found, value=sign * found.value, low=low, high=high)
    least, most = _range(snapshot, found)
    return replace(found, low=_within(low, least, most), high=_within(high, least, most))


def _range(snapshot: StudySnapshot, estimate: Estimate | None) -> tuple[float, float]:
    """What the metric can be; endless where that is not known, or where its scores are on another scale, such as per cent."""
    least, most = RANGES.get(snapshot.study.metric, (-math.inf, math.inf))
    fits = estimate is not None and least <= estimate.value <= most
    return (least, most) if fits else (-math.inf, math.inf)


def _negative(value: float | None) -> float | None:
    return None if value is None else -value


def _within(end: float | None, least: float, most: float) -> float | None:
    """An end of an interval that promises nothing which cannot be: few seeds reach far."""
    return None if end is None else min(max(end, least), most)


def _signed(score: FinalistScore, *, split: str, seeds: Sequence[int], sign: float) -> list[float]:
    return score.in_blocks([sign * each for each in score.on(split)], seeds=seeds)


def _tied(
    winner: Winner, *, finalists: Sequence[FinalistScore], comparisons: Sequence[Comparison]
) -> tuple[FinalistScore, ...]:
    """The winner and those that are not clearly behind it: one that left the race may even have been ahead."""
    if winner.basis is not Basis.CONFIRMED or all(comparison.p_value is None for comparison in comparisons):
        return ()
    apart = {comparison.other for comparison in comparisons if comparison.is_clear}
    return tuple(each for each in finalists if each.seeds and each.trial.number not in apart)


def _cheapest(tied: Sequence[FinalistScore]) -> FinalistScore | None:
    sized = [score for score in tied if score.trial.trainable_params is not None and not score.why_out]
    if not sized:
        return None
    return min(sized, key=lambda score: (score.trial.trainable_params or 0, score.trial.seconds))


def _optimism(winner: Winner, estimate: Estimate | None, *, maximize: bool) -> float | None:
    # A pruned default recipe's value is of fewer epochs.
    if estimate is None or winner.claimed is None or winner.trial.outcome is not Outcome.COMPLETE:
        return None
    return winner.claimed - estimate.value if maximize else estimate.value - winner.claimed


def _count_rows(snapshot: StudySnapshot, split: str) -> int:
    runs = [run for finalist in snapshot.finalists for run in finalist.runs]
    if split in ("validation", "folds"):
        return 0
    return max((len(rows.truth) for run in runs if (rows := run.test if split == "test" else run.held_back)), default=0)
