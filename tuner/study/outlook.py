"""What a study will cost in device hours, hours by the clock and money: an interval, from trainings that are over.

The low end takes it that losers are stopped after their first epoch and that the search turns to what is cheap, the high end that nothing is
stopped and that it turns to what is dear.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuner.study.spec import StudySpec

_SOONEST = 0.2
"""Share of the trials that are trained to the end where pruning stops as many as it can; the others get one epoch."""

_BETWEEN = 0.5
"""Seconds, at most, in which a slot is handed its next trial."""

SLOWER, FASTER = 1.25, 0.8
"""What neighbours on the box, or none, make of a device's speed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PastTraining:
    """What one training took.

    Attributes:
        strategy: How the model was adapted.
        max_length: Most tokens of a row.
        rows: Rows that an epoch goes through: those that are trained on, and a third of those that judge; 0 if that is not known.
        fixed: Device seconds beside the epochs: loading and storing.
        per_epoch: Device seconds of an epoch.
        device: What it ran on.
    """

    strategy: str
    max_length: int
    rows: float
    fixed: float
    per_epoch: float
    device: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """From about here to about there."""

    low: float
    high: float

    def plus(self, other: Span) -> Span:
        """The sum."""
        return Span(low=self.low + other.low, high=self.high + other.high)

    def times(self, low: float, high: float) -> Span:
        """Each end by its factor."""
        return Span(low=self.low * low, high=self.high * high)

    def at_most(self, limit: float | None) -> Span:
        """Cut at a limit, if there is one."""
        return self if limit is None else Span(low=min(self.low, limit), high=min(self.high, limit))


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """What a study will have cost when it is over.

    Attributes:
        device_hours: Of all slots together, the confirmation included.
        hours: By the clock, from the first trial on.
        workers: Slots that it is thought to have.
        money: At the study's price, None without one.
        stands_on: What the interval stands on, in words.
    """

    device_hours: Span
    hours: Span
    workers: int
    money: Span | None
    stands_on: str


def rows_of_an_epoch(train: int, validation: int) -> float:
    """Rows that an epoch goes through, in the time of those that are trained on: judging a row takes a third."""
    return train + validation / 3.0


def foresee(spec: StudySpec, *, past: Sequence[PastTraining], tried_first: int, rows: float, workers: int) -> Outlook:
    """What a study that has not begun will cost.

    Args:
        spec: The study.
        past: Trainings of the same model; at least one.
        tried_first: Recipes that are tried before the search proposes anything.
        rows: Rows that an epoch of the study goes through; 0 if that is not known.
        workers: Slots that will serve it.
    """
    costs = strategy_costs(spec, past=past, rows=rows)
    whole = mixed(costs, share=1.0, epochs=spec.training.epochs)
    # Where only epochs are counted, those that pruning saves are trained by other trials.
    soonest = whole if spec.budget.trials is None else _soonest(spec, costs)
    trials = _trials(spec)
    recipes = min(tried_first, trials) if trials is not None else tried_first
    every = [cost.whole(spec.training.epochs) for cost in costs.values()]
    of_recipes = Span(low=recipes * statistics.mean(every) * 0.5, high=recipes * statistics.mean(every))
    search = None
    if trials is not None:
        fewest = trials if spec.search.stop_when is None else min(trials, 2 * spec.search.stop_when.trials)
        sampled = Span(low=max(0, fewest - recipes) * soonest.low, high=(trials - recipes) * whole.high)
        search = of_recipes.plus(sampled)
    return conclude(
        spec,
        search=None if search is None else search.times(FASTER, SLOWER),
        confirmation=_confirmation(spec, whole=whole, dearest=max(every)).times(FASTER, SLOWER),
        longest=max(every) * SLOWER,
        trials=trials,
        a_trial=_soonest(spec, costs).low,
        workers=workers,
        stands_on=_words(past),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """Device seconds of a strategy's training."""

    fixed: float
    per_epoch: float

    def whole(self, epochs: float) -> float:
        """Of so many epochs."""
        return self.fixed + self.per_epoch * epochs


def strategy_costs(spec: StudySpec, *, past: Sequence[PastTraining], rows: float) -> Mapping[str, Cost]:
    """The mean cost of each strategy of a study; one that was never trained costs the mean of all that were."""
    found: dict[str, list[Cost]] = {}
    for one in past:
        scale = rows / one.rows if rows and one.rows else 1.0
        scale *= (spec.training.max_length / one.max_length) ** 0.5  # most rows are shorter than the limit
        found.setdefault(one.strategy, []).append(Cost(fixed=one.fixed, per_epoch=one.per_epoch * scale))
    known = {name: _mean(costs) for name, costs in found.items()}
    other = _mean(list(known.values()))
    return {name: known.get(name, other) for name in spec.strategy_names}


def mixed(costs: Mapping[str, Cost], *, share: float, epochs: int) -> Span:
    """A trial of a strategy that is not known yet: half of them go to the cheapest one, or to the dearest."""
    every = [cost.whole(share * epochs) for cost in costs.values()]
    mean = statistics.mean(every)
    return Span(low=(mean + min(every)) / 2.0, high=(mean + max(every)) / 2.0)


def soonest_share(spec: StudySpec) -> float:
    """Share of its epochs that the mean trial is trained for where as many as possible are stopped.

    A fifth of the trials go to the end and the others have one epoch; or, where epochs are many, each third of the trials goes on for three
    times as many epochs as the one before, which is less.
    """
    epochs = spec.training.epochs
    if spec.search.pruner.name != "none":
        thirds = math.floor(math.log(epochs, 3)) + 1
        halved = (2.0 / 3.0 * thirds + epochs / 3.0**thirds) / epochs
        return min(_SOONEST + (1.0 - _SOONEST) / epochs, halved)
    patience = spec.training.patience
    return 1.0 if patience is None else min(1.0, (patience + 1) / epochs)


def conclude(
    spec: StudySpec,
    *,
    search: Span | None,
    confirmation: Span,
    longest: float,
    trials: int | None,
    a_trial: float,
    workers: int,
    stands_on: str,
    busy: int | None = None,
    spent: float = 0.0,
    elapsed: float = 0.0,
) -> Outlook:
    """An outlook from what the search and the confirmation still need, cut at the study's limits.

    Args:
        spec: The study.
        search: Device seconds to come in the search; None if only time ends it.
        confirmation: Device seconds to come in the confirmation.
        longest: Device seconds of the longest training: the last of each stage is waited for.
        trials: Trials to come; None if only time ends the search.
        a_trial: Device seconds of a short trial, which says how many there may be where only time ends the search.
        workers: Slots that serve the study.
        stands_on: What the interval stands on.
        busy: How many of them do at this moment, the others perhaps another study; None: all.
        spent: Device seconds so far.
        elapsed: Seconds by the clock so far.
    """
    budget = spec.budget
    # A limit may be passed already: hours go by while no worker is there, and limits are lowered.
    limit = None if budget.device_hours is None else max(spent, budget.device_hours * 3600.0)
    clock = None if budget.hours is None else max(elapsed, budget.hours * 3600.0)
    if search is None:
        most = min(
            limit - spent if limit is not None else float("inf"),
            (clock - elapsed) * workers if clock is not None else float("inf"),
        )
        to_come = Span(low=most * 0.7, high=most)
    else:
        to_come = search.plus(confirmation)
    device = to_come.plus(Span(low=spent, high=spent)).at_most(limit)
    fewest = max(1, workers if busy is None else busy)
    handed = trials if trials is not None else to_come.high / max(a_trial, _BETWEEN)
    waiting = (2 if spec.confirm.finalists else 1) * longest + handed * _BETWEEN / fewest
    wall = Span(
        low=elapsed + (device.low - spent) / workers, high=elapsed + (device.high - spent) / fewest + waiting
    ).at_most(clock)
    if clock is not None:
        device = device.at_most(spent + (clock - elapsed) * workers)
    price = budget.price_per_hour
    hours = device.times(1 / 3600.0, 1 / 3600.0)
    return Outlook(
        device_hours=hours,
        hours=wall.times(1 / 3600.0, 1 / 3600.0),
        workers=workers,
        money=None if price is None else hours.times(price, price),
        stands_on=stands_on,
    )


def _confirmation(spec: StudySpec, *, whole: Span, dearest: float) -> Span:
    """The finalists with fresh seeds; a race may end after the first seeds."""
    confirm = spec.confirm
    if not confirm.finalists:
        return Span(low=0.0, high=0.0)
    fewest, most = confirm.fewest_runs, confirm.most_runs
    return Span(low=fewest * whole.low, high=most * dearest)


def _soonest(spec: StudySpec, costs: Mapping[str, Cost]) -> Span:
    return mixed(costs, share=soonest_share(spec), epochs=spec.training.epochs)


def _trials(spec: StudySpec) -> int | None:
    """Trials that the study has at most; None where only time ends it."""
    budget = spec.budget
    bounds = [] if budget.trials is None else [budget.trials]
    if budget.epochs is not None:
        bounds.append(budget.epochs // spec.training.epochs)
    return min(bounds, default=None)


def _mean(costs: Sequence[Cost]) -> Cost:
    return Cost(
        fixed=statistics.mean(cost.fixed for cost in costs),
        per_epoch=statistics.mean(cost.per_epoch for cost in costs),
    )


def _words(past: Sequence[PastTraining]) -> str:
    devices = sorted({one.device for one in past if one.device})
    where = f" on {', '.join(devices[:3])}" if devices else ""
    return f"{len(past)} past {'trial' if len(past) == 1 else 'trials'} of this model{where}"
