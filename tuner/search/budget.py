"""When the search is over, in words, and what there is no room for any more."""

from __future__ import annotations

import math
from dataclasses import replace

from tuner.store.costs import (
    Least,
    count_running,
    most_seconds_needed,
    seconds_expected,
    seconds_needed,
    seconds_reserved,
)
from tuner.store.records import BudgetUse, EndedRun
from tuner.study.names import count_noun, hours_words
from tuner.study.spec import BudgetSpec, StudySpec

CONFIRM_SHARE = 0.2
"""Share of the device hours, and of the hours by the clock, that is kept back for the confirmation at most."""


def with_budget(spec: StudySpec, budget: BudgetSpec) -> StudySpec:
    """A study with the budget that it has by now."""
    return spec if budget == spec.budget else spec.model_copy(update={"budget": budget})


def least_limits(spec: StudySpec, used: BudgetUse) -> Least:
    """The limits below which a study would have used too much already."""
    search = used.gpu_seconds - used.confirm_seconds
    share = 1.0 - CONFIRM_SHARE if spec.confirm.finalists else 1.0
    kept = _confirmation_needs(spec, used)
    seconds = max(used.gpu_seconds, min(search / share, search + kept))
    return Least(gpu_hours=_hundredths(seconds), hours=_hundredths(used.wall_seconds / share))


def _hundredths(seconds: float) -> float:
    return math.ceil(seconds / 36.0) / 100.0


def why_no_new_trial(spec: StudySpec, used: BudgetUse) -> str:
    """Why no new trial may start, or an empty string if one may.

    Of epochs it needs all that a trial may train: a budget is a promise, not a guess. Of device seconds it needs as many as half of
    the trials so far were done with, the pruned ones included, beside what is promised to those that run; before there is one, it may start.
    """
    budget = spec.budget
    if budget.trials is not None and used.trials >= budget.trials:
        return f"budget of {count_noun(budget.trials, 'trial')} is used"
    if budget.epochs is not None and used.epochs + spec.training.epochs > budget.epochs:
        return f"budget of {count_noun(budget.epochs, 'epoch')} is used ({used.epochs} trained, a trial needs {spec.training.epochs})"
    if reason := why_run_must_stop(spec, used, in_search=True):
        return reason
    need = seconds_expected(used.groups) or 0.0
    reserved = seconds_reserved(used.groups, in_search=True)
    return _why_too_little(spec, used, need=need, reserved=reserved, in_search=True, what="a trial")


def why_no_retraining(spec: StudySpec, used: BudgetUse, strategy: str) -> str:
    """Why no re-training of this strategy may start now, or an empty string if one may: it could not be finished."""
    need = seconds_needed(used.groups, strategy=strategy) or 0.0
    reserved = seconds_reserved(used.groups, in_search=False)
    return _why_too_little(spec, used, need=need, reserved=reserved, in_search=False, what="a re-training")


def _why_too_little(
    spec: StudySpec, used: BudgetUse, *, need: float, reserved: float, in_search: bool, what: str
) -> str:
    device, wall = _device_left(spec, used, in_search=in_search), _wall_left(spec, used, in_search=in_search)
    if device is not None and device - reserved < need:
        promised = f", {_span(reserved)} of them promised to what runs" if reserved else ""
        return f"{_device_words(spec.budget)} has {_span(device)} left{promised}; {what} needs about {_span(need)}"
    if wall is not None and wall < need:
        return f"budget of {hours_words(spec.budget.hours or 0.0)} has {_span(wall)} left; {what} needs about {_span(need)}"
    return ""


def why_run_must_stop(spec: StudySpec, used: BudgetUse, *, in_search: bool) -> str:
    """Why a run may not go on: the device hours, or those by the clock, are used up; an empty string if it may."""
    device, wall = _device_left(spec, used, in_search=in_search), _wall_left(spec, used, in_search=in_search)
    if device is not None and device <= 0.0:
        return f"{_device_words(spec.budget)} is used{_kept_words(spec, used) if in_search else ''}"
    if wall is not None and wall <= 0.0:
        kept = " (a fifth is kept for the confirmation)" if in_search and spec.confirm.finalists else ""
        return f"budget of {hours_words(spec.budget.hours or 0.0)} since the first trial is used{kept}"
    return ""


def seconds_until_stop(spec: StudySpec, used: BudgetUse, *, in_search: bool) -> float:
    """Seconds by the clock until :func:`why_run_must_stop` has a reason, at the pace of what runs now; infinite without a limit."""
    device, wall = _device_left(spec, used, in_search=in_search), _wall_left(spec, used, in_search=in_search)
    by_device = math.inf if device is None else device / max(1, count_running(used.groups))
    return max(0.0, min(by_device, math.inf if wall is None else wall))


def why_not_again(spec: StudySpec, used: BudgetUse, run: EndedRun) -> str:
    """Why a run that has ended may not run again, or an empty string if it may.

    Args:
        spec: The study.
        used: What it has used, this run included.
        run: The run.
    """
    if not run.in_search:
        return why_run_must_stop(spec, used, in_search=False) or why_no_retraining(spec, used, run.strategy)
    return why_no_new_trial(spec, replace(used, trials=used.trials - 1, epochs=used.epochs - run.epochs))


def used_share(spec: StudySpec, used: BudgetUse) -> float:
    """Used share of the tightest limit, 0 to 1."""
    shares = [0.0]
    if spec.budget.trials is not None:
        shares.append(used.trials / spec.budget.trials)
    if spec.budget.epochs is not None:
        shares.append(used.epochs / spec.budget.epochs)
    search = used.gpu_seconds - used.confirm_seconds
    for spent, left in (
        (search, _device_left(spec, used, in_search=True)),
        (used.wall_seconds, _wall_left(spec, used, in_search=True)),
    ):
        if left is not None:
            shares.append(spent / (spent + left) if left > 0.0 else 1.0)
    return min(1.0, max(shares))


def has_clock(budget: BudgetSpec) -> bool:
    """Whether time alone can end what runs."""
    return budget.device_hours is not None or budget.hours is not None


def _device_left(spec: StudySpec, used: BudgetUse, *, in_search: bool) -> float | None:
    """Device seconds that are left, for the search or in all; None without a limit."""
    hours = spec.budget.device_hours
    if hours is None:
        return None
    total = hours * 3600.0
    if not in_search:
        return total - used.gpu_seconds
    return total - _kept_seconds(spec, used, total=total) - (used.gpu_seconds - used.confirm_seconds)


def _kept_seconds(spec: StudySpec, used: BudgetUse, *, total: float) -> float:
    """Device seconds that the search must leave: a fifth, or all that the confirmation can need if that is less."""
    if not spec.confirm.finalists:
        return 0.0
    return min(CONFIRM_SHARE * total, _confirmation_needs(spec, used))


def _confirmation_needs(spec: StudySpec, used: BudgetUse) -> float:
    """Device seconds of a confirmation that is as dear as it can be; infinite while nothing is known, 0 without one."""
    if not spec.confirm.finalists:
        return 0.0
    need = most_seconds_needed(used.groups)
    return math.inf if need is None else spec.confirm.most_runs * need


def _wall_left(spec: StudySpec, used: BudgetUse, *, in_search: bool) -> float | None:
    """Seconds by the clock that are left, for the search or in all; None without a limit."""
    if spec.budget.hours is None:
        return None
    share = 1.0 - CONFIRM_SHARE if in_search and spec.confirm.finalists else 1.0
    return spec.budget.hours * 3600.0 * share - used.wall_seconds


def _device_words(budget: BudgetSpec) -> str:
    hours = budget.device_hours or 0.0
    words = hours_words(hours, kind="device")
    return f"budget of {words if hours == budget.gpu_hours else f'{budget.money:g} ({words} at {budget.price_per_hour:g})'}"


def _kept_words(spec: StudySpec, used: BudgetUse) -> str:
    total = (spec.budget.device_hours or 0.0) * 3600.0
    kept = _kept_seconds(spec, used, total=total)
    if not kept:
        return ""
    share = "a fifth is" if kept >= CONFIRM_SHARE * total else f"{_span(kept)} are"
    return f" ({share} kept for the confirmation)"


def _span(seconds: float) -> str:
    """Seconds in the unit that people would take."""
    if seconds >= 3600.0:
        return f"{seconds / 3600.0:.3g} h"
    return f"{seconds / 60.0:.3g} min" if seconds >= 60.0 else f"{seconds:.3g} s"
