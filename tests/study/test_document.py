from __future__ import annotations

import pytest

from tuner.errors import Problem, StudyFileError
from tuner.study.document import KeyProblem, read_document


def test_positions_of_keys_values_and_items() -> None:
    document = read_document("a:\n  b: [x, {c: 1}]\n", source="s")
    assert document.data == {"a": {"b": ["x", {"c": 1}]}}
    assert document.positions["a.b"].key == (2, 3)
    assert document.positions["a.b"].value == (2, 6)
    assert document.positions["a.b.0"].value == (2, 7)
    assert document.positions["a.b.1.c"].key == (2, 11)
    assert document.positions["a.b.1.c"].value == (2, 14)


def test_problem_of_a_key_stands_at_the_key() -> None:
    document = read_document("abc: 1\n", source="s")
    assert document.locate(Problem(key="abc", message="")).column == 6
    assert document.locate(KeyProblem(key="abc", message="")).column == 1


def test_problem_with_a_line_keeps_it() -> None:
    document = read_document("abc: 1\n", source="s")
    assert document.locate(Problem(key="abc", message="", line=7, column=2)).line == 7


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("~", None),
        ("null", None),
        ("", None),
        ("true", True),
        ("FALSE", False),
        ("yes", "yes"),
        ("7", 7),
        ("-007", -7),
        ("1.", 1.0),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("-.inf", float("-inf")),
        ("'7'", "7"),
        ('"null"', "null"),
        ("1.2.3", "1.2.3"),
        ("=", "="),
        ("<<", "<<"),
        (">-\n  two\n  lines", "two lines"),
    ],
)
def test_scalars_of_yaml_1_2(text: str, value: object) -> None:
    data = read_document(f"a: {text}\n", source="s").data["a"]
    assert data == value
    assert type(data) is type(value)


def test_aliases_within_bounds_repeat_the_value() -> None:
    document = read_document("a: &x [1, 2]\nb: *x\n", source="s")
    assert document.data == {"a": [1, 2], "b": [1, 2]}


def test_tab_inside_a_value_is_no_indentation() -> None:
    assert read_document('a: "x\\ty"\nb: |\n  c\td\n', source="s").data == {"a": "x\ty", "b": "c\td\n"}


@pytest.mark.parametrize("tag", ["!!str x", "!custom x", "! x", "!!map {a: 1}", "!!set {a}", "!!binary aGk="])
def test_every_tag_is_refused(tag: str) -> None:
    with pytest.raises(StudyFileError, match="YAML tags are not allowed"):
        read_document(f"a: {tag}\n", source="s")
