"""The larger model that a study distills: how a study file names it, and the hyperparameters that come with it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from tuner.study.domains import Fixed, Hyperparameter, Range

DISTILL_HYPERPARAMETERS: tuple[Hyperparameter, ...] = (
    Hyperparameter(
        name="distill.temperature",
        domain=Fixed(value=2.0),
        default=2.0,
        help="both models' logits are divided by it (Hinton et al. 2015); above 1 the small probabilities are heard",
        allowed=Range(low=0.5, high=20.0),
    ),
    Hyperparameter(
        name="distill.weight",
        domain=Fixed(value=0.5),
        default=0.5,
        help="the teacher's share of the loss; the rest is the labels'",
        allowed=Range(low=0.0, high=1.0),
    ),
)
"""What every strategy of a study with a teacher has; the section ``distill`` says where they are searched."""

_TRIAL = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,99})/(\d{1,9})")


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialName:
    """A trial as a study file names it."""

    study: str
    number: int

    def __str__(self) -> str:
        return f"{self.study}/{self.number}"


@dataclass(frozen=True, kw_only=True, slots=True)
class TaughtLabels:
    """What a trial can teach.

    Attributes:
        task: Its study's task.
        labels: The classes that it tells apart.
    """

    task: str
    labels: tuple[str, ...]


class FindTrial(Protocol):
    """Looks a trial up; whoever has the database hands it in."""

    def __call__(self, name: TrialName) -> TaughtLabels:
        """What the trial can teach.

        Raises:
            TunerError: If there is none, it is not complete, or the database cannot be reached.
        """
        ...


def named_trial(teacher: str) -> TrialName | None:
    """The trial that ``STUDY/NUMBER`` names, or None if it names a model. No model on the hub has a number for a name."""
    match = _TRIAL.fullmatch(teacher)
    return None if match is None else TrialName(study=match[1], number=int(match[2]))
