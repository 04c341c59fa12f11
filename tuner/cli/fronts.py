"""Several objectives for people and programs: what counts, and the front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuner.cli.output import table
from tuner.store.fronts import Front, facts_of
from tuner.store.records import StudyRecord, TrialRecord
from tuner.study.constraints import show_fact
from tuner.study.spec import ObjectiveSpec


def objectives_document(study: StudyRecord) -> list[dict[str, str]]:
    """Every objective with its goal, the first one first."""
    first = {"metric": study.metric, "goal": "maximize" if study.maximize else "minimize"}
    return [first, *({"metric": one.metric, "goal": one.goal or ""} for one in study.spec.objectives[1:])]


def front_document(front: Front | None) -> list[dict[str, Any]] | None:
    """The members of the front, best value of the first objective first; None where one objective counts."""
    if front is None:
        return None
    return [
        {
            "number": member.trial.number,
            "strategy": member.trial.strategy,
            "values": {one.metric: value for one, value in zip(front.objectives, member.values, strict=True)},
            "is_knee": member.is_knee,
        }
        for member in front.members
    ]


def aim_rows(study: StudyRecord) -> list[tuple[str, str]]:
    """What a study aims at, as labels and texts."""
    words = f"{study.metric}, {'more' if study.maximize else 'less'} is better"
    if study.spec.has_front:
        words = f"{', '.join(one.metric for one in study.spec.objectives)}: weighed against each other"
    bounds = [("constraints" if place == 0 else "", text) for place, text in enumerate(study.spec.constraints or ())]
    return [("objective", words), *bounds]


def other_objectives(study: StudyRecord) -> tuple[ObjectiveSpec, ...]:
    """The objectives that need a column of their own beside the first and the time."""
    return tuple(one for one in study.spec.objectives[1:] if one.metric != "seconds")


def other_values(trial: TrialRecord, objectives: Sequence[ObjectiveSpec]) -> list[str]:
    """What a trial has of them, as text."""
    facts = facts_of(trial)
    return [show_fact(one.metric, facts[one.metric]) if one.metric in facts else "-" for one in objectives]


def front_lines(front: Front, *, width: int | None) -> list[str]:
    """The front as a table, and what its marks mean."""
    if not front.members:
        return ["the front is empty: no trial is complete"]
    rows = [
        (
            str(member.trial.number),
            member.trial.strategy,
            *(show_fact(one.metric, value) for one, value in zip(front.objectives, member.values, strict=True)),
            "knee" if member.is_knee else "",
        )
        for member in front.members
    ]
    headings = ("FRONT", "STRATEGY", *(one.metric.upper() for one in front.objectives), "")
    return table(headings, rows, width=width)
