"""Whether the teacher of a study can teach it: it must be there, and know the study's classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.errors import TunerError
from tuner.study.names import listed, printable
from tuner.study.pretrained import ModelFacts, hub_labels, read_model
from tuner.study.ranges import Findings
from tuner.study.rules import is_path
from tuner.study.spec import DistillSpec, StudySpec
from tuner.study.teacher import FindTrial, TrialName, has_seen, named_trial, places

_KEY = "distill.teacher"


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherFacts:
    """A teacher, as facts.

    Attributes:
        labels: The classes that it tells apart.
        model: The pretrained model, None where a trial teaches.
    """

    labels: tuple[str, ...]
    model: ModelFacts | None = None


def read_teacher(
    spec: StudySpec, *, classes: Sequence[str], find_trial: FindTrial | None, findings: Findings
) -> TeacherFacts | None:
    """The facts of a study's teacher.

    Args:
        spec: The study; a teacher's folder in it is absolute.
        classes: The study's classes; empty where the rows cannot be read.
        find_trial: Looks trials up; without it a trial is passed over with a warning.
        findings: Takes the reasons why it cannot teach.

    Returns:
        The facts, or None if there is no teacher or it cannot be used.
    """
    if spec.distill is None:
        return None
    teacher = spec.distill.teacher
    trial = None if is_path(teacher, base=Path.cwd()) else named_trial(teacher)
    if trial is not None:
        facts = _trial(spec, trial, find_trial=find_trial, findings=findings)
    else:
        facts = _model(spec, spec.distill, findings=findings)
    if facts is not None:
        _compare(teacher, facts.labels, classes=classes, findings=findings)
    return facts


def _trial(
    spec: StudySpec, trial: TrialName, *, find_trial: FindTrial | None, findings: Findings
) -> TeacherFacts | None:
    if find_trial is None:
        findings.warn(_KEY, f"trial {trial} was not looked up")
        return None
    try:
        found = find_trial(trial)
    except TunerError as error:
        findings.refuse(_KEY, error.message)
        return None
    if found.spec.task != spec.task:
        findings.refuse(_KEY, f"trial {trial} is of another task, {found.spec.task}")
        return None
    if rows := has_seen(found.spec, spec):
        cure = f"set training.seed {found.spec.training.seed} and data.validation {found.spec.data.validation} as there"
        splits = (spec.data.validation, found.spec.data.validation)
        if rows == "test" or not all(isinstance(split, float) for split in splits):
            cure = "take a teacher that was trained on other rows"
        findings.warn(
            _KEY,
            f"trial {trial} was trained on rows that are {rows} rows here, so that the figures will be too good; {cure}",
        )
    return TeacherFacts(labels=found.labels)


def _model(spec: StudySpec, distill: DistillSpec, *, findings: Findings) -> TeacherFacts | None:
    own = Findings()
    asked = spec.model_copy(update={"model": distill.teacher, "revision": distill.revision})
    model = read_model(asked, findings=own)
    if "/" not in distill.teacher:  # a model without an owner is rare; it may rather be a study
        hint = f"; a trial of a study is named with its number, as in {distill.teacher}/3"
        own.problems[:] = [replace(found, message=f"{found.message}{hint}") for found in own.problems]
    findings.take(own, keys={"model": _KEY, "revision": "distill.revision"})
    if model is None or own.problems:
        return None
    if "Classification" not in model.architecture:
        what = model.architecture or "its configuration names no architecture"
        findings.refuse(_KEY, f"{distill.teacher} is no classifier ({what}); fine-tune it first, and name the trial")
        return None
    labels = model.labels or (() if model.folder else hub_labels(model.source, revision=model.revision))
    return TeacherFacts(labels=labels, model=model)


def _compare(teacher: str, labels: Sequence[str], *, classes: Sequence[str], findings: Findings) -> None:
    unknown = [name for name, place in zip(classes, places(classes, known=labels), strict=True) if place is None]
    if not unknown:
        return
    wanted = printable(listed(unknown))
    if not labels:
        findings.refuse(_KEY, f"{teacher} names no classes (id2label in its config.json); it must know {wanted}")
        return
    one = "class" if len(unknown) == 1 else "classes"
    findings.refuse(_KEY, f"{teacher} does not know the {one} {wanted}; it knows {printable(listed(list(labels)))}")
