from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.report.samples import make_trial
from tuner.report.repetition import (
    Difference,
    Repetition,
    attempts_that_count,
    changes_since,
    first_difference,
    repetition_lines,
)
from tuner.store.records import Outcome

THEN = [{"loss": 1.0, "macro_f1": 0.5}, {"loss": 0.5, "macro_f1": 0.6}]
FACTS: dict[str, Any] = {
    "device": "cpu",
    "threads": 2,
    "code": "0.1.0/abc",
    "data": "d" * 64,
    "micro_batch": 8,
    "versions": {"torch": "2.12.0", "peft": "0.21.2"},
}


def repetition(**changes: Any) -> Repetition:
    fields: dict[str, Any] = {
        "study": "s",
        "number": 3,
        "outcome": Outcome.COMPLETE,
        "ended_as": Outcome.COMPLETE,
        "reason": "",
        "epochs": 2,
        "difference": None,
        "changes": (),
        "is_recorded": True,
        "seconds": 1.5,
    }
    return Repetition(**fields | changes)


def test_the_same_numbers_are_no_difference() -> None:
    more = [{**epoch, "seconds": 1.0} for epoch in THEN]  # what was not recorded is not compared
    assert first_difference(THEN, more, metric="macro_f1") is None


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ([THEN[0], {"loss": 0.5000000000000001, "macro_f1": 0.6}], Difference(epoch=2, metric="loss", then=0.5, now=0.5000000000000001, metrics=1)),
        ([{"loss": 2.0, "macro_f1": 0.4}, THEN[1]], Difference(epoch=1, metric="macro_f1", then=0.5, now=0.4, metrics=2)),
        ([{"macro_f1": 0.5}, THEN[1]], Difference(epoch=1, metric="loss", then=1.0, now=None, metrics=1)),
        (THEN[:1], Difference(epoch=2, metric="macro_f1", then=0.6, now=None, metrics=0)),
        ([*THEN, THEN[1]], Difference(epoch=3, metric="macro_f1", then=None, now=0.6, metrics=0)),
    ],
)  # fmt: skip
def test_the_first_difference_is_found_in_the_last_digit(now: list[dict[str, float]], expected: Difference) -> None:
    assert first_difference(THEN, now, metric="macro_f1") == expected


def test_what_was_other_is_told_in_plain_words() -> None:
    trial = make_trial(0)
    attempt = replace(trial.attempts[0], facts=FACTS)
    trial = replace(trial, attempts=(attempt,))
    now = {**FACTS, "data": "e" * 64, "versions": {"torch": "2.13.0", "peft": "0.21.2"}, "micro_batch": 4}
    changes = changes_since(trial, now)
    assert [change.words for change in changes] == [
        "the rows to learn from and to judge by: others (digest dddddddddddd then, eeeeeeeeeeee now)",
        "torch: 2.12.0 then, 2.13.0 now",
    ]
    assert changes_since(trial, FACTS) == ()
    assert attempts_that_count(replace(trial, attempts=(replace(attempt, facts={}),))) == []


def test_the_answer_comes_first() -> None:
    assert repetition_lines(repetition()) == [
        "trial 3 of study s is reproduced bit for bit: every metric of 2 epochs (1.5 s)"
    ]
    pruned = repetition(outcome=Outcome.PRUNED, ended_as=Outcome.PRUNED, epochs=1)
    assert repetition_lines(pruned)[0].endswith("every metric of 1 epoch, pruned as it was (1.5 s)")
    parts = Difference(epoch=2, metric="loss", then=0.5, now=0.25, metrics=3)
    lines = repetition_lines(repetition(difference=parts))
    assert lines[0] == "trial 3 of study s is not reproduced: loss at epoch 2 was 0.5 and is 0.25 (and 2 more metrics)"
    assert lines[1].startswith("  nothing that is recorded differs; ")
    assert "older tuner" in repetition_lines(repetition(difference=parts, is_recorded=False))[1]
    diverged = repetition(ended_as=Outcome.DIVERGED, reason="the loss exploded")
    assert not diverged.is_equal
    assert "but it was complete and is now diverged: the loss exploded" in repetition_lines(diverged)[0]
