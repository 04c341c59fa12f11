"""The trial that teaches a study: found in the database, with its weights on this box or in an object store."""

from __future__ import annotations

from pathlib import Path

from tuner.errors import ConfigurationError, ConflictError, NotFoundError
from tuner.files.place import is_url
from tuner.store.database import Database
from tuner.store.queries import load_snapshot
from tuner.store.records import Outcome, StudySnapshot, TrialRecord
from tuner.study.plan import TeacherPlan
from tuner.study.spec import StudySpec
from tuner.study.teacher import TaughtLabels, TrialName, named_trial


def find_trial(db: Database, *, name: TrialName) -> TaughtLabels:
    """What a trial that is to teach has learnt.

    Raises:
        NotFoundError: If there is no such study or trial.
        ConflictError: If the trial is not complete, or its weights were not kept.
        UnavailableError: If the database cannot be reached.
    """
    snapshot, trial = _complete_trial(db, name)
    labels = trial.confusion.labels if trial.confusion is not None else ()
    return TaughtLabels(spec=snapshot.study.spec, labels=labels)


def plan_teacher(db: Database, *, spec: StudySpec) -> TeacherPlan | None:
    """The teacher of a study's runs; None if it has none.

    Raises:
        ConfigurationError: If the trial that teaches is gone, or its weights are not on this box.
        UnavailableError: If the database cannot be reached.
    """
    if spec.distill is None:
        return None
    name = named_trial(spec.distill.teacher)
    if name is None:
        return TeacherPlan(model=spec.distill.teacher, revision=spec.distill.revision)
    try:
        snapshot, trial = _complete_trial(db, name)
    except (NotFoundError, ConflictError) as error:
        raise ConfigurationError(f'study "{spec.name}" has no teacher any more', why=error.message) from error
    if not is_url(trial.checkpoint) and not Path(trial.checkpoint).is_dir():
        attempt = trial.attempts[-1]
        raise ConfigurationError(
            f"the teacher of study {spec.name}, trial {name}, has no weights on this box",
            why=f"worker {attempt.worker} on {attempt.host} has them in {trial.checkpoint}",
            fix=f"start a worker on {attempt.host}, or copy that folder to the same path here",
        )
    return TeacherPlan(
        trial={
            "spec": snapshot.study.spec.model_dump(mode="json"),
            "strategy": trial.strategy,
            "params": dict(trial.params),
            "seed": snapshot.study.spec.training.seed,
        },
        checkpoint=trial.checkpoint,
    )


def _complete_trial(db: Database, name: TrialName) -> tuple[StudySnapshot, TrialRecord]:
    snapshot = load_snapshot(db, name.study)
    look = f"see tuner study trials {name.study}"
    try:
        trial = snapshot.trial(name.number)
    except KeyError:
        raise NotFoundError(f'study "{name.study}" has no trial {name.number}', fix=look) from None
    if trial.outcome is not Outcome.COMPLETE:
        raise ConflictError(f"trial {name} is {trial.outcome.value}; a teacher must be complete", fix=look)
    if not trial.checkpoint:
        raise ConflictError(f"the weights of trial {name} were not kept", fix=look)
    return snapshot, trial
