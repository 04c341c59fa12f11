"""When the search is over, in words."""

from __future__ import annotations

import math
from dataclasses import replace

from tuner.store.records import BudgetUse
from tuner.study.spec import BudgetSpec, StudySpec

CONFIRM_SHARE = 0.2
"""Share of the device hours that is kept back for the confirmation, if one is asked for."""


def search_seconds(spec: StudySpec) -> float | None:
    """Device seconds that the search may use; None without such a limit."""
    if spec.budget.gpu_hours is None:
        return None
    share = 1.0 - CONFIRM_SHARE if spec.confirm.finalists else 1.0
    return spec.budget.gpu_hours * 3600.0 * share


def with_budget(spec: StudySpec, budget: BudgetSpec) -> StudySpec:
    """A study with the budget that it has by now."""
    return spec if budget == spec.budget else spec.model_copy(update={"budget": budget})


def least_gpu_hours(spec: StudySpec, used: BudgetUse) -> float:
    """The smallest device hours, up to a hundredth, of which a study has not used too many already."""
    share = 1.0 - CONFIRM_SHARE if spec.confirm.finalists else 1.0
    seconds = max(used.gpu_seconds, (used.gpu_seconds - used.confirm_seconds) / share)
    return math.ceil(seconds / 36.0) / 100.0


def why_no_new_trial(spec: StudySpec, used: BudgetUse) -> str:
    """Why no new trial may start, or an empty string if one may.

    A new trial needs room for all its epochs: a budget is a promise, not a guess.
    """
    budget = spec.budget
    if budget.trials is not None and used.trials >= budget.trials:
        return f"budget of {budget.trials} trials is used"
    if budget.epochs is not None and used.epochs + spec.training.epochs > budget.epochs:
        return f"budget of {budget.epochs} epochs is used ({used.epochs} trained, {spec.training.epochs} are needed for a trial)"
    seconds = search_seconds(spec)
    if seconds is not None and used.gpu_seconds - used.confirm_seconds >= seconds:
        kept = " (a fifth is kept for the confirmation)" if spec.confirm.finalists else ""
        return f"budget of {budget.gpu_hours:g} device hours is used{kept}"
    return ""


def why_run_must_stop(spec: StudySpec, used: BudgetUse, *, in_search: bool) -> str:
    """Why a run may not go on: the device hours are used up; an empty string if it may."""
    if spec.budget.gpu_hours is None:
        return ""
    search = search_seconds(spec)
    is_over = used.gpu_seconds >= spec.budget.gpu_hours * 3600.0
    if in_search and search is not None:
        is_over = used.gpu_seconds - used.confirm_seconds >= search
    return f"budget of {spec.budget.gpu_hours:g} device hours is used" if is_over else ""


def why_not_again(spec: StudySpec, used: BudgetUse, epochs: int | None) -> str:
    """Why a run that has ended may not run again, or an empty string if it may.

    Args:
        spec: The study.
        used: What it has used, this run included.
        epochs: What of it a trial of the search has trained; None for a re-training, which no trial is waiting for.
    """
    if epochs is None:
        return why_run_must_stop(spec, used, in_search=False)
    return why_no_new_trial(spec, replace(used, trials=used.trials - 1, epochs=used.epochs - epochs))


def used_share(spec: StudySpec, used: BudgetUse) -> float:
    """Used share of the tightest limit, 0 to 1."""
    shares = [0.0]
    if spec.budget.trials is not None:
        shares.append(used.trials / spec.budget.trials)
    if spec.budget.epochs is not None:
        shares.append(used.epochs / spec.budget.epochs)
    seconds = search_seconds(spec)
    if seconds is not None:
        shares.append((used.gpu_seconds - used.confirm_seconds) / seconds)
    return min(1.0, max(shares))
