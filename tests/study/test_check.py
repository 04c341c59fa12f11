from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.study.samples import CATALOGUE, changed, numbered, write_model, write_rows
from tuner.study.check import CheckReport, check_study
from tuner.study.file import load_study_file, locate


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study's folder with a model and rows that are right."""
    write_model(tmp_path / "model")
    write_rows(tmp_path / "train.csv", numbered("aabbabab" * 125))
    write_rows(tmp_path / "test.csv", numbered("abab", start=2000))
    return tmp_path


def check(folder: Path, *changes: tuple[str, str]) -> CheckReport:
    text = changed("owner/model", "model").replace("label: label", "label: label\n  test: test.csv")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (folder / "study.yaml").write_text(text)
    return check_study(load_study_file(folder / "study.yaml", catalogue=CATALOGUE), catalogue=CATALOGUE)


def messages(report: CheckReport) -> list[str]:
    return [problem.message for problem in report.problems]


def warnings(report: CheckReport) -> list[str]:
    return [warning.message for warning in report.warnings]


def test_study_that_is_right(folder: Path) -> None:
    report = check(folder)
    assert not report.problems
    assert not report.warnings
    assert report.spec.model == str(folder / "model")
    assert report.spec.revision is None
    assert report.model is not None
    assert report.model.parameters == 20
    assert report.data is not None
    assert report.data.train_rows == 800
    assert report.space.names == ("head", "lora", "full")
    assert report.forecast.lines()[1:] == (
        "search: at most 12 trials of up to 4 epochs, 48 epochs in all",
        "steps: 25 to 100 in an epoch",
        "confirmation: up to 19 runs with fresh seeds, 76 epochs "
        "(who falls out of the race is spared the last; the default recipe of full competes in any case)",
    )


def test_space_is_built_for_the_models_size(folder: Path) -> None:
    report = check(folder)
    assert report.space.block("full").prior == CATALOGUE.strategies["full"].learning_rate[0][1]


def test_problems_of_model_and_data_come_together_with_their_lines(folder: Path) -> None:
    (folder / "model" / "config.json").unlink()
    (folder / "test.csv").unlink()
    report = check(folder, ("label: label", "label: lable"))
    located = locate(report.problems, path=folder / "study.yaml")
    assert sorted((problem.line, problem.key) for problem in located) == [
        (3, "model"),
        (7, "data.label"),
        (8, "data.test"),
    ]
    assert report.model is None
    assert report.data is None
    assert report.forecast.steps is None


def test_longer_than_the_model_can_read(folder: Path) -> None:
    report = check(folder, ("epochs: 4", "epochs: 4, max_length: 600"))
    assert messages(report) == [f"training.max_length: 600 is more than the 512 tokens that {folder}/model can read"]


def test_fewer_trials_than_strategies_and_finalists(folder: Path) -> None:
    report = check(folder, ("trials: 12", "trials: 2"))
    assert warnings(report) == [
        "budget.trials: 2 trials cannot even try the 3 strategies once each",
        "confirm.finalists: there are only 2 trials to choose from",
    ]


def test_confirmation_without_a_test(folder: Path) -> None:
    report = check(folder, ("\n  test: test.csv", ""))
    assert warnings(report) == [
        "confirm: without data.test the finalists are compared on the validation rows, which the search has seen"
    ]


def test_one_seed_of_the_confirmation(folder: Path) -> None:
    one = ("budget:", "confirm: {seeds: 1}\nbudget:")
    assert warnings(check(folder, one)) == [
        "confirm.seeds: one seed cannot tell how sure the answer is; give 3 or more"
    ]
    in_folds = check(folder, one, ("validation: 0.2", "validation: {folds: 5}"))
    assert [text for text in warnings(in_folds) if text.startswith("confirm.seeds")] == [
        "confirm.seeds: one seed and one of the 4 folds that judge finalists cannot tell how sure the answer is; give 4 or more"
    ]
    assert not warnings(check(folder, ("budget:", "confirm: {finalists: 0, seeds: 1}\nbudget:")))


def test_few_validation_rows(folder: Path) -> None:
    write_rows(folder / "train.csv", numbered("ab" * 150))
    assert warnings(check(folder)) == [
        "data.validation: only 60 validation rows judge the search: differences below about 13 points are noise"
    ]


def test_column_of_a_key_that_the_file_lacks_is_told_at_the_section(folder: Path) -> None:
    (folder / "train.csv").write_text("text,intent\na,b\n")
    report = check(folder, ("  label: label\n", ""))
    located = locate(report.problems, path=folder / "study.yaml")
    assert [(problem.line, problem.key) for problem in located] == [(4, "data.label")]


def test_warnings_of_the_space_are_passed_on(folder: Path) -> None:
    report = check(folder, ("budget:", "space: {dropout: {low: 0.1, high: 0.1}}\nbudget:"))
    assert warnings(report) == ["space.dropout: has one value; it is fixed, not searched"]


def test_study_and_check_load_no_heavy_library(folder: Path) -> None:
    check(folder)
    code = f"""
import sys
from tuner.strategies import STRATEGIES
from tuner.tasks import TASKS
from tuner.study import check, file, schema
from tuner.study.catalogue import Catalogue
known = Catalogue(strategies={{k: v.info for k, v in STRATEGIES.items()}}, tasks={{k: v.info for k, v in TASKS.items()}})
schema.study_schema(known)
report = check.check_study(file.load_study_file({str(folder / "study.yaml")!r}, catalogue=known), catalogue=known)
assert not report.problems
heavy = {{"torch", "transformers", "peft", "datasets", "optuna", "sqlalchemy", "plotly", "numpy", "pyarrow", "huggingface_hub"}}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("stop", "trials", "advice"),
    [
        ("{gain: 0.01}", 30, "set trials to 14 at most"),
        ("{gain: 0.01, trials: 2}", 4, "leave it out"),
        ("{gain: 0.01, trials: 2}", 5, ""),
        ("{gain: 0.01}", 41, ""),
    ],
)
def test_an_early_end_that_cannot_come_is_told(folder: Path, stop: str, trials: int, advice: str) -> None:
    budget = ("budget: {trials: 12}", f"budget: {{trials: {trials}}}\nsearch: {{stop_when: {stop}}}")
    told = [text for text in warnings(check(folder, budget)) if "can never end the search" in text]
    assert [text.rpartition("; ")[2] for text in told] == ([advice] if advice else [])


@pytest.mark.parametrize(("bound", "is_told"), [("10", True), ("10 kB", True), ("1e10", False), ("10 MB", False)])
def test_memory_without_its_unit_is_told(folder: Path, bound: str, is_told: bool) -> None:
    budget = ("budget: {trials: 12}", f"budget: {{trials: 12}}\nconstraints: [peak_memory <= {bound}]")
    told = [text for text in warnings(check(folder, budget)) if "give the unit" in text]
    assert len(told) == is_told
