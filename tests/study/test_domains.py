from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.study.domains import Choice, Domain, Fixed, Range, Value, domain_from_json, domain_to_json


@pytest.mark.parametrize(
    ("domain", "value", "clipped"),
    [
        (Range(low=0.0, high=1.0), 2.0, 1.0),
        (Range(low=0.0, high=1.0), -1, 0.0),
        (Range(low=1, high=9, kind="int"), 4.4, 4),
        (Range(low=8, high=16, step=4, kind="int"), 13, 12),
        (Choice(options=(4, 8, 16)), 8, 8),
        (Choice(options=(4, 8, 16)), 11, 8),
        (Choice(options=("a", "b")), "c", "a"),
        (Fixed(value=3), 7, 3),
    ],
)
def test_clip(domain: Domain, value: Value, clipped: Value) -> None:
    found = domain.clip(value)
    assert found == clipped
    assert type(found) is type(clipped)


@settings(deadline=None)
@given(st.floats(min_value=-1e9, max_value=1e9))
def test_clipped_value_lies_in_the_range_and_stays(value: float) -> None:
    domain = Range(low=-2.0, high=3.0, step=0.5)
    clipped = float(domain.clip(value))
    assert -2.0 <= clipped <= 3.0
    assert domain.clip(clipped) == clipped


@pytest.mark.parametrize(
    "domain",
    [Range(low=0.0, high=1.0), Range(low=1, high=8, log=True, kind="int"), Choice(options=(1, 2)), Fixed(value="x")],
)
def test_json_and_back(domain: Domain) -> None:
    assert domain_from_json(domain_to_json(domain)) == domain
