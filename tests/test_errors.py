from __future__ import annotations

import pytest

from tuner.errors import first_line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("first\nsecond"), "first"),
        (ValueError("\n  \n  third \n"), "third"),
        (ValueError(" \n"), "ValueError"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_an_error_without_a_word_is_told_by_its_name(error: Exception, line: str) -> None:
    assert first_line(error) == line
