"""What trials of a study with several objectives are worth beside each other: their values, the front, its knee."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuner.store.records import Outcome, StudyRecord, TrialRecord
from tuner.study.costs import COSTS
from tuner.study.front import find_knee, front_ranks, spread
from tuner.study.spec import ObjectiveSpec, StudySpec


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontMember:
    """A complete trial that no other one is at least as good as in every objective, and better in one.

    Attributes:
        trial: The trial.
        values: One for each objective, in the order of the study file.
        is_knee: Whether it is the front's knee.
    """

    trial: TrialRecord
    values: tuple[float, ...]
    is_knee: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Front:
    """The front of a study with several objectives.

    Attributes:
        objectives: What counts, each with its goal; the first is the study's metric.
        members: Best value of the first objective first.
        dominated: The other complete trials with their values, in the order of their numbers.
    """

    objectives: tuple[ObjectiveSpec, ...]
    members: tuple[FrontMember, ...]
    dominated: tuple[tuple[TrialRecord, tuple[float, ...]], ...]

    @property
    def knee(self) -> FrontMember | None:
        """The member nearest to the best of everything; None where the front has fewer than three."""
        return next((member for member in self.members if member.is_knee), None)


def facts_of(trial: TrialRecord) -> dict[str, float]:
    """All that an objective or a constraint may speak of: the metrics of the epoch that counts, and the costs."""
    found: dict[str, float] = {}
    for record in trial.epochs:
        if record.epoch == trial.best_epoch:
            found = dict(record.metrics)
    costs = {
        "trainable_params": trial.trainable_params,
        "seconds": _seconds_it_stands_on(trial),
        "peak_memory": trial.peak_memory,
    }
    return found | {name: float(value) for name, value in costs.items() if value is not None}


def _seconds_it_stands_on(trial: TrialRecord) -> float:
    """Device seconds of a trial's training; of one that was tried again up to its last epoch, without what the attempts lost that died."""
    return trial.epochs[-1].seconds if len(trial.attempts) > 1 and trial.epochs else trial.seconds


def values_of(facts: Mapping[str, float], objectives: Sequence[ObjectiveSpec]) -> tuple[float, ...] | None:
    """The value of each objective; None where one is not known."""
    values = tuple(facts.get(one.metric, math.nan) for one in objectives)
    return values if all(map(math.isfinite, values)) else None


def find_front(trials: Sequence[TrialRecord], *, spec: StudySpec) -> Front | None:
    """The front of a study's complete trials; None where one objective counts."""
    if not spec.has_front:
        return None
    objectives = spec.objectives
    known = [
        (trial, values)
        for trial in sorted(trials, key=lambda trial: trial.number)
        if trial.outcome is Outcome.COMPLETE and (values := values_of(facts_of(trial), objectives)) is not None
    ]
    points = [_losses(values, objectives) for _, values in known]
    ranks = front_ranks(points)
    best = sorted((place for place, rank in enumerate(ranks) if rank == 0), key=lambda place: points[place])
    knee = find_knee([_on_scales(points[place], objectives) for place in best])
    return Front(
        objectives=objectives,
        members=tuple(
            FrontMember(trial=known[place][0], values=known[place][1], is_knee=index == knee)
            for index, place in enumerate(best)
        ),
        dominated=tuple(one for one, rank in zip(known, ranks, strict=True) if rank),
    )


def rank_for_confirmation(trials: Sequence[TrialRecord], *, study: StudyRecord) -> list[TrialRecord] | None:
    """Complete trials in the order in which they deserve a confirmation; None where one objective counts.

    The best by the first objective, then the knee, then always the member of the front that is farthest from all before it, so that any
    number of finalists stands for the whole front; after the front the others by the first objective.
    """
    front = find_front(trials, spec=study.spec)
    if front is None:
        return None
    points = [_on_scales(_losses(member.values, front.objectives), front.objectives) for member in front.members]
    knee = [place for place, member in enumerate(front.members) if member.is_knee]
    first = [0, *knee] if points else []
    chosen = [front.members[place].trial for place in (spread(points, first=first) if points else ())]
    others = sorted(front.dominated, key=lambda one: (_losses(one[1], front.objectives), one[0].number))
    return [*chosen, *(trial for trial, _ in others)]


def _losses(values: Sequence[float], objectives: Sequence[ObjectiveSpec]) -> tuple[float, ...]:
    """The values with less being better everywhere."""
    return tuple(-value if one.goal == "maximize" else value for value, one in zip(values, objectives, strict=True))


def _on_scales(losses: Sequence[float], objectives: Sequence[ObjectiveSpec]) -> tuple[float, ...]:
    """Costs on a logarithmic scale: a tenth of the parameters is as much of a step at a million as at a billion."""
    return tuple(
        math.log(max(value, 1e-9)) if one.metric in COSTS else value
        for value, one in zip(losses, objectives, strict=True)
    )
