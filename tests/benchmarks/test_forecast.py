"""What the forecast's benchmark counts as held."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.forecast import FIRST, STUDIES, Measured
from tuner import catalogue
from tuner.study.file import validate_study
from tuner.study.outlook import Outlook, Span

SPAN = Span(low=1.0, high=2.0)
OUTLOOK = Outlook(device_hours=SPAN, hours=SPAN, workers=1, money=SPAN, stands_on="x")
HELD = Measured(
    name="x", trials=1, workers=1, before=OUTLOOK, during=(OUTLOOK,), device_hours=1.0, hours=2.0, money=1.5
)


def test_all_three_must_lie_within() -> None:
    assert HELD.holds
    assert not replace(HELD, device_hours=0.9).holds
    assert not replace(HELD, hours=2.1).holds
    assert not replace(HELD, money=2.5).holds
    narrow = replace(OUTLOOK, hours=Span(low=1.0, high=1.5))
    assert replace(HELD, during=(OUTLOOK, narrow, narrow, OUTLOOK)).share_during == 0.5


def test_its_studies_can_be_read() -> None:
    names = [validate_study(study, catalogue=catalogue()).name for study in (FIRST, *(study for study, _ in STUDIES))]
    assert len(set(names)) == 4
