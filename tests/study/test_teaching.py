from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.study.samples import CATALOGUE, CONFIG, STUDY, changed, numbered, write_model, write_rows
from tuner.errors import ConflictError
from tuner.study.check import CheckReport, check_study
from tuner.study.file import load_study_file, locate, parse_study
from tuner.study.teacher import FindTrial, TaughtLabels, TrialName, has_seen, places

CLASSIFIER = CONFIG | {"architectures": ["BertForSequenceClassification"], "id2label": {"1": "b", "0": "a"}}


def check(
    folder: Path, teacher: str, *, config: dict[str, Any] | None = None, find_trial: FindTrial | None = None
) -> CheckReport:
    write_model(folder / "model")
    write_rows(folder / "train.csv", numbered("aabbabab" * 130))
    if config is not None:
        write_model(folder / "teacher", config=config)
    text = f"{changed('owner/model', 'model')}confirm: {{finalists: 0}}\ndistill:\n  teacher: {teacher}\n"
    (folder / "study.yaml").write_text(text)
    spec = load_study_file(folder / "study.yaml", catalogue=CATALOGUE)
    return check_study(spec, catalogue=CATALOGUE, find_trial=find_trial)


def told(report: CheckReport, folder: Path) -> list[tuple[int, int, str]]:
    return [
        (problem.line, problem.column, problem.message)
        for problem in locate((*report.problems, *report.warnings), path=folder / "study.yaml")
    ]


def test_classifier_with_the_studys_classes(tmp_path: Path) -> None:
    report = check(tmp_path, "./teacher", config=CLASSIFIER)
    assert not told(report, tmp_path)
    assert report.spec.distill is not None
    assert report.spec.distill.teacher == str(tmp_path / "teacher")


def test_classifier_may_know_more_classes(tmp_path: Path) -> None:
    config = CLASSIFIER | {"id2label": {"0": "c", "1": "b", "2": "a"}}
    assert not told(check(tmp_path, "./teacher", config=config), tmp_path)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (CLASSIFIER | {"id2label": {"0": "a", "1": "c"}}, "does not know the class b; it knows a, c"),
        (CLASSIFIER | {"id2label": {"0": "x", "1": "y"}}, "does not know the classes a, b; it knows x, y"),
        (CLASSIFIER | {"id2label": {}}, "names no classes (id2label in its config.json); it must know a, b"),
        (CLASSIFIER | {"id2label": {"x": "a"}}, "names no classes (id2label in its config.json); it must know a, b"),
        (CONFIG, "is no classifier (BertModel); fine-tune it first, and name the trial"),
        (
            {"model_type": "bert"},
            "is no classifier (its configuration names no architecture); fine-tune it first, and name the trial",
        ),
    ],
)
def test_models_that_cannot_teach(tmp_path: Path, config: dict[str, Any], why: str) -> None:
    report = check(tmp_path, "./teacher", config=config)
    assert told(report, tmp_path) == [(15, 12, f"distill.teacher: {tmp_path / 'teacher'} {why}")]
    assert report.problems


def test_teacher_is_read_as_any_model_is(tmp_path: Path) -> None:
    assert told(check(tmp_path, "./nowhere"), tmp_path) == [
        (15, 12, f"distill.teacher: {tmp_path}/nowhere cannot be read - no such folder on this machine")
    ]


def test_name_of_a_study_is_no_teacher_but_its_trials_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ((_, _, message),) = told(check(tmp_path, "tickets"), tmp_path)
    assert message.endswith("; a trial of a study is named with its number, as in tickets/3")


def taught(*, task: str = "text-classification", labels: tuple[str, ...] = ("a", "b"), **data: Any) -> TaughtLabels:
    """A trial of a study like the one under test; ``seed`` and what its ``data`` says may differ."""
    spec = parse_study(STUDY, source="s", base=Path("/elsewhere"), catalogue=CATALOGUE)
    training = spec.training.model_copy(update={"seed": data.pop("seed", 0)})
    changes = {"task": task, "training": training, "data": spec.data.model_copy(update=data)}
    return TaughtLabels(spec=spec.model_copy(update=changes), labels=labels)


class Trials:
    """One trial, or an error."""

    def __init__(self, found: TaughtLabels | ConflictError) -> None:
        self.found = found
        self.asked: list[str] = []

    def __call__(self, name: TrialName) -> TaughtLabels:
        self.asked.append(str(name))
        if isinstance(self.found, ConflictError):
            raise self.found
        return self.found


def test_trial_is_looked_up(tmp_path: Path) -> None:
    trials = Trials(taught(labels=("a", "b")))
    assert not told(check(tmp_path, "big/3", find_trial=trials), tmp_path)
    assert trials.asked == ["big/3"]


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (
            taught(task="image-classification"),
            "trial big/3 is of another task, image-classification",
        ),
        (taught(labels=("a",)), "big/3 does not know the class b; it knows a"),
        (ConflictError("trial big/3 is running", fix="wait"), "trial big/3 is running; wait"),
    ],
)
def test_trials_that_cannot_teach(tmp_path: Path, found: TaughtLabels | ConflictError, why: str) -> None:
    report = check(tmp_path, "big/3", find_trial=Trials(found))
    assert told(report, tmp_path) == [(15, 12, f"distill.teacher: {why}")]
    assert report.problems


@pytest.mark.parametrize("labels", [("A", "b"), ("b ", " a"), ("A", "a", "b")])
def test_case_and_blanks_of_classes_do_not_count(labels: tuple[str, ...], tmp_path: Path) -> None:
    assert not told(check(tmp_path, "big/3", find_trial=Trials(taught(labels=labels))), tmp_path)


def test_class_of_the_same_name_comes_before_one_of_another_case() -> None:
    assert places(["a", "B", "c"], known=["A", "b", "a"]) == [2, 1, None]


@pytest.mark.parametrize(
    ("differs", "is_told"),
    [
        ({"seed": 0}, False),
        ({"seed": 3}, True),
        ({"validation": 0.1}, True),
        ({"validation": "val.csv"}, True),
        ({"label": "other"}, True),
        ({"train_rows": 50}, False),  # the sample is taken of what the split leaves
        ({"text": "other", "balance": "oversample"}, False),
        ({"seed": 3, "train": "/elsewhere/other.csv"}, False),
    ],
)
def test_teacher_that_was_trained_on_validation_rows(differs: dict[str, Any], is_told: bool, tmp_path: Path) -> None:
    trials = Trials(taught(**{"train": str(tmp_path / "train.csv")} | differs))
    report = check(tmp_path, "big/3", find_trial=trials)
    assert not report.problems
    messages = [problem.message for problem in report.warnings]
    assert bool(messages) == is_told
    assert all("was trained on rows that are validation rows here" in message for message in messages)


def test_teacher_that_was_trained_on_a_validation_or_test_file() -> None:
    ours = taught(validation="/a.csv", test="/b.csv").spec
    assert has_seen(taught(train="/a.csv").spec, ours) == "validation"
    assert has_seen(taught(train="/b.csv").spec, ours) == "test"
    assert not has_seen(taught(train=ours.data.train, seed=8).spec, ours)
    both = taught(train="/a.csv", validation="/all.csv", test="/all.csv").spec
    assert has_seen(taught(train="/all.csv").spec, both) == "test"


def test_trial_without_a_database_only_warns(tmp_path: Path) -> None:
    report = check(tmp_path, "big/3")
    assert not report.problems
    assert told(report, tmp_path) == [(15, 12, "distill.teacher: trial big/3 was not looked up")]
