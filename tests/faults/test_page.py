"""The page about reliability says what the suite tests, no more and no less, with the figures that were measured."""

from __future__ import annotations

import re

from tests.faults.figures import read_file
from tests.faults.page import FILE, page, rows_with_tests
from tests.faults.rows import LEFT_OUT, ROWS
from tests.source_tree import modules


def test_the_page_is_up_to_date() -> None:
    assert FILE.read_text(encoding="utf-8") == page(), "say: python -m tests.faults.page"


def test_every_row_has_a_test_or_a_reason() -> None:
    assert set(rows_with_tests()) == set(ROWS) - set(LEFT_OUT)
    assert set(ROWS) | set(LEFT_OUT) == set(range(1, 42))


def test_every_row_that_is_tested_is_on_the_page_with_figures() -> None:
    lines = re.findall(r"^\| (\d+) \|.*\| ([^|]*) \| [^|]* \|$", FILE.read_text(encoding="utf-8"), re.MULTILINE)
    assert {int(number) for number, _ in lines} == set(rows_with_tests())
    assert [number for number, figures in lines if figures == "-"] == []


def test_figures_are_of_tests_that_exist() -> None:
    names = {f"{module.where}::{function.name}" for module in modules("tests") for function in module.functions}
    assert {test.partition("[")[0] for test in read_file()["tests"]} <= names
