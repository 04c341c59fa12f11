"""What a training of a study costs, in device seconds, as its runs so far tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.store.records import Outcome, RunGroup

_STRANGE = frozenset({Outcome.ERRORED, Outcome.INFEASIBLE, Outcome.DIVERGED})
"""Ends that say little about what a training costs that goes well."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Least:
    """The smallest limits of which a study has not used too much already.

    Attributes:
        gpu_hours: Device hours, up to a hundredth.
        hours: Hours by the clock, up to a hundredth.
    """

    gpu_hours: float
    hours: float


def seconds_needed(groups: Sequence[RunGroup], *, strategy: str = "") -> float | None:
    """Device seconds that a whole training takes: what a trial needs that is not pruned.

    The trials of the strategy that were complete tell it, else the epochs of those that were pruned or run, else those of all strategies.

    Args:
        groups: Of the study.
        strategy: Empty for a trial whose strategy is not known yet: the mean over the trials so far.

    Returns:
        None while no trial has finished an epoch.
    """
    search = [group for group in groups if group.in_search and group.strategy and group.outcome not in _STRANGE]
    names = {group.strategy for group in search}
    if (
        strategy in names
        and (own := _seconds_of([group for group in search if group.strategy == strategy])) is not None
    ):
        return own
    weighed = [(_count(search, name), _seconds_of([one for one in search if one.strategy == name])) for name in names]
    known = [(runs, seconds) for runs, seconds in weighed if seconds is not None]
    runs = sum(runs for runs, _ in known)
    return sum(runs * seconds for runs, seconds in known) / runs if runs else None


def seconds_expected(groups: Sequence[RunGroup]) -> float | None:
    """Device seconds that half of the trials so far were done with, pruned or complete; else those of a whole training.

    The mean is above what most trials take, since most are stopped early: a budget that waited for it would leave more unused.

    Returns:
        None while no trial has finished an epoch.
    """
    ended = [group for group in groups if group.in_search and group.epochs and group.seconds]
    ended = [group for group in ended if group.outcome in (Outcome.COMPLETE, Outcome.PRUNED)]
    if not ended:
        return seconds_needed(groups)
    done, half = 0, sum(group.runs for group in ended) / 2.0
    for group in sorted(ended, key=lambda one: one.seconds / one.runs):
        done += group.runs
        if done >= half:
            break
    return group.seconds / group.runs


def most_seconds_needed(groups: Sequence[RunGroup]) -> float | None:
    """Device seconds of a whole training of the dearest strategy so far; None while no trial has finished an epoch."""
    names = {group.strategy for group in groups if group.in_search and group.strategy}
    found = [seconds for name in names if (seconds := seconds_needed(groups, strategy=name)) is not None]
    return max(found, default=None)


def seconds_reserved(groups: Sequence[RunGroup], *, in_search: bool) -> float:
    """Device seconds that the runs that have begun, or are promised, still need to their last epochs.

    Args:
        groups: Of the study.
        in_search: Trials of the search, else re-trainings that run.
    """
    left = 0.0
    for group in groups:
        is_promised = group.is_open if in_search else group.outcome is Outcome.RUNNING
        if group.in_search is not in_search or not is_promised:
            continue
        if group.epochs and group.seconds:
            whole: float | None = group.seconds / (group.runs * group.epochs) * group.reserved
        else:
            whole = seconds_needed(groups, strategy=group.strategy)
        left += max(0.0, group.runs * (whole or 0.0) - group.seconds)
    return left


def count_running(groups: Sequence[RunGroup]) -> int:
    """Runs that use a device now."""
    return sum(group.runs for group in groups if group.outcome is Outcome.RUNNING)


def _count(groups: Sequence[RunGroup], strategy: str) -> int:
    return sum(group.runs for group in groups if group.strategy == strategy)


def _seconds_of(groups: Sequence[RunGroup]) -> float | None:
    """Mean device seconds of a whole training of one strategy."""
    complete = [group for group in groups if group.outcome is Outcome.COMPLETE and group.seconds]
    if complete:
        return sum(group.seconds for group in complete) / sum(group.runs for group in complete)
    begun = [group for group in groups if group.epochs and group.seconds]
    ended = [group for group in begun if not group.is_open] or begun
    epochs = sum(group.runs * group.epochs for group in ended)
    if not epochs:
        return None
    return sum(group.seconds for group in ended) / epochs * max(group.reserved for group in ended)
