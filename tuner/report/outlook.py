"""What a study that has begun will have cost when it is over, from its own trials."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tuner.report.formats import format_seconds
from tuner.store.records import Outcome, StudySnapshot, StudyState, TrialRecord
from tuner.study.outlook import (
    FASTER,
    SLOWER,
    Outlook,
    PastTraining,
    Span,
    conclude,
    soonest_share,
    strategy_costs,
)
from tuner.study.spec import StudySpec

_RULE = 4
"""Sampled trials that the rule is worth by which trials are judged before any has begun."""

_VAGUE = 1.5
"""By what factor the rule may be wrong, because it stands on few trials that met the same neighbours on their box."""

_UNSEEN = 2.0
"""A strategy that has not been trained may cost half of the cheapest one that has, or twice the dearest."""


def foresee_end(snapshot: StudySnapshot) -> Outlook | None:
    """An interval for the whole study; None where nothing is to come, or too little is known.

    That is before a trial has finished two epochs, of two strategies where several compete: one alone says nothing of the others.

    Args:
        snapshot: The study as it was read.
    """
    study = snapshot.study
    past = [one for trial in snapshot.trials if (one := _as_past(trial, study.spec.training.max_length)) is not None]
    if study.state not in (StudyState.SEARCHING, StudyState.CONFIRMING):
        return None
    if len({one.strategy for one in past}) < min(2, len(study.spec.strategy_names)):
        return None
    running = [trial for trial in snapshot.trials if not trial.outcome.is_finished]
    busy = sum(trial.outcome is Outcome.RUNNING for trial in running)
    busy += sum(run.outcome is Outcome.RUNNING for finalist in snapshot.finalists for run in finalist.runs)
    slots = sum(len(worker.devices) for worker in snapshot.workers if worker.is_alive)
    whole = _whole_trainings(study.spec, past)
    dearest = max(span.high for span in whole.values())
    to_come = _trials_to_come(snapshot)
    search = None
    if to_come is not None:
        a_trial = _of_a_trial(snapshot.trials, whole=whole, spec=study.spec, to_come=to_come)
        rest = [(whole[one.strategy], one.seconds) for one in running if one.strategy in whole]
        fewest = to_come if study.spec.search.stop_when is None else 0
        low = fewest * a_trial.low  # what runs may be stopped after its next epoch
        high = to_come * a_trial.high + sum(max(0.0, span.high - seconds) for span, seconds in rest)
        search = Span(low=low * FASTER, high=high * SLOWER)
    return conclude(
        study.spec,
        search=search,
        confirmation=_confirmation(snapshot, whole=whole).times(FASTER, SLOWER),
        longest=dearest,
        trials=to_come,
        a_trial=_short_trial(snapshot.trials, whole=whole),
        workers=max(1, slots, busy),
        busy=busy,
        stands_on=f"{len(past)} {'trial' if len(past) == 1 else 'trials'} of this study",
        spent=study.used.gpu_seconds,
        elapsed=study.used.wall_seconds,
    )


def _as_past(trial: TrialRecord, max_length: int) -> PastTraining | None:
    """A trial as a training that tells what others take; None if it tells too little."""
    records = [one for one in trial.epochs if one.attempt == trial.epochs[-1].attempt]  # between attempts time is lost
    if len(records) < 2 or not trial.strategy:
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


def _whole_trainings(spec: StudySpec, past: Sequence[PastTraining]) -> Mapping[str, Span]:
    """Device seconds of a whole training of each strategy.

    What is fixed is dear in the first trials, which load what later ones find ready: the low end takes the least, or nothing of it where
    there are only such trials, the high end the median.
    """
    fixed = [one.fixed for one in past]
    ends = (min(fixed) if len(fixed) > 2 else 0.0, statistics.median(fixed))
    low, high = (
        {
            name: cost.whole(spec.training.epochs)
            for name, cost in strategy_costs(spec, past=[replace(one, fixed=seconds) for one in past], rows=0.0).items()
        }
        for seconds in ends
    )
    seen = {one.strategy for one in past} & set(low)
    if not seen:
        return {name: Span(low=low[name], high=high[name]) for name in low}
    other = Span(low=min(low[name] for name in seen) / _UNSEEN, high=max(high[name] for name in seen) * _UNSEEN)
    return {name: Span(low=low[name], high=high[name]) if name in seen else other for name in low}


def _of_a_trial(trials: Sequence[TrialRecord], *, whole: Mapping[str, Span], spec: StudySpec, to_come: int) -> Span:
    """Device seconds of the mean trial to come: of the sampled ones so far, and a rule while they are few.

    The rule: half of the trials go to the cheapest strategy and as many as can be are stopped, or half to the dearest and none is. What runs
    still counts with what it has used in the low end and with a whole training in the high end: those that ended first were
    stopped first. Pruning sets in and the search turns, so the later half of the trials has a say of its own.
    """
    begun = [one for one in trials if not one.is_recipe and one.strategy in whole and one.outcome in _TELLING]
    lows, highs = [span.low for span in whole.values()], [span.high for span in whole.values()]
    least = (statistics.mean(lows) + min(lows)) / 2.0 * soonest_share(spec) / _VAGUE
    most = (statistics.mean(highs) + max(highs)) / 2.0 * _VAGUE
    at_least = [one.seconds for one in begun]
    at_most = [one.seconds if one.outcome.is_finished else max(one.seconds, whole[one.strategy].high) for one in begun]
    low = _end(at_least, rule=least, to_come=to_come, sign=-1)
    high = _end(at_most, rule=most, to_come=to_come, sign=1)
    return Span(low=min(low, high), high=high)


def _short_trial(trials: Sequence[TrialRecord], *, whole: Mapping[str, Span]) -> float:
    """Device seconds of a short trial: the mean of those that are over, or the cheapest whole training before any is."""
    over = [one.seconds for one in trials if one.outcome.is_finished and one.outcome in _TELLING]
    return statistics.mean(over) if over else min(span.low for span in whole.values())


_TELLING = (Outcome.RUNNING, Outcome.COMPLETE, Outcome.PRUNED, Outcome.DIVERGED)
"""Trials that tell what others will take."""


def _end(seconds: Sequence[float], *, rule: float, to_come: int, sign: int) -> float:
    """One end of the mean of so many trials to come, from those so far: the low one for a sign of -1, the high one for 1."""
    count = len(seconds)
    if not count:
        return rule
    halves = [seconds, seconds[count // 2 :]]
    mean = sign * max(sign * statistics.mean(half) for half in halves)
    spread = statistics.stdev(seconds) if count > 1 else abs(rule - mean)
    error = spread * math.sqrt(1.0 / count + 1.0 / max(1, to_come))
    return max(0.0, (count * (mean + sign * error) + _RULE * rule) / (count + _RULE))


def _confirmation(snapshot: StudySnapshot, *, whole: Mapping[str, Span]) -> Span:
    """Device seconds of the re-trainings to come."""
    confirm = snapshot.study.spec.confirm
    dearest = max(span.high for span in whole.values())
    if not confirm.finalists:
        return Span(low=0.0, high=0.0)
    if snapshot.study.state is StudyState.CONFIRMING:
        left = sum(not run.outcome.is_finished for finalist in snapshot.finalists for run in finalist.runs)
        return Span(low=0.0, high=left * dearest)
    complete = [trial.seconds for trial in snapshot.trials if trial.outcome is Outcome.COMPLETE]
    return Span(
        low=confirm.fewest_runs * min([*complete, *(span.low for span in whole.values())]),
        high=confirm.most_runs * max([*complete, dearest]),
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
