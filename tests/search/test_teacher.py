"""A trial that teaches another study: looked up, and its weights looked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.store.toy import holder, score, toy_result, toy_spec, toy_study, train
from tuner.errors import ConfigurationError, ConflictError, NotFoundError
from tuner.search.driver import StudyDriver
from tuner.search.teacher import find_trial, plan_teacher
from tuner.store import studies
from tuner.store.database import Database
from tuner.store.queries import load_snapshot
from tuner.study.plan import TeacherPlan
from tuner.study.teacher import TaughtLabels, TrialName

TEACHER = TrialName(study="toy", number=0)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with Database.open(f"sqlite:///{tmp_path / 'tuner.db'}", create=True) as database:
        yield database


def complete(db: Database, *, checkpoint: str) -> None:
    """The study ``toy`` with one complete trial."""
    toy_study(db)
    driver = StudyDriver(db, name="toy")
    lease = driver.claim(holder())
    assert lease is not None
    for epoch in (1, 2, 3):
        driver.report(lease, epoch=epoch, metrics={"f1": score(lease, epoch)}, seconds=1.0, extend=60.0)
    driver.finish(lease, result=replace(toy_result(0.9), checkpoint=checkpoint))


def test_complete_trial_tells_its_classes(db: Database, tmp_path: Path) -> None:
    complete(db, checkpoint=str(tmp_path))
    spec = load_snapshot(db, "toy").study.spec
    assert find_trial(db, name=TEACHER) == TaughtLabels(spec=spec, labels=("a", "b"))


def test_trials_that_cannot_teach(db: Database) -> None:
    complete(db, checkpoint="")
    driver = StudyDriver(db, name="toy")
    assert driver.claim(holder()) is not None
    cases: list[tuple[TrialName, type[Exception], str]] = [
        (TrialName(study="tou", number=0), NotFoundError, r'no study "tou"'),
        (TrialName(study="toy", number=7), NotFoundError, r'study "toy" has no trial 7; see tuner study trials toy'),
        (TrialName(study="toy", number=1), ConflictError, r"trial toy/1 is running; a teacher must be complete"),
        (TrialName(study="toy", number=0), ConflictError, r"the weights of trial toy/0 were not kept"),
    ]
    for name, error, message in cases:
        with pytest.raises(error, match=message):
            find_trial(db, name=name)


def test_driver_hands_out_the_trial_that_teaches(db: Database, tmp_path: Path) -> None:
    complete(db, checkpoint=str(tmp_path))
    toy_study(db, "student", distill={"teacher": "toy/0"})
    teacher = StudyDriver(db, name="student").teacher
    trial = StudyDriver(db, name="toy")
    assert trial.teacher is None
    assert teacher is not None
    assert teacher.checkpoint == str(tmp_path)
    assert teacher.trial is not None
    assert teacher.trial["strategy"] == "lora"
    assert teacher.trial["params"]["learning_rate"] == pytest.approx(5e-4)
    assert teacher.trial["seed"] == 0
    assert teacher.trial["spec"]["name"] == "toy"


def test_driver_hands_out_a_model(db: Database) -> None:
    toy_study(db, "student", distill={"teacher": "owner/model", "revision": "abc"})
    assert StudyDriver(db, name="student").teacher == TeacherPlan(model="owner/model", revision="abc")


def test_weights_on_another_box_are_named_with_their_worker(db: Database) -> None:
    complete(db, checkpoint="/nowhere/demo/best")
    toy_study(db, "student", distill={"teacher": "toy/0"})
    with pytest.raises(ConfigurationError) as caught:
        StudyDriver(db, name="student")
    assert str(caught.value) == (
        "the teacher of study student, trial toy/0, has no weights on this box - worker w1 on box has them in "
        "/nowhere/demo/best; start a worker on box, or copy that folder to the same path here"
    )


def test_weights_in_an_object_store_are_on_every_box(db: Database) -> None:
    complete(db, checkpoint="s3://bucket/tuner/toy/final")
    toy_study(db, "student", distill={"teacher": "toy/0"})
    teacher = StudyDriver(db, name="student").teacher
    assert teacher is not None
    assert teacher.checkpoint == "s3://bucket/tuner/toy/final"


def test_teacher_that_was_deleted(db: Database, tmp_path: Path) -> None:
    complete(db, checkpoint=str(tmp_path))
    studies.delete_study(db, "toy")
    with pytest.raises(ConfigurationError, match=r'study "student" has no teacher any more - no study "toy"'):
        plan_teacher(db, spec=toy_spec("student", distill={"teacher": "toy/0"}))


def test_study_without_a_teacher_is_served_as_ever(db: Database) -> None:
    toy_study(db)
    driver = StudyDriver(db, name="toy")
    lease = driver.claim(holder())
    assert lease is not None
    train(driver, lease)
    assert driver.teacher is None
