"""Folds as a study file asks for them, and which fold judges which run."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest

from tests.study.samples import CATALOGUE, STUDY, changed, numbered, write_rows
from tests.study.test_dataset import read
from tuner.errors import StudyFileError
from tuner.study.check import check_study
from tuner.study.document import read_document
from tuner.study.file import parse_study
from tuner.study.folds import SEARCH_FOLD, fold_of, fresh_seed
from tuner.study.schema import study_schema
from tuner.study.spec import FoldsSpec, StudySpec
from tuner.study.teacher import has_seen

FOLDS = changed("validation: 0.2", "validation: {folds: 5}")


def parse(text: str, base: Path) -> StudySpec:
    return parse_study(text, source="s", base=base, catalogue=CATALOGUE)


def problems(text: str, base: Path) -> list[str]:
    with pytest.raises(StudyFileError) as caught:
        parse(text, base)
    return [f"s:{problem.line}:{problem.column}: {problem.message}" for problem in caught.value.problems]


def test_every_fold_but_the_first_has_a_fresh_seed(tmp_path: Path) -> None:
    spec = parse(FOLDS, tmp_path)
    assert (spec.data.validation, spec.data.folds, spec.confirm.seeds) == (FoldsSpec(folds=5), 5, 4)
    assert StudySpec.model_validate(spec.model_dump(mode="json")) == spec
    assert parse(FOLDS + "confirm: {finalists: 2}\n", tmp_path).confirm.seeds == 4
    assert parse(FOLDS + "confirm:\n", tmp_path).confirm.seeds == 4
    assert parse(FOLDS + "confirm: {seeds: 8}\n", tmp_path).confirm.seeds == 8
    assert parse(STUDY, tmp_path).confirm.seeds == 5


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("{folds: 2}", "s:8:23: data.validation.folds must be a whole number from 3 to 20, got 2"),
        ("{folds: 21}", "s:8:23: data.validation.folds must be a whole number from 3 to 20, got 21"),
        ("{folds: yes}", 's:8:23: data.validation.folds must be a whole number from 3 to 20, got text "yes"'),
        ("{folds: true}", "s:8:23: data.validation.folds must be a whole number from 3 to 20, got true"),
        ("{fold: 5}", 's:8:16: unknown key "fold"; did you mean "folds"?'),
    ],
)
def test_what_is_wrong_with_folds_is_told_in_one_line(block: str, said: str, tmp_path: Path) -> None:
    assert problems(changed("validation: 0.2", f"validation: {block}"), tmp_path) == [said]


def test_no_row_of_a_fold_can_be_held_back(tmp_path: Path) -> None:
    assert problems(FOLDS + "confirm: {held_back: 0.5}\n", tmp_path) == [
        "s:13:22: confirm.held_back: 0.5 with data.validation in folds: the search sees one fold, and all others are held "
        "back; remove the line"
    ]
    assert parse(FOLDS + "confirm: {held_back: 0}\n", tmp_path).count_held_back(9000) == 0
    assert parse(FOLDS, tmp_path).count_held_back(9000) == 0
    assert parse(STUDY, tmp_path).count_held_back(9000) == 3000


def test_editors_know_folds() -> None:
    validator = jsonschema.Draft202012Validator(study_schema(CATALOGUE))
    assert not list(validator.iter_errors(read_document(FOLDS, source="s").data))
    wrong = read_document(FOLDS.replace("folds: 5", "folds: 1"), source="s").data
    assert len(list(validator.iter_errors(wrong))) == 1


@pytest.mark.parametrize("seed", [0, 7, 2**31 - 1])
def test_the_search_has_one_fold_and_the_confirmation_goes_through_the_others(seed: int, tmp_path: Path) -> None:
    spec = parse(FOLDS.replace("{epochs: 4}", f"{{epochs: 4, seed: {seed}}}"), tmp_path)
    assert fold_of(spec, seed=seed) == SEARCH_FOLD == 1
    assert fold_of(spec, seed=(seed + 500_009) % 2**31) == 1  # a repeat in the search
    assert [fold_of(spec, seed=fresh_seed(spec, index)) for index in range(1, 11)] == [2, 3, 4, 5, 2, 3, 4, 5, 2, 3]
    whole = parse(STUDY, tmp_path)
    assert {fold_of(whole, seed=fresh_seed(whole, index)) for index in range(5)} == {0}


def test_the_check_counts_the_rows_of_a_fold_and_names_classes_that_are_too_small(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", numbered("a" * 11 + "b" * 8 + "c" * 3))
    facts, wrong, warnings = read(FOLDS, tmp_path)
    assert facts is not None
    assert (facts.train_rows, facts.validation_rows, facts.held_back_rows, facts.folds) == (17, 5, 0, 5)
    assert not wrong
    assert warnings == [
        'data.label: "c" has fewer rows than the 5 folds of data.validation; some folds cannot judge it'
    ]


def test_the_check_refuses_more_folds_than_rows(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", numbered("aabb"))
    assert read(FOLDS, tmp_path)[1] == ["data.validation: 4 rows cannot be divided into 5 folds; ask for fewer"]


def test_folds_without_a_confirmation_are_odd(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", numbered("aaaaabbbbb"))
    assert read(FOLDS + "confirm: {finalists: 0}\n", tmp_path)[2] == [
        "data.validation: without a confirmation only one of the 5 folds judges; take a share"
    ]


def test_finalists_of_folds_are_judged_by_rows_that_the_search_has_not_seen(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", numbered("a" * 30 + "b" * 30))

    def warned(text: str) -> set[str]:
        return {warning.key for warning in check_study(parse(text, tmp_path), catalogue=CATALOGUE).warnings}

    assert "confirm" in warned(STUDY)
    assert "confirm" not in warned(FOLDS)


def test_a_teacher_of_the_same_rows_has_seen_the_folds_that_judge(tmp_path: Path) -> None:
    """Even where it was trained with the same folds: the finalists are judged by those that it learnt from."""
    taught, share = parse(FOLDS, tmp_path), parse(STUDY, tmp_path)
    assert has_seen(taught, taught) == has_seen(share, taught) == "validation"
    assert has_seen(parse(FOLDS.replace("train.csv", "other.csv"), tmp_path), taught) == ""
    only_searched = parse(FOLDS + "confirm: {finalists: 0}\n", tmp_path)
    assert has_seen(taught, only_searched) == ""
    assert has_seen(taught, share) == "validation"
