"""Everything that a study's report says, computed before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping
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
from tuner.report.evidence import Comparison
from tuner.report.facts import Facts
from tuner.report.standing import Standing, find_standing
from tuner.report.troubles import Trouble, list_troubles
from tuner.report.verdict import FinalistScore, Winner, choose_winner, rank_trials, score_finalists
from tuner.report.words import write_headline, write_sentences
from tuner.store.records import StudyRecord, StudySnapshot, TrialRecord
from tuner.study.domains import Value
from tuner.study.names import count_noun


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
        standing: The finalists against the winner: compared, tied, and what to expect of it.
        baseline: The winner against the default recipe, None without one or if the winner is it.
        runner_up: The winner against the next best, None without one.
        cheaper: A finalist that trains fewer parameters and cannot be told apart from the winner, None without one.
        finalists: All finalists with their fresh-seed scores, best first.
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
    standing: Standing
    baseline: Comparison | None
    runner_up: Comparison | None
    cheaper: FinalistScore | None
    finalists: tuple[FinalistScore, ...]
    strategies: tuple[StrategyRow, ...]
    savings: Savings
    counts: Mapping[str, int]
    trials: tuple[TrialRow, ...]
    troubles: tuple[Trouble, ...]

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The winner against each other finalist that has a fresh seed in common with it, best first."""
        return self.standing.comparisons

    @property
    def optimism(self) -> float | None:
        """As in :class:`tuner.report.standing.Standing`."""
        return self.standing.optimism


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
    standing = find_standing(snapshot, winner, finalists=finalists)
    savings = count_savings(snapshot)
    rows = _test_rows(snapshot)
    facts = Facts(
        snapshot=snapshot,
        winner=winner,
        params=searched_params(winner.trial, space=snapshot.study.space) if winner else {},
        finalists=finalists,
        test_rows=rows,
        standing=standing,
        baseline=standing.against(_number(winner.baseline) if winner else None),
        runner_up=standing.against(_number(winner.runner_up) if winner else None),
        cheaper=_cheaper(winner, standing.cheapest),
        savings=savings,
    )
    fixed = {name: value for name, value in winner.trial.params.items() if name not in facts.params} if winner else {}
    return Summary(
        study=snapshot.study,
        read_at=snapshot.read_at,
        headline=write_headline(facts),
        sentences=(*write_sentences(facts), *early_end(snapshot.study)),
        winner=winner,
        winner_params=facts.params,
        fixed_params=fixed,
        test_rows=rows,
        standing=standing,
        baseline=facts.baseline,
        runner_up=facts.runner_up,
        cheaper=facts.cheaper,
        finalists=finalists,
        strategies=compare_strategies(snapshot, ranked=ranked, finalists=finalists),
        savings=savings,
        counts={outcome.value: snapshot.study.counts.get(outcome.value, 0) for outcome in OUTCOMES},
        trials=list_trials(snapshot),
        troubles=list_troubles(snapshot),
    )


def early_end(study: StudyRecord) -> tuple[str, ...]:
    """That the search ended before its budget was used, and why; nothing where it did not."""
    if not study.search_over:
        return ()
    used, asked = study.used.trials, study.spec.budget.trials
    after = count_noun(used, "trial") if asked is None else f"{used} of {count_noun(asked, 'trial')}"
    return (f"The search ended early, after {after}: {study.search_over}.",)


def _number(trial: TrialRecord | None) -> int | None:
    return None if trial is None else trial.number


def _cheaper(winner: Winner | None, cheapest: FinalistScore | None) -> FinalistScore | None:
    """The cheapest of those that cannot be told from the winner, where that is not the winner."""
    if winner is None or cheapest is None or cheapest.trial.number == winner.trial.number:
        return None
    mine, its = winner.trial.trainable_params, cheapest.trial.trainable_params
    return cheapest if mine is not None and its is not None and its < mine else None


def _test_rows(snapshot: StudySnapshot) -> int:
    """Rows of the test set, as the finalists were scored on it."""
    return max(
        (len(run.test.truth) for finalist in snapshot.finalists for run in finalist.runs if run.test is not None),
        default=0,
    )
