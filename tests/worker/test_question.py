"""One question in a thread of its own."""

from __future__ import annotations

import time

import pytest

from tuner.errors import ConfigurationError, TunerError, UnavailableError
from tuner.worker.question import Question


@pytest.mark.parametrize("error", [UnavailableError("gone"), ConfigurationError("of another schema now")])
def test_an_error_is_an_answer(error: TunerError) -> None:
    def _refuse() -> None:
        raise error

    assert answered(Question(_refuse)).error is error


def test_who_asks_does_not_wait() -> None:
    begun = time.monotonic()
    question = Question(lambda: time.sleep(0.5))
    assert not question.is_done
    assert time.monotonic() - begun < 0.4
    assert answered(question).error is None


def answered(question: Question) -> Question:
    while not question.is_done:
        time.sleep(0.01)
    return question
