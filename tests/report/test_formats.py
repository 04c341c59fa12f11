from __future__ import annotations

import pytest

from tuner.report import formats


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599.4, "59 min 59 s"),
        (3600, "1 h 00 min"),
        (86399, "24 h 00 min"),
        (4_000_000, "1,111 h 07 min"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert formats.format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.000123, "1.23e-4"),
        (3e-5, "3e-5"),
        (0.001, "0.001"),
        (0.06, "0.06"),
        (0.0, "0"),
        (-2.5, "-2.5"),
        (1234.5678, "1235"),
        (16, "16"),
        (True, "True"),
        ("linear", "linear"),
    ],
)
def test_values(value: float | str, text: str) -> None:
    assert formats.format_value(value) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [(None, "–"), (7, "7"), (999, "999"), (999_900, "1 M"), (12_296, "12.3 k"), (4_386_952, "4.39 M"), (7e9, "7 G")],
)
def test_counts(number: int | None, text: str) -> None:
    assert formats.format_count(number) == text


@pytest.mark.parametrize(
    ("probability", "text"), [(1.0, "> 99.9 %"), (0.9925, "99.2 %"), (0.95, "95 %"), (0.5, "50 %"), (0.0, "< 0.1 %")]
)
def test_probabilities_never_claim_certainty(probability: float, text: str) -> None:
    assert formats.format_probability(probability) == text


def test_scores_and_differences() -> None:
    assert formats.format_score(0.91234) == "0.9123"
    assert formats.format_score(1234.56) == "1,234.6"
    assert formats.format_score(float("nan")) == formats.format_score(None) == "–"
    assert formats.format_difference(-0.01) == "-0.0100"
    assert formats.format_difference(0.0) == "+0.0000"
