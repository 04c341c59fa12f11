"""Samplers and pruners with wrong options: told by the check, not by the first worker."""

from __future__ import annotations

from typing import Any

import pytest

from tests.store.toy import toy_space, toy_spec
from tuner.search.choices import find_wrong_choices


@pytest.mark.parametrize(
    ("search", "said"),
    [
        (
            {"sampler": {"name": "tpe", "options": {"n_start": 3}}},
            'search.sampler: sampler tpe: unknown option "n_start"; did you mean "n_startup_trials"?',
        ),
        (
            {"sampler": {"name": "tpe", "options": {"multivariate": "maybe"}}},
            'search.sampler: sampler tpe: multivariate must be true or false, got text "maybe"',
        ),
        (
            {"sampler": {"name": "auto", "options": {"n_startup_trials": -5}}},
            "search.sampler: sampler auto: n_startup_trials must not be negative, got -5",
        ),
        (
            {"sampler": {"name": "auto", "options": {"n_startup_trials": True}}},
            "search.sampler: sampler auto: n_startup_trials must be an integer, got true",
        ),
        (
            {"pruner": {"name": "threshold", "options": {"upper": "high"}}},
            'search.pruner: pruner threshold: upper must be a number, got text "high"',
        ),
        (
            {"sampler": "grid"},
            'search.sampler: sampler grid: "learning_rate" of strategy lora is a range without a step'
            " - a grid needs a finite space; give it choices, as in learning_rate: [..], or a step",
        ),
    ],
)
def test_wrong_options_are_told(search: dict[str, Any], said: str) -> None:
    problems = find_wrong_choices(toy_spec(search=search), space=toy_space())
    assert [problem.message for problem in problems] == [said]


def test_right_options_are_not() -> None:
    search = {
        "sampler": {"name": "tpe", "options": {"n_startup_trials": 5, "multivariate": True}},
        "pruner": {"name": "percentile", "options": {"percentile": 30.0, "n_warmup_steps": 1}},
    }
    assert find_wrong_choices(toy_spec(search=search), space=toy_space()) == []
