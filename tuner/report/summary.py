"""Everything that a study's report says, computed before anything is drawn."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuner.report.comparison import (
    OUTCOMES,
    Savings,
    StrategyRow,
    TrialRow,
    compare_strategies,
    count_savings,
    list_trials,
    searched_params,
)
from tuner.report.evidence import Comparison, TestBootstrap, bootstrap_test, compare_replicates, compare_seeds
from tuner.report.troubles import Trouble, list_troubles
from tuner.report.verdict import Basis, FinalistScore, Winner, choose_winner, rank_trials, score_finalists
from tuner.report.words import Facts, write_headline, write_sentences
from tuner.store.records import Outcome, StudyRecord, StudySnapshot, TrialRecord
from tuner.study.domains import Value


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What a study says.

    Attributes:
        study: The study without its trials.
        read_at: When it was read, seconds since 1970.
        headline: The verdict in one line.
        sentences: The verdict in full: what won, by how much, how sure, and what limits it.
        winner: The winner as far as is known, None while no trial is complete.
        winner_params: The winner's searched values, in absolute units.
        fixed_params: The winner's values that were the same for all trials of its strategy.
        test_rows: Test rows behind the test scores, 0 without any.
        test_interval: 95 % interval of the winner's mean test score over rows and seeds, over rows alone if it has one
            seed; None if it cannot be had.
        baseline: The winner against the default recipe, None without one or if the winner is it.
        runner_up: The winner against the next best, None without one.
        optimism: How much better the claim is than the mean test score over fresh seeds, than that on validation
            without test scores; negative if it is worse, None without confirmation or if the winner was pruned in the
            search.
        cheaper: A finalist that trains fewer parameters and cannot be told apart from the winner, None without one.
        finalists: All finalists with their fresh-seed scores, best first.
        comparisons: The winner against each other finalist that has a fresh seed in common with it, in that order.
        strategies: One row for each strategy, in the order of the study file.
        savings: What pruning saved.
        counts: Trials by outcome, as the study's record counts them.
        trials: One row for each trial, in the order of the numbers.
        troubles: What went wrong, by type.
    """

    study: StudyRecord
    read_at: float
    headline: str
    sentences: tuple[str, ...]
    winner: Winner | None
    winner_params: Mapping[str, Value]
    fixed_params: Mapping[str, Value]
    test_rows: int
    test_interval: tuple[float, float] | None
    baseline: Comparison | None
    runner_up: Comparison | None
    optimism: float | None
    cheaper: FinalistScore | None
    finalists: tuple[FinalistScore, ...]
    comparisons: tuple[Comparison, ...]
    strategies: tuple[StrategyRow, ...]
    savings: Savings
    counts: Mapping[str, int]
    trials: tuple[TrialRow, ...]
    troubles: tuple[Trouble, ...]


def summarise(snapshot: StudySnapshot) -> Summary:
    """Compute what a study says, finished or not.

    Args:
        snapshot: The study as it was read from the store.

    Returns:
        The summary; a study without any trial gets one too.
    """
    winner = choose_winner(snapshot)
    finalists = score_finalists(snapshot)
    ranked = rank_trials(snapshot)
    bootstrap = bootstrap_test(snapshot.finalists, metric=snapshot.study.metric)
    comparisons = _compare_all(snapshot, winner, finalists=finalists, bootstrap=bootstrap)
    by_number = {comparison.other: comparison for comparison in comparisons}
    optimism = _optimism(winner, maximize=snapshot.study.maximize)
    cheaper = _cheaper(winner, finalists=finalists, comparisons=by_number)
    savings = count_savings(snapshot)
    rows = _test_rows(snapshot)
    facts = Facts(
        snapshot=snapshot,
        winner=winner,
        params=searched_params(winner.trial, space=snapshot.study.space) if winner else {},
        finalists=finalists,
        test_rows=rows,
        baseline=_against(winner.baseline if winner else None, by_number),
        runner_up=_against(winner.runner_up if winner else None, by_number),
        optimism=optimism,
        cheaper=cheaper,
        savings=savings,
    )
    fixed = {name: value for name, value in winner.trial.params.items() if name not in facts.params} if winner else {}
    return Summary(
        study=snapshot.study,
        read_at=snapshot.read_at,
        headline=write_headline(facts),
        sentences=write_sentences(facts),
        winner=winner,
        winner_params=facts.params,
        fixed_params=fixed,
        test_rows=rows,
        test_interval=_test_interval(winner, bootstrap),
        baseline=facts.baseline,
        runner_up=facts.runner_up,
        optimism=optimism,
        cheaper=cheaper,
        finalists=finalists,
        comparisons=comparisons,
        strategies=compare_strategies(snapshot, ranked=ranked, finalists=finalists),
        savings=savings,
        counts={outcome.value: snapshot.study.counts.get(outcome.value, 0) for outcome in OUTCOMES},
        trials=list_trials(snapshot),
        troubles=list_troubles(snapshot),
    )


def _compare_all(
    snapshot: StudySnapshot,
    winner: Winner | None,
    *,
    finalists: Sequence[FinalistScore],
    bootstrap: TestBootstrap | None,
) -> tuple[Comparison, ...]:
    """The winner against every other finalist, each on the fresh seeds that both have."""
    if winner is None or winner.score is None:
        return ()
    found = []
    for other in finalists:
        common = frozenset(winner.score.seeds) & frozenset(other.seeds)
        if other.trial.number == winner.trial.number or not common:
            continue
        paired = bootstrap
        if not common == frozenset(winner.score.seeds) == frozenset(other.seeds):
            pair = [each for each in snapshot.finalists if each.number in (winner.trial.number, other.trial.number)]
            paired = bootstrap_test(pair, metric=snapshot.study.metric, seeds=common)
        found.append(_compare(winner.score, other, seeds=common, maximize=snapshot.study.maximize, bootstrap=paired))
    return tuple(found)


def _compare(
    winner: FinalistScore,
    other: FinalistScore,
    *,
    seeds: frozenset[int],
    maximize: bool,
    bootstrap: TestBootstrap | None,
) -> Comparison:
    """On the test rows where both have them, else on the fresh-seed validation scores."""
    sign = 1.0 if maximize else -1.0
    tested = bool(winner.test and other.test)
    mine, theirs = (
        [sign * (side.test if tested else side.validation)[side.seeds.index(seed)] for seed in sorted(seeds)]
        for side in (winner, other)
    )
    low, high, probability = compare_seeds(mine, theirs)
    resampled = 0
    if tested and bootstrap is not None:
        resampled = bootstrap.rows
        low, high, probability = compare_replicates(
            bootstrap.replicates[winner.trial.number], bootstrap.replicates[other.trial.number], sign=sign
        )
    return Comparison(
        other=other.trial.number,
        split="test" if tested else "validation",
        rows=resampled,
        difference=statistics.fmean(mine) - statistics.fmean(theirs),
        low=low,
        high=high,
        # Resampled rows know nothing of the luck of the seed, which is most of what training varies by.
        probability=probability if len(seeds) > 1 else None,
        seed_pairs=len(seeds),
        seed_wins=sum(left > right for left, right in zip(mine, theirs, strict=True)),
    )


def _against(trial: TrialRecord | None, comparisons: Mapping[int, Comparison]) -> Comparison | None:
    return comparisons.get(trial.number) if trial is not None else None


def _optimism(winner: Winner | None, *, maximize: bool) -> float | None:
    if winner is None or winner.score is None or winner.score.final_mean is None:
        return None
    if (
        winner.claimed is None or winner.trial.outcome is not Outcome.COMPLETE
    ):  # a pruned default recipe: its value is of fewer epochs
        return None
    gap = winner.claimed - winner.score.final_mean
    return gap if maximize else -gap


def _cheaper(
    winner: Winner | None, *, finalists: Sequence[FinalistScore], comparisons: Mapping[int, Comparison]
) -> FinalistScore | None:
    """The finalist with the fewest trainable parameters that is not clearly worse than the winner."""
    size = winner.trial.trainable_params if winner is not None else None
    if winner is None or winner.basis is not Basis.CONFIRMED or size is None:
        return None
    tied = [
        (score.trial.trainable_params, score)
        for score in finalists
        if (comparison := comparisons.get(score.trial.number)) is not None
        and comparison.probability is not None
        and not comparison.is_clear
        and score.trial.trainable_params is not None
        and score.trial.trainable_params < size
    ]
    return min(tied, key=lambda pair: pair[0])[1] if tied else None


def _test_rows(snapshot: StudySnapshot) -> int:
    """Rows of the test set, as the finalists were scored on it."""
    return max(
        (len(run.test.truth) for finalist in snapshot.finalists for run in finalist.runs if run.test is not None),
        default=0,
    )


def _test_interval(winner: Winner | None, bootstrap: TestBootstrap | None) -> tuple[float, float] | None:
    if winner is None or winner.score is None or not winner.score.test or bootstrap is None:
        return None
    return bootstrap.interval(winner.trial.number)
