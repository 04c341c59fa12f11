from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.study.domains import Choice, Domain, Fixed, Hyperparameter, Range, Value
from tuner.study.ranges import Findings, read_domain


def knob(default: Value, allowed: Domain | None = None) -> Hyperparameter:
    return Hyperparameter(name="x", domain=Fixed(value=default), default=default, help="", allowed=allowed)


def read(raw: Any, default: Value = 0.5, allowed: Domain | None = None) -> tuple[Domain | None, Findings]:
    findings = Findings()
    return read_domain(raw, key="space.x", knob=knob(default, allowed), findings=findings), findings


@pytest.mark.parametrize(
    ("raw", "default", "domain"),
    [
        (0.25, 0.5, Fixed(value=0.25)),
        (1, 0.5, Fixed(value=1.0)),
        (8.0, 16, Fixed(value=8)),
        (True, False, Fixed(value=True)),
        ("cosine", "linear", Fixed(value="cosine")),
        ([8, 16, 32], 16, Choice(options=(8, 16, 32))),
        ([0, 1], 0.5, Choice(options=(0.0, 1.0))),
        ([True, False], True, Choice(options=(True, False))),
        ({"low": 0, "high": 1}, 0.5, Range(low=0.0, high=1.0)),
        ({"low": 1, "high": 8}, 4, Range(low=1, high=8, kind="int")),
        ({"low": 1, "high": 64, "log": True}, 4, Range(low=1, high=64, log=True, kind="int")),
        ({"low": 0.0, "high": 0.3, "step": 0.1}, 0.5, Range(low=0.0, high=0.3, step=0.1)),
        ({"low": 0, "high": 1, "step": None, "log": False}, 0.5, Range(low=0.0, high=1.0)),
    ],
)
def test_forms_of_a_value(raw: Any, default: Value, domain: Domain) -> None:
    found, findings = read(raw, default)
    assert found == domain
    assert not findings.problems
    assert not findings.warnings


def test_whole_numbers_stay_whole() -> None:
    found, _ = read([8, 16.0], 16)
    assert isinstance(found, Choice)
    assert [type(option) for option in found.options] == [int, int]


@pytest.mark.parametrize(
    ("raw", "default", "domain", "warning"),
    [
        ({"low": 0.1, "high": 0.1}, 0.5, Fixed(value=0.1), "has one value; it is fixed, not searched"),
        ({"low": 3, "high": 3, "log": True}, 1, Fixed(value=3), "has one value; it is fixed, not searched"),
        ([0.3], 0.5, Fixed(value=0.3), "has one value; it is fixed, not searched"),
        (
            {"low": 8, "high": 17, "step": 4},
            16,
            Range(low=8, high=16, step=4, kind="int"),
            "high 17 is not reached with step 4 from 8; used 16",
        ),
        (
            {"low": 0.0, "high": 0.35, "step": 0.1},
            0.5,
            Range(low=0.0, high=0.3, step=0.1),
            "high 0.35 is not reached with step 0.1 from 0; used 0.3",
        ),
        (
            {"low": 1e-5, "high": 1e-1},
            0.5,
            Range(low=1e-5, high=1e-1),
            "spans 4 powers of ten on a linear scale; log: true is usual",
        ),
    ],
)
def test_odd_values_are_used_with_a_warning(raw: Any, default: Value, domain: Domain, warning: str) -> None:
    found, findings = read(raw, default)
    assert found == domain
    assert [problem.message for problem in findings.warnings] == [f"space.x: {warning}"]


def test_step_beyond_the_range_leaves_one_value() -> None:
    found, findings = read({"low": 1, "high": 3, "step": 5}, 1)
    assert found == Fixed(value=1)
    assert len(findings.warnings) == 2


def test_mistake_gives_no_domain() -> None:
    found, findings = read([0.1, "a", 2])
    assert found is None
    assert len(findings.problems) == 1


def test_every_wrong_choice_is_told() -> None:
    _, findings = read([0.1, 5, 7], allowed=Range(low=0, high=1))
    assert [problem.key for problem in findings.problems] == ["space.x.1", "space.x.2"]


@settings(max_examples=200, deadline=None)
@given(
    low=st.floats(min_value=-1e6, max_value=1e6),
    width=st.floats(min_value=1e-3, max_value=1e6),
    step=st.floats(min_value=1e-3, max_value=1e3),
)
def test_a_stepped_range_ends_on_its_grid(low: float, width: float, step: float) -> None:
    found, findings = read({"low": low, "high": low + width, "step": step})
    assert not findings.problems
    if isinstance(found, Range):
        steps = (found.high - found.low) / step
        noise = 16 * sys.float_info.epsilon * max(abs(found.low), abs(found.high))
        assert abs(steps - round(steps)) <= 2e-6 + noise / step
        assert low + width - step * (1 + 2e-6) - noise <= found.high <= low + width


def test_words_without_limits_must_be_those_that_are_searched() -> None:
    knob = Hyperparameter(name="a.part", domain=Choice(options=("all", "output")), default="all", help="")
    findings = Findings()
    assert read_domain(["all", "outptu"], key="space.a.part", knob=knob, findings=findings) is None
    assert [problem.message for problem in findings.problems] == [
        'space.a.part: unknown value "outptu"; did you mean "output"? (one of all, output)'
    ]
    findings = Findings()
    assert read_domain("none", key="space.a.part", knob=knob, findings=findings) is None
    assert [problem.message for problem in findings.problems] == [
        'space.a.part: unknown value "none" (one of all, output)'
    ]
