"""What is printed is safe, aligned and strict."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.cli import output
from tuner.terminal import clean, duration


@given(st.text())
def test_clean_text_has_no_control_characters(text: str) -> None:
    shown = clean(text)
    assert len(shown) == len(text)
    assert all(character in "\n\t" or character.isprintable() or character.isspace() for character in shown)


@pytest.mark.parametrize("evil", ["\x1b[2J", "\x9b31m", "\u202e", "\u2066", "\x00", "\x07", "\u200b"])
def test_escapes_and_overrides_become_question_marks(evil: str) -> None:
    assert clean(f"a{evil}b").startswith("a?")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 0 s"),
        (185.0, "3 min 5 s"),
        (7800.0, "2 h 10 min"),
    ],
)
def test_duration(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_table_aligns_columns_and_numbers() -> None:
    lines = output.table(("NAME", "TRIALS"), [("a", "7"), ("longer", "128")])
    assert lines == ["NAME    TRIALS", "a            7", "longer     128"]


def test_table_cuts_the_widest_column_to_the_terminal() -> None:
    lines = output.table(("A", "B"), [("short", "x" * 200)], width=80)
    assert max(map(len, lines)) == 80
    assert lines[1].endswith("…")
    assert lines[1].startswith("short  ")


def test_table_is_not_cut_without_a_terminal() -> None:
    assert output.table(("A",), [("x" * 200,)])[1] == "x" * 200


def test_table_counts_wide_characters_twice() -> None:
    lines = output.table(("A", "B"), [("模型", "c"), ("abcd", "d")])
    assert lines[1] == "模型  c"
    assert lines[2] == "abcd  d"


def test_table_keeps_hostile_cells_on_one_line() -> None:
    assert output.table(("A",), [("a\nb\x1b[31m",)]) == ["A", "a b?[31m"]


def test_emit_writes_null_for_what_is_not_finite(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit({"a": math.nan, "b": [math.inf, 1.0], "c": {"d": -math.inf}}, compact=True)
    text = capsys.readouterr().out
    assert json.loads(text) == {"schema_version": 1, "a": None, "b": [None, 1.0], "c": {"d": None}}
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("sqlite:///tuner.db", "sqlite:///tuner.db"),
        ("postgresql://me@db/x", "postgresql://me@db/x"),
        ("postgresql://me:p:w@db/x", "postgresql://me:***@db/x"),
        ("postgresql://me:p@w@db/x", "postgresql://me:***@db/x"),
    ],
)
def test_next_steps_hide_the_password(capsys: pytest.CaptureFixture[str], url: str, shown: str) -> None:
    output.next_steps("tuner study list", storage=url)
    assert capsys.readouterr().err.replace("'", "") == f"next: tuner study list --storage {shown}\n"
