"""Which trial wins, and on what ground: the one selection rule that the command line and the report share.

Among the finalists still in the race the winner is the one with the best *mean score over the fresh seeds that all of them
have*, on the validation rows that were held back from the search where there are any, else on the validation rows. The default
recipe is given up only to one that is better with a probability of 97.5 %, over seeds and, where they were held back, over rows: less
is a tie, which the recipe wins; so is any lead on held back rows of which too little was kept to tell what others would do. While some have no score yet, those with one are ranked and nothing is settled. The score that made a trial a finalist is the largest of many noisy ones and
so too good (the winner's curse); the test rows only report and never choose.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from tuner import contest
from tuner.report.evidence import RowLuck, find_row_luck, knows_row_luck
from tuner.store.records import ConfirmationRecord, FinalistRecord, Outcome, StudySnapshot, StudyState, TrialRecord
from tuner.study.folds import fold_of, in_blocks

_DRAWS = 500
"""Replicates of the held back rows: a standard error is known to 3 %, which is enough to choose by and keeps every report quick."""


class Basis(Enum):
    """What the choice of the winner stands on, best ground first."""

    CONFIRMED = "confirmed"  # every re-training of every finalist gave a score
    INCOMPLETE = "incomplete"  # the study is over, and some re-trainings gave no score: nothing is settled
    CONFIRMING = "confirming"  # some fresh seeds are still to come: provisional
    SEARCH = "search"  # single-seed values of the search: too good by an unknown amount


@dataclass(frozen=True, kw_only=True, slots=True)
class FinalistScore:
    """A finalist's fresh-seed scores of the objective's metric.

    Attributes:
        trial: The trial.
        rank: 1 for the best value of the search.
        is_baseline: Whether it is the default recipe that the winner is compared with.
        seeds: The fresh seeds that gave a result.
        validation: Score on the validation rows that the search used, one for each of ``seeds``.
        test: Score on the test rows, one for each of ``seeds``; empty unless every one of them has it.
        planned: How many re-trainings were planned, the cancelled ones left out.
        open: How many re-trainings have not ended.
        held_back: Score on the validation rows that the search never saw, one for each of ``seeds``; empty unless every
            re-training of every finalist has it.
        cancelled: How many re-trainings were cancelled because it could not be expected to win any more.
        why_out: Why they were; empty if it stayed in the race.
        folds: The fold that judged each of ``seeds``; empty where the training rows are not divided into folds.
    """

    trial: TrialRecord
    rank: int
    is_baseline: bool
    seeds: tuple[int, ...]
    validation: tuple[float, ...]
    test: tuple[float, ...]
    planned: int
    open: int
    held_back: tuple[float, ...] = ()
    cancelled: int = 0
    why_out: str = ""
    folds: tuple[int, ...] = ()

    @property
    def judged(self) -> tuple[float, ...]:
        """The scores that choose the winner, one for each of ``seeds``."""
        return self.held_back or self.validation

    @property
    def mean(self) -> float | None:
        """Mean of the scores that choose, or of the folds' means; None before the first one."""
        return statistics.fmean(self._blocks) if self.judged else None

    @property
    def sd(self) -> float | None:
        """Standard deviation of what ``mean`` is the mean of, None below two."""
        return statistics.stdev(self._blocks) if len(self._blocks) > 1 else None

    @property
    def _blocks(self) -> list[float]:
        return self.in_blocks(self.judged, seeds=self.seeds)

    def on(self, split: str) -> tuple[float, ...]:
        """The scores on ``test``, ``held-back`` or ``validation`` rows, or of ``folds``, one for each of ``seeds``."""
        return {"test": self.test, "held-back": self.held_back}.get(split, self.validation)

    def in_blocks(self, scores: Sequence[float], *, seeds: Sequence[int]) -> list[float]:
        """Of these scores, one for each of its seeds, those of some seeds: one a seed, or with folds the mean of each fold."""
        chosen = [self.seeds.index(seed) for seed in seeds]
        places = [self.folds[place] if self.folds else self.seeds[place] for place in chosen]
        return in_blocks([scores[place] for place in chosen], places=places)

    def on_fold(self, fold: int) -> float | None:
        """Mean score on the rows of a fold; None where it has none."""
        there = [value for value, place in zip(self.validation, self.folds, strict=False) if place == fold]
        return statistics.fmean(there) if there else None

    @property
    def test_mean(self) -> float | None:
        """Mean test score over the seeds, None without test rows."""
        return statistics.fmean(self.test) if self.test else None

    @property
    def final_mean(self) -> float | None:
        """What the search's claim is held against: the mean test score, without one the mean on validation."""
        return self.mean if self.test_mean is None else self.test_mean

    @property
    def test_sd(self) -> float | None:
        """Standard deviation of the test score over the seeds, None below two."""
        return statistics.stdev(self.test) if len(self.test) > 1 else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Winner:
    """The trial that wins as far as is known.

    Attributes:
        trial: The trial.
        basis: What the choice stands on.
        claimed: Its value in the search; of its last report if it was pruned there, as a default recipe may be; None if
            that came before its first report.
        score: Its fresh-seed scores; None if the choice stands on the search alone.
        runner_up: The next best finalist by the same rule, or the next best trial of the search.
        baseline: The default recipe it is compared with, None if no recipe has a result.
        planned: Re-trainings of all finalists.
        scored: Those that gave a score.
        gaps: Why the others that are over gave none: ``4 stopped (budget of 2 device hours is used)``.
        weights: Where the weights lie: of its best re-training by the validation rows, else of the search; empty if none are kept.
        weights_seed: The fresh seed that they were trained with; None for those of the search.
        is_tie: Whether another finalist's mean is better, by too little for it to win over the default recipe.
        is_row_luck_unknown: Whether held back rows chose, of which too little was kept to tell what others would do: then seeds alone
            do not beat the default recipe.
    """

    trial: TrialRecord
    basis: Basis
    claimed: float | None
    score: FinalistScore | None
    runner_up: TrialRecord | None
    baseline: TrialRecord | None
    planned: int = 0
    scored: int = 0
    gaps: tuple[str, ...] = ()
    weights: str = ""
    weights_seed: int | None = None
    is_tie: bool = False
    is_row_luck_unknown: bool = False


def score_finalists(snapshot: StudySnapshot) -> tuple[FinalistScore, ...]:
    """The finalists' fresh-seed scores: those in the race, best first, then those that fell out, then those without a score.

    Means are over the seeds that all :func:`comparable` ones have: a lucky seed must not beat the mean of several. Where
    they have none in common each one's own mean counts. Equal means keep the order of the search. Who has too few seeds to
    be compared comes after those.
    """
    sign = 1.0 if snapshot.study.maximize else -1.0
    held = _is_held_back(snapshot)
    scores = sorted(
        (_score_finalist(snapshot, finalist, held=held) for finalist in snapshot.finalists), key=lambda it: it.rank
    )
    by_number = {score.trial.number: score for score in scores}
    racing = comparable(scores)
    common = sorted(common_seeds(racing))
    rows = {
        score.trial.number: score.in_blocks([sign * each for each in score.judged], seeds=common)
        or [sign * (score.mean or 0.0)]
        for score in racing
    }
    favourite = next((score.trial.number for score in racing if score.is_baseline), None)
    drawn = _draw_rows(snapshot, racing, seeds=frozenset(common)) if held and favourite is not None else None
    order = contest.order(
        rows,
        favourite=favourite,
        row_variance=_row_variance(drawn, favourite=favourite),
        rows=drawn.rows if drawn is not None else 0,
        can_lose=not _is_row_luck_unknown(snapshot, held=held),
    )
    ranked = [by_number[number] for number in order]
    by_mean = sorted(scores, key=lambda score: -sign * (score.mean or 0.0))
    short = [score for score in by_mean if score.seeds and not score.why_out and score not in ranked]
    out = [score for score in by_mean if score.why_out]
    return (*ranked, *short, *out, *(score for score in scores if not score.seeds and not score.why_out))


def comparable(finalists: Sequence[FinalistScore]) -> list[FinalistScore]:
    """Those in the race that are compared by the seeds that all of them have, in their order.

    One that lost most of its re-trainings, to errors or to the budget, is not among them: with it, a seed or two would decide
    what the others have many for. The default recipe is while two seeds are left, for the winner is held against it: it comes first, and
    who shares fewer than two seeds with it, or fewer than half of its own, waits or is left out. Without it half the seeds of the one
    with most will do where two leave nobody to compare, as at the start of a confirmation; if these do, too, all with most count.
    """
    racing = [score for score in finalists if score.seeds and not score.why_out]
    ranked = sorted(racing, key=lambda score: -len(score.seeds))
    recipe = next((score for score in racing if score.is_baseline and len(score.seeds) >= contest.FIRST_SEEDS), None)
    if recipe is not None:
        most = len(ranked[0].seeds)
        ranked = [recipe, *(score for score in ranked if score is not recipe and 2 * len(score.seeds) >= most)]
    most = len(ranked[0].seeds) if ranked else 0
    chosen = _sharing(ranked, least=max(contest.FIRST_SEEDS, most / 2))
    if len(chosen) < 2 and recipe is None:
        chosen = _sharing(ranked, least=most / 2)
    if len(chosen) < 2 and recipe is None:
        chosen = [score for score in ranked if len(score.seeds) == most]
    return [score for score in racing if score in chosen]


def _sharing(ranked: Sequence[FinalistScore], *, least: float) -> list[FinalistScore]:
    """The first, and each further one that has so many seeds in common with all before it."""
    chosen: list[FinalistScore] = []
    for score in ranked:
        if not chosen or len(common_seeds([*chosen, score])) >= least:
            chosen.append(score)
    return chosen


def _is_row_luck_unknown(snapshot: StudySnapshot, *, held: bool) -> bool:
    """Whether held back rows choose, and nothing was kept of them that tells what others would do."""
    return held and not knows_row_luck(snapshot.finalists, metric=snapshot.study.metric, split="held-back")


def _draw_rows(snapshot: StudySnapshot, racing: Sequence[FinalistScore], *, seeds: frozenset[int]) -> RowLuck | None:
    """What other held back rows would have done to those in the race; None where that cannot be told."""
    numbers = {score.trial.number for score in racing}
    finalists = [finalist for finalist in snapshot.finalists if finalist.number in numbers]
    return find_row_luck(finalists, metric=snapshot.study.metric, split="held-back", seeds=seeds, draws=_DRAWS)


def _row_variance(drawn: RowLuck | None, *, favourite: int | None) -> dict[int, float]:
    """Of each finalist's difference from the favourite."""
    if drawn is None or favourite is None or not drawn.holds(favourite):
        return {}
    return {number: drawn.variance(number, other=favourite) for number in drawn.values if number != favourite}


def common_seeds(finalists: Sequence[FinalistScore]) -> frozenset[int]:
    """The fresh seeds that every finalist with a score has."""
    seeds = [frozenset(score.seeds) for score in finalists if score.seeds]
    return frozenset.intersection(*seeds) if seeds else frozenset()


def rank_trials(snapshot: StudySnapshot) -> tuple[TrialRecord, ...]:
    """The complete trials, best value of the search first; equal values in the order of their numbers."""
    sign = -1.0 if snapshot.study.maximize else 1.0
    complete = [
        (trial.value, trial)
        for trial in snapshot.trials
        if trial.outcome is Outcome.COMPLETE and trial.value is not None
    ]
    return tuple(trial for _, trial in sorted(complete, key=lambda pair: (sign * pair[0], pair[1].number)))


def choose_winner(snapshot: StudySnapshot) -> Winner | None:
    """The winner of a study as far as is known.

    Args:
        snapshot: The study, finished or not.

    Returns:
        The winner with the ground it stands on, or None while no trial is complete.
    """
    finalists = score_finalists(snapshot)
    scored = [score for score in finalists if score.mean is not None]
    in_race = [score for score in scored if not score.why_out]
    ranked = rank_trials(snapshot)
    planned, done = sum(score.planned for score in finalists), sum(len(score.seeds) for score in finalists)
    gaps = _list_gaps(snapshot)
    if scored:
        kept = _best_retraining(snapshot, scored[0].trial.number)
        return Winner(
            trial=scored[0].trial,
            basis=_judge_basis(snapshot, finalists),
            claimed=scored[0].trial.value,
            score=scored[0],
            runner_up=next((score.trial for score in [*in_race, *scored] if score is not scored[0]), None),
            baseline=next((score.trial for score in scored if score.is_baseline), None),
            planned=planned,
            scored=done,
            gaps=gaps,
            weights=scored[0].trial.checkpoint if kept is None else kept.checkpoint,
            weights_seed=None if kept is None else kept.seed,
            is_tie=scored[0].is_baseline and _is_ahead(comparable(scored), scored[0], maximize=snapshot.study.maximize),
            is_row_luck_unknown=_is_row_luck_unknown(snapshot, held=_is_held_back(snapshot)),
        )
    if not ranked or ranked[0].value is None:
        return None
    return Winner(
        trial=ranked[0],
        basis=Basis.SEARCH,
        claimed=ranked[0].value,
        score=None,
        runner_up=ranked[1] if len(ranked) > 1 else None,
        baseline=next((trial for trial in ranked if trial.is_recipe), None),
        planned=planned,
        scored=done,
        gaps=gaps,
        weights=ranked[0].checkpoint,
    )


def _is_ahead(finalists: Sequence[FinalistScore], first: FinalistScore, *, maximize: bool) -> bool:
    """Whether any of them has a better mean than the first one, on the seeds that all have."""
    sign, common = 1.0 if maximize else -1.0, common_seeds(finalists)

    def mean(score: FinalistScore) -> float:
        return statistics.fmean(score.in_blocks(score.judged, seeds=sorted(common)))

    return bool(common) and any(sign * (mean(other) - mean(first)) > 0.0 for other in finalists)


def _best_retraining(snapshot: StudySnapshot, number: int) -> ConfirmationRecord | None:
    """The re-training of a finalist whose weights are kept and whose validation score is best; the test rows have no say."""
    metric, sign = snapshot.study.metric, 1.0 if snapshot.study.maximize else -1.0
    runs = [run for finalist in snapshot.finalists if finalist.number == number for run in finalist.runs]
    kept = [run for run in runs if run.checkpoint and _has_score(run, metric=metric)]

    def score(run: ConfirmationRecord) -> float:
        judged = run.metrics if run.held_back is None else run.held_back.metrics
        return sign * judged.get(metric, run.metrics[metric])

    return max(kept, key=score, default=None)


def _is_over(snapshot: StudySnapshot) -> bool:
    """Whether no worker will take up what waits."""
    return snapshot.study.state in (StudyState.FINISHED, StudyState.STOPPED)


def _judge_basis(snapshot: StudySnapshot, finalists: Sequence[FinalistScore]) -> Basis:
    to_come = not _is_over(snapshot) and any(score.open for score in finalists)
    if to_come or snapshot.study.state is StudyState.CONFIRMING:
        return Basis.CONFIRMING
    is_whole = all(score.seeds and len(score.seeds) == score.planned for score in finalists)
    return Basis.CONFIRMED if is_whole else Basis.INCOMPLETE


def _list_gaps(snapshot: StudySnapshot) -> tuple[str, ...]:
    """Why re-trainings gave no score, those that are still to come left out; the most frequent reason first."""
    words = {
        Outcome.COMPLETE: f"without {snapshot.study.metric}",
        Outcome.PRUNED: "stopped",
        Outcome.WAITING: "never run",
        Outcome.RUNNING: "never ended",
    }
    why = snapshot.study.state_reason if snapshot.study.state is StudyState.STOPPED else ""
    counts: Counter[tuple[str, str]] = Counter()
    for run in (run for finalist in snapshot.finalists for run in finalist.runs):
        if _has_score(run, metric=snapshot.study.metric) or not (run.outcome.is_finished or _is_over(snapshot)):
            continue
        if run.is_cancelled:
            continue
        counts[words.get(run.outcome, run.outcome.value), run.reason if run.outcome.is_finished else why] += 1
    return tuple(
        f"{number} {what}{f' ({reason})' if reason else ''}" for (what, reason), number in counts.most_common()
    )


def _has_score(run: ConfirmationRecord, *, metric: str) -> bool:
    return run.outcome is Outcome.COMPLETE and metric in run.metrics


def _is_held_back(snapshot: StudySnapshot) -> bool:
    """Whether every re-training that gave a score has one on held back rows too: only then may these choose."""
    metric = snapshot.study.metric
    runs = [run for finalist in snapshot.finalists for run in finalist.runs if _has_score(run, metric=metric)]
    return bool(runs) and all(run.held_back is not None and metric in run.held_back.metrics for run in runs)


def _score_finalist(snapshot: StudySnapshot, finalist: FinalistRecord, *, held: bool) -> FinalistScore:
    metric = snapshot.study.metric
    done = [run for run in finalist.runs if _has_score(run, metric=metric)]
    tests = [run.test.metrics[metric] for run in done if run.test is not None and metric in run.test.metrics]
    behind = [run.held_back.metrics[metric] for run in done if held and run.held_back is not None]
    cancelled = sum(run.is_cancelled for run in finalist.runs)
    return FinalistScore(
        trial=snapshot.trial(finalist.number),
        rank=finalist.rank,
        is_baseline=finalist.is_baseline,
        seeds=tuple(run.seed for run in done),
        validation=tuple(run.metrics[metric] for run in done),
        test=tuple(tests) if len(tests) == len(done) else (),
        planned=len(finalist.runs) - cancelled,
        open=sum(not run.outcome.is_finished for run in finalist.runs),
        held_back=tuple(behind),
        cancelled=cancelled,
        why_out=finalist.why_out,
        folds=tuple(fold for run in done if (fold := fold_of(snapshot.study.spec, seed=run.seed))),
    )
