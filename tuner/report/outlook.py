"""What a study that has begun will have cost when it is over, from its own trials."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from tuner.report.formats import format_seconds
from tuner.store.records import Outcome, StudySnapshot, StudyState, TrialRecord
from tuner.study.outlook import (
    FASTER,
    SLOWER,
    Outlook,
    PastTraining,
    Span,
    conclude,
    mixed,
    soonest_share,
    strategy_costs,
)

_ENOUGH = 5
"""Sampled trials that have ended, from which on their mean is worth more than a rule."""


def foresee_end(snapshot: StudySnapshot) -> Outlook | None:
    """An interval for the whole study; None where nothing is to come, or no trial has finished two epochs.

    Args:
        snapshot: The study as it was read.
    """
    study = snapshot.study
    past = [one for trial in snapshot.trials if (one := _as_past(trial, study.spec.training.max_length)) is not None]
    if study.state not in (StudyState.SEARCHING, StudyState.CONFIRMING) or not past:
        return None
    running = [trial for trial in snapshot.trials if not trial.outcome.is_finished]
    busy = sum(trial.outcome is Outcome.RUNNING for trial in running)
    busy += sum(run.outcome is Outcome.RUNNING for finalist in snapshot.finalists for run in finalist.runs)
    slots = sum(len(worker.devices) for worker in snapshot.workers if worker.is_alive)
    costs = strategy_costs(study.spec, past=past, rows=0.0)
    epochs = study.spec.training.epochs
    every = [cost.whole(epochs) for cost in costs.values()]
    to_come = _trials_to_come(snapshot)
    search = None
    if to_come is not None:
        share = soonest_share(study.spec)
        a_trial = _of_a_trial(snapshot.trials, soonest=mixed(costs, share=share, epochs=epochs).low, most=max(every))
        open_ones = [
            max(0.0, costs[one.strategy].whole(epochs) - one.seconds) for one in running if one.strategy in costs
        ]
        fewest = to_come if study.spec.search.stop_when is None else 0
        low = fewest * a_trial.low + 0.2 * sum(open_ones)
        search = Span(low=low * FASTER, high=(to_come * a_trial.high + sum(open_ones)) * SLOWER)
    return conclude(
        study.spec,
        search=search,
        confirmation=_confirmation(snapshot, every=every).times(FASTER, SLOWER),
        longest=max(every),
        trials=to_come or 0,
        workers=max(1, slots, busy),
        busy=busy,
        stands_on=f"{len(past)} {'trial' if len(past) == 1 else 'trials'} of this study",
        spent=study.used.gpu_seconds,
        elapsed=study.used.wall_seconds,
    )


def _as_past(trial: TrialRecord, max_length: int) -> PastTraining | None:
    """A trial as a training that tells what others take; None if it tells too little."""
    records = trial.epochs
    if len(records) < 2 or len(trial.attempts) != 1 or not trial.strategy:
        return None
    per_epoch = (records[-1].seconds - records[0].seconds) / (records[-1].epoch - records[0].epoch)
    fixed = records[0].seconds - per_epoch * records[0].epoch
    return PastTraining(
        strategy=trial.strategy, max_length=max_length, rows=0.0, fixed=max(0.0, fixed), per_epoch=per_epoch
    )


def _trials_to_come(snapshot: StudySnapshot) -> int | None:
    """New trials at most; None if only time ends the search."""
    study = snapshot.study
    if study.state is not StudyState.SEARCHING:
        return 0
    budget, used = study.spec.budget, study.used
    bounds = [] if budget.trials is None else [budget.trials - used.trials]
    if budget.epochs is not None:
        mean = max(1.0, used.epochs / used.trials) if used.trials else float(study.spec.training.epochs)
        bounds.append(math.floor((budget.epochs - used.epochs) / mean))
    return max(0, min(bounds)) if bounds else None


def _of_a_trial(trials: Sequence[TrialRecord], *, soonest: float, most: float) -> Span:
    """Device seconds of the mean trial to come: of the sampled ones so far, within two standard errors."""
    ended = [one for one in trials if one.outcome in (Outcome.COMPLETE, Outcome.PRUNED) and one.epochs]
    seconds = [one.seconds for one in ended if not one.is_recipe]
    if len(seconds) < _ENOUGH:
        return Span(low=soonest, high=most)
    mean = statistics.mean(seconds)
    error = 2.0 * statistics.stdev(seconds) / math.sqrt(len(seconds))
    return Span(low=max(mean - error, min(soonest, mean)), high=min(mean + error, max(most, mean)))


def _confirmation(snapshot: StudySnapshot, *, every: Sequence[float]) -> Span:
    """Device seconds of the re-trainings to come."""
    confirm = snapshot.study.spec.confirm
    if not confirm.finalists:
        return Span(low=0.0, high=0.0)
    if snapshot.study.state is StudyState.CONFIRMING:
        left = sum(not run.outcome.is_finished for finalist in snapshot.finalists for run in finalist.runs)
        return Span(low=0.0, high=left * max(every))
    complete = [trial.seconds for trial in snapshot.trials if trial.outcome is Outcome.COMPLETE] or list(every)
    return Span(
        low=confirm.finalists * min(complete),
        high=(confirm.finalists + 1) * confirm.seeds * max(*complete, *every),
    )


def spending_words(snapshot: StudySnapshot) -> str:
    """What a study has used, and what it will have used at its end, in a line."""
    used, price = snapshot.study.used, snapshot.study.spec.budget.price_per_hour
    words = f"{format_seconds(used.gpu_seconds)} of device time"
    if price is not None:
        words += f", cost {used.gpu_seconds / 3600.0 * price:.2f}"
    outlook = foresee_end(snapshot)
    if outlook is None:
        return words
    low, high = (format_seconds(hours * 3600.0) for hours in (outlook.device_hours.low, outlook.device_hours.high))
    words += f"; at the end {low} to {high}"
    return words if outlook.money is None else f"{words}, cost {outlook.money.low:.2f} to {outlook.money.high:.2f}"
