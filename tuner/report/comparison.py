"""The strategies side by side, what pruning saved, and the list of trials: plain counting, no statistics."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuner.report.verdict import FinalistScore
from tuner.store.records import Outcome, StudySnapshot, TrialRecord
from tuner.study.domains import Fixed, Value
from tuner.study.hyperparameters import RELATIVE_LEARNING_RATE
from tuner.study.space import SearchSpace

OUTCOMES = (
    Outcome.COMPLETE,
    Outcome.PRUNED,
    Outcome.DIVERGED,
    Outcome.ERRORED,
    Outcome.INFEASIBLE,
    Outcome.RUNNING,
    Outcome.WAITING,
)
"""What a trial can be, in the order in which counts are shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StrategyRow:
    """All trials of one strategy, summed up.

    Attributes:
        strategy: The strategy; empty for trials that are still being proposed.
        trials: How many trials.
        counts: Trials by outcome; every key of the study's counts is present.
        best: The best complete trial, None without one.
        median: Median value of the complete trials.
        recipe: Value of the default recipe, None if it did not complete.
        seconds: Device seconds of its trials in the search.
        trainable_params: Trainable parameters of the best trial, else of the first that started.
        best_params: The searched values of the best trial.
        finalist: Fresh-seed scores of its best finalist, None if it has none.
    """

    strategy: str
    trials: int
    counts: Mapping[str, int]
    best: TrialRecord | None
    median: float | None
    recipe: float | None
    seconds: float
    trainable_params: int | None
    best_params: Mapping[str, Value]
    finalist: FinalistScore | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Savings:
    """What pruning saved.

    Attributes:
        pruned: Pruned trials.
        epochs_trained: Epochs that the pruned trials trained before they were stopped.
        epochs_saved: Epochs they would have trained further without pruning; at most, where trials may stop early.
        seconds_saved: Device seconds of those, at each trial's own seconds for an epoch.
        seconds_spent: Device seconds of all trials of the search.
    """

    pruned: int
    epochs_trained: int
    epochs_saved: int
    seconds_saved: float
    seconds_spent: float


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialRow:
    """One line of the table of trials.

    Attributes:
        epochs: Epochs that were reported.
        attempts: Executions; above one it was resumed.
        params: The searched values.
        note: Why it is in its state, and what a person should know.
        is_finalist: Whether it was trained again with fresh seeds.
    """

    number: int
    strategy: str
    outcome: Outcome
    value: float | None
    epochs: int
    seconds: float
    attempts: int
    trainable_params: int | None
    params: Mapping[str, Value]
    note: str
    is_recipe: bool
    is_finalist: bool


def compare_strategies(
    snapshot: StudySnapshot, *, ranked: Sequence[TrialRecord], finalists: Sequence[FinalistScore]
) -> tuple[StrategyRow, ...]:
    """One row for each strategy: the one with the best trial first, then those without a complete one as in the study file.

    Args:
        snapshot: The study.
        ranked: Its complete trials, best first.
        finalists: Its finalists, best first.
    """
    known = snapshot.study.space.names
    found = dict.fromkeys(trial.strategy for trial in snapshot.trials)
    names = [*known, *(name for name in found if name and name not in known), *([""] if "" in found else [])]
    places = {trial.strategy: place for place, trial in reversed(list(enumerate(ranked)))}
    names.sort(key=lambda name: places.get(name, len(ranked)))
    return tuple(_strategy_row(snapshot, name, ranked=ranked, finalists=finalists) for name in names)


def count_savings(snapshot: StudySnapshot) -> Savings:
    """What pruning saved over all trials of the study."""
    pruned = [trial for trial in snapshot.trials if trial.outcome is Outcome.PRUNED]
    saved, seconds, trained = 0, 0.0, 0
    for trial in pruned:
        done = len(trial.epochs)
        left = max(0, snapshot.study.spec.training.epochs - done)
        trained += done
        saved += left
        seconds += left * trial.seconds / done if done else 0.0
    return Savings(
        pruned=len(pruned),
        epochs_trained=trained,
        epochs_saved=saved,
        seconds_saved=seconds,
        seconds_spent=sum(trial.seconds for trial in snapshot.trials),
    )


def list_trials(snapshot: StudySnapshot) -> tuple[TrialRow, ...]:
    """Every trial, in the order of the numbers."""
    finalists = {finalist.number for finalist in snapshot.finalists}
    return tuple(
        TrialRow(
            number=trial.number,
            strategy=trial.strategy,
            outcome=trial.outcome,
            value=trial.value,
            epochs=len(trial.epochs),
            seconds=trial.seconds,
            attempts=len(trial.attempts),
            trainable_params=trial.trainable_params,
            params=searched_params(trial, space=snapshot.study.space),
            note="; ".join(part for part in (trial.reason, *trial.notes) if part),
            is_recipe=trial.is_recipe,
            is_finalist=trial.number in finalists,
        )
        for trial in sorted(snapshot.trials, key=lambda trial: trial.number)
    )


def searched_params(trial: TrialRecord, *, space: SearchSpace) -> dict[str, Value]:
    """A trial's absolute values without those that the study fixes; the learning rate comes first."""
    fixed: set[str] = set()
    if trial.strategy in space.names:
        for name, domain in space.block(trial.strategy).domains.items():
            if isinstance(domain, Fixed):
                fixed.add(absolute_name(name, strategy=trial.strategy, params=trial.params))
    names = sorted((name for name in trial.params if name not in fixed), key=lambda name: name != "learning_rate")
    return {name: trial.params[name] for name in names}


def absolute_name(name: str, *, strategy: str, params: Mapping[str, Value]) -> str:
    """The name under which a domain of the space stands among a trial's absolute values."""
    if name == RELATIVE_LEARNING_RATE:
        return "learning_rate"
    if name in params:
        return name
    plain = name.removeprefix(f"{strategy}.")
    return plain if plain in params else name


def _strategy_row(
    snapshot: StudySnapshot, name: str, *, ranked: Sequence[TrialRecord], finalists: Sequence[FinalistScore]
) -> StrategyRow:
    trials = [trial for trial in snapshot.trials if trial.strategy == name]
    complete = [trial for trial in ranked if trial.strategy == name]
    best = complete[0] if complete else None
    counts = Counter(trial.outcome.value for trial in trials)
    sizes = [trial.trainable_params for trial in trials if trial.trainable_params is not None]
    return StrategyRow(
        strategy=name,
        trials=len(trials),
        counts={outcome.value: counts[outcome.value] for outcome in OUTCOMES},
        best=best,
        median=statistics.median(trial.value for trial in complete if trial.value is not None) if complete else None,
        recipe=next((trial.value for trial in complete if trial.is_recipe), None),
        seconds=sum(trial.seconds for trial in trials),
        trainable_params=best.trainable_params if best is not None else next(iter(sizes), None),
        best_params=searched_params(best, space=snapshot.study.space) if best is not None else {},
        finalist=next((score for score in finalists if score.trial.strategy == name and score.mean is not None), None),
    )
