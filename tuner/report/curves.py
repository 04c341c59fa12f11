"""What the figures show, computed from a snapshot before anything is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuner.report.comparison import absolute_name, searched_params
from tuner.store.records import Outcome, StudySnapshot, TrialRecord
from tuner.study.domains import Choice, Domain, Fixed, Range, Value
from tuner.study.plan import Confusion


@dataclass(frozen=True, kw_only=True, slots=True)
class BestSoFar:
    """The best complete value of one strategy against what was spent on it.

    Attributes:
        strategy: The strategy.
        trials: How many of its trials had ended at each point.
        seconds: Device seconds spent on them at each point.
        values: Best value at each point.
        numbers: Number of the trial that holds it.
    """

    strategy: str
    trials: tuple[int, ...]
    seconds: tuple[float, ...]
    values: tuple[float, ...]
    numbers: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class LearningCurve:
    """The objective's metric after each epoch of one trial.

    Attributes:
        number: The trial.
        strategy: Its strategy.
        outcome: What became of it.
        epochs: 1-based epochs that reported the metric.
        values: Their values.
        resumed: Those of ``epochs`` that were the first of a later attempt.
    """

    number: int
    strategy: str
    outcome: Outcome
    epochs: tuple[int, ...]
    values: tuple[float, ...]
    resumed: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One searched hyperparameter over all strategies that have it.

    Attributes:
        name: Its absolute name.
        log: Whether its axis is logarithmic.
        options: The values of a choice in ascending order, empty for a range.
        low: Smallest value that was tried, 0.0 for a choice.
        high: Largest value that was tried, 0.0 for a choice.
    """

    name: str
    log: bool
    options: tuple[Value, ...]
    low: float
    high: float

    def position(self, value: Value) -> float:
        """Where a value lies on the axis, from 0 to 1."""
        if self.options:
            return 0.5 if len(self.options) == 1 else self.options.index(value) / (len(self.options) - 1)
        if self.high == self.low:
            return 0.5
        if self.log:
            return math.log(float(value) / self.low) / math.log(self.high / self.low)
        return (float(value) - self.low) / (self.high - self.low)


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """One complete or pruned trial as its searched values and its result."""

    number: int
    strategy: str
    params: Mapping[str, Value]
    value: float
    pruned: bool


def trace_best(snapshot: StudySnapshot) -> tuple[BestSoFar, ...]:
    """The best value so far of each strategy that has a complete trial, over its trials in the order of their ends."""
    better = max if snapshot.study.maximize else min
    traces = []
    for strategy in strategy_names(snapshot):
        ended = [t for t in snapshot.trials if t.strategy == strategy and t.outcome.is_finished]
        ended.sort(key=lambda trial: (trial.ended_at or 0.0, trial.number))
        spent, best, holder = 0.0, math.nan, -1
        points: list[tuple[int, float, float, int]] = []
        for count, trial in enumerate(ended, start=1):
            spent += trial.seconds
            value = trial.value if trial.outcome is Outcome.COMPLETE else None
            if value is not None and (holder < 0 or better(best, value) != best):
                best, holder = value, trial.number
            if holder >= 0:
                points.append((count, spent, best, holder))
        if points:
            trials, seconds, values, numbers = zip(*points, strict=True)
            traces.append(BestSoFar(strategy=strategy, trials=trials, seconds=seconds, values=values, numbers=numbers))
    return tuple(traces)


def trace_learning(snapshot: StudySnapshot) -> tuple[LearningCurve, ...]:
    """One curve for each trial that reported the objective at least once."""
    metric = snapshot.study.metric
    curves = []
    for trial in snapshot.trials:
        reports = [report for report in trial.epochs if math.isfinite(report.metrics.get(metric, math.nan))]
        if not reports:
            continue
        later = [
            new.epoch for old, new in zip(trial.epochs, trial.epochs[1:], strict=False) if new.attempt > old.attempt
        ]
        curves.append(
            LearningCurve(
                number=trial.number,
                strategy=trial.strategy,
                outcome=trial.outcome,
                epochs=tuple(report.epoch for report in reports),
                values=tuple(report.metrics[metric] for report in reports),
                resumed=tuple(later),
            )
        )
    return tuple(curves)


def list_points(snapshot: StudySnapshot) -> tuple[Point, ...]:
    """Every complete or pruned trial that has a value."""
    space = snapshot.study.space
    return tuple(
        Point(
            number=trial.number,
            strategy=trial.strategy,
            params=searched_params(trial, space=space),
            value=trial.value,
            pruned=trial.outcome is Outcome.PRUNED,
        )
        for trial in snapshot.trials
        if trial.value is not None and math.isfinite(trial.value)
    )


def list_parameters(snapshot: StudySnapshot, points: Sequence[Point]) -> tuple[Parameter, ...]:
    """The searched hyperparameters with at least two values tried, those of most trials first."""
    domains = _domains(snapshot)
    tried: dict[str, list[Value]] = {}
    for point in points:
        for name, value in point.params.items():
            tried.setdefault(name, []).append(value)
    found = [
        _parameter(name, values, domains=domains.get(name, ()))
        for name, values in tried.items()
        if len(set(values)) > 1
    ]
    return tuple(sorted(found, key=lambda parameter: -len(tried[parameter.name])))


def strategy_names(snapshot: StudySnapshot) -> tuple[str, ...]:
    """The strategies in the order of the study file, then any others that trials name."""
    known = snapshot.study.space.names
    others = dict.fromkeys(trial.strategy for trial in snapshot.trials if trial.strategy not in known)
    return (*known, *(name for name in others if name))


def top_confusions(confusion: Confusion, *, limit: int) -> tuple[tuple[str, str, int], ...]:
    """The most frequent mistakes as (true class, predicted class, rows), most rows first."""
    mistakes = [
        (confusion.labels[row], confusion.labels[column], count)
        for row, counts in enumerate(confusion.counts)
        for column, count in enumerate(counts)
        if row != column and count
    ]
    return tuple(sorted(mistakes, key=lambda mistake: -mistake[2])[:limit])


def cut_confusion(confusion: Confusion, *, classes: int) -> Confusion:
    """The rows and columns of the classes with the most mistakes, in their order; the whole matrix if it is small."""
    size = len(confusion.labels)
    if size <= classes:
        return confusion
    wrong = [0] * size
    for row, counts in enumerate(confusion.counts):
        for column, count in enumerate(counts):
            if row != column:
                wrong[row] += count
                wrong[column] += count
    kept = sorted(sorted(range(size), key=lambda index: -wrong[index])[:classes])
    return Confusion(
        labels=tuple(confusion.labels[index] for index in kept),
        counts=tuple(tuple(confusion.counts[row][column] for column in kept) for row in kept),
    )


def _domains(snapshot: StudySnapshot) -> dict[str, list[Domain]]:
    domains: dict[str, list[Domain]] = {}
    for block in snapshot.study.space.strategies:
        values = next((trial.params for trial in snapshot.trials if trial.strategy == block.strategy), {})
        for name, domain in block.domains.items():
            domains.setdefault(absolute_name(name, strategy=block.strategy, params=values), []).append(domain)
    return domains


def _parameter(name: str, values: Sequence[Value], *, domains: Sequence[Domain]) -> Parameter:
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    chosen = any(isinstance(domain, Choice) for domain in domains)
    ranged = any(isinstance(domain, Range) for domain in domains)
    if len(numbers) < len(values) or (chosen and not ranged):
        distinct = dict.fromkeys(values)
        for domain in domains:
            distinct.update(dict.fromkeys(domain.options if isinstance(domain, Choice) else ()))
            distinct.update(
                dict.fromkeys([domain.value] if isinstance(domain, Fixed) and domain.value in values else ())
            )
        key = float if len(numbers) == len(values) else str
        return Parameter(name=name, log=False, options=tuple(sorted(distinct, key=key)), low=0.0, high=0.0)
    wanted = name == "learning_rate" or any(isinstance(domain, Range) and domain.log for domain in domains)
    return Parameter(name=name, log=wanted and min(numbers) > 0.0, options=(), low=min(numbers), high=max(numbers))


def pick_confusion(snapshot: StudySnapshot, winner: TrialRecord | None) -> tuple[Confusion, str] | None:
    """The winner's counts and where they come from: the middle one of its test scores, else its validation rows."""
    if winner is None:
        return None
    metric = snapshot.study.metric
    runs = [run for finalist in snapshot.finalists if finalist.number == winner.number for run in finalist.runs]
    scored = sorted(
        (run.test.metrics.get(metric, 0.0), run.seed, run.test.confusion) for run in runs if run.test is not None
    )
    if scored:
        _, seed, confusion = scored[(len(scored) - 1) // 2]
        middle = f", the middle one of {len(scored)} by score" if len(scored) > 1 else ""
        return confusion, f"test rows, seed {seed}{middle}"
    if winner.confusion is not None:
        return winner.confusion, "validation rows of the search"
    return None
