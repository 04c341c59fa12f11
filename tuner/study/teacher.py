"""The larger model that a study distills: how a study file names it, and the hyperparameters that come with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tuner.study.domains import Fixed, Hyperparameter, Range
from tuner.study.spec import StudySpec

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
        spec: Its study.
        labels: The classes that it tells apart.
    """

    spec: StudySpec
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


def places(labels: Sequence[str], *, known: Sequence[str]) -> list[int | None]:
    """Which of a teacher's classes each label is: the one of the same name, else the one that differs in case alone.

    Args:
        labels: Of the study that is taught.
        known: The teacher's classes, by index.

    Returns:
        An index for each label, None where the teacher does not know it.
    """
    found = {name.strip().casefold(): index for index, name in enumerate(known)}
    exact = {name.strip(): index for index, name in enumerate(known)}
    return [exact.get(label.strip(), found.get(label.strip().casefold())) for label in labels]


def has_seen(teacher: StudySpec, spec: StudySpec) -> str:
    """Which rows of a study a trial of another one may have been trained on, though they judge the first one's trials.

    The rows that a share holds out follow from the file, its labels, the share and ``training.seed``; what else the
    studies differ in does not change them. Of folds each row judges once, so that whoever was trained on any has seen one that judges.

    Returns:
        ``test`` or ``validation``, of both the first, which judges last; empty if neither.
    """
    ours, theirs = spec.data, teacher.data
    if is_same_file(ours.test, theirs.train):
        return "test"
    if isinstance(ours.validation, str):
        is_seen = is_same_file(ours.validation, theirs.train)
    elif ours.folds and spec.confirm.finalists:
        is_seen = is_same_file(ours.train, theirs.train)
    else:
        held_out = (ours.label, ours.validation, spec.training.seed)
        splits_otherwise = held_out != (theirs.label, theirs.validation, teacher.training.seed)
        is_seen = splits_otherwise and is_same_file(ours.train, theirs.train)
    return "validation" if is_seen else ""


def is_same_file(one: object, other: object) -> bool:
    """Whether two sources of rows are the same: by name, or as files by a link. A copy is another file; shares and folds are none."""
    if not isinstance(one, str) or not isinstance(other, str):
        return False
    try:
        return one == other or Path(one).samefile(other)
    except (OSError, ValueError):  # on the hub, in a package, or not there
        return False
