"""The Python API: its examples run, in order, as a reader would type them."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path

import pytest

import tuner
from tests.cli.little import STUDY, write_model, write_rows
from tuner import api, live, reproduction
from tuner.errors import NotFoundError, StudyFileError


def test_everything_public_has_an_example() -> None:
    for name in tuner.__all__:
        function = getattr(tuner, name)
        assert ">>> import tuner" in (inspect.getdoc(function) or ""), name
        assert function is getattr(next(room for room in (live, reproduction, api) if hasattr(room, name)), name)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``study.yaml``, the study that the examples are about."""
    write_model(tmp_path / "model")
    write_rows(tmp_path / "rows.csv")
    text = STUDY.replace("name: little", "name: example").replace("[head, lora]", "[head, bitfit]")
    (tmp_path / "study.yaml").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_the_examples_run(example: Path) -> None:
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    finder = doctest.DocTestFinder(recurse=False)
    order = (
        "catalogue",
        "check_study",
        "create_study",
        "run_worker",
        "list_studies",
        "load_study",
        "best",
        "repeat_trial",
        "trial_recipe",
        "train_trial",
        "write_report",
        "change_study",
        "pause_study",
        "resume_study",
        "enqueue_trial",
        "stop_trial",
        "stop_study",
        "retry_trials",
        "drain_workers",
    )
    assert set(order) == set(tuner.__all__)
    for name in order:
        for test in finder.find(getattr(tuner, name), name, globs={}):
            assert test.examples
            runner.run(test)
    assert runner.summarize(verbose=False).failed == 0
    assert (example / "report.html").is_file()


def test_a_mapping_is_as_good_as_a_file(example: Path, sqlite_url: str) -> None:
    study = {
        "name": "from-mapping",
        "task": "text-classification",
        "model": "model",
        "data": {"train": "rows.csv"},
        "objective": {"metric": "accuracy"},
        "strategies": ["head"],
        "training": {"max_length": 16},
    }
    record = tuner.create_study(study, storage=sqlite_url)
    assert record.spec.data.train == str(example / "rows.csv")
    assert tuner.create_study(study, storage=sqlite_url) == record
    with pytest.raises(StudyFileError, match="haed"):
        tuner.create_study({**study, "strategies": ["haed"]}, storage=sqlite_url)
    with pytest.raises(NotFoundError, match="no complete trial yet"):
        tuner.best("from-mapping", storage=sqlite_url)


def test_goals_come_from_the_metric_unless_they_are_given(example: Path, sqlite_url: str) -> None:
    text = (example / "study.yaml").read_text(encoding="utf-8")
    for name, objective, maximize in (
        ("a", "{metric: accuracy}", True),
        ("b", "{metric: loss}", False),
        ("c", "{metric: accuracy, goal: maximize}", True),
    ):
        file = example / f"{name}.yaml"
        file.write_text(text.replace("name: example", f"name: {name}").replace("{metric: accuracy}", objective))
        assert tuner.create_study(file, storage=sqlite_url).maximize is maximize


def test_teacher_that_the_database_does_not_have(example: Path, sqlite_url: str) -> None:
    text = (example / "study.yaml").read_text(encoding="utf-8") + "distill: {teacher: big/3}\n"
    (example / "student.yaml").write_text(text, encoding="utf-8")
    spec, found = api.check_study("student.yaml", storage=sqlite_url)
    assert spec.distill is not None
    assert [(problem.line, problem.column) for problem in found.problems] == [(10, 20)]
    assert found.problems[0].message.startswith("distill.teacher: no database at ")
    tuner.create_study("study.yaml", storage=sqlite_url)
    for teacher, why in (("big/3", 'no study "big"'), ("example/0", 'study "example" has no trial 0')):
        (example / "student.yaml").write_text(text.replace("big/3", teacher), encoding="utf-8")
        with pytest.raises(StudyFileError, match=f"student.yaml:10:20: distill.teacher: {why}"):
            tuner.create_study("student.yaml", storage=sqlite_url)


def test_strategy_that_the_model_refuses_is_not_stored(example: Path, sqlite_url: str) -> None:
    text = (example / "study.yaml").read_text(encoding="utf-8").replace("[head, bitfit]", "[head, prefix]")
    text += "space: {prefix: {length: [40, 64]}}\n"
    (example / "study.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(StudyFileError) as caught:
        tuner.create_study("study.yaml", storage=sqlite_url)
    assert str(caught.value) == (
        "study.yaml:6:20: strategies: prefix.length 40 leaves none of the model's 32 positions to the text; "
        "lower space.prefix.length"
    )
    assert not (example / "tuner.db").exists()
