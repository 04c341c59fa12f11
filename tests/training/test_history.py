from __future__ import annotations

import json

import pytest

from tuner.study.plan import Confusion
from tuner.training.history import History, Rules

CONFUSION = Confusion(labels=("a", "b"), counts=((1, 0), (0, 1)))


def history(*values: float, maximize: bool = True, patience: int | None = None, select: str = "best") -> History:
    rules = Rules(metric="f1", maximize=maximize, epochs=6, patience=patience, select=select)
    found = History(rules=rules)
    for index, value in enumerate(values):
        found.add({"f1": value}, Confusion(labels=("a", "b"), counts=((index + 1, 0), (0, 0))))
    return found


@pytest.mark.parametrize(
    ("values", "maximize", "select", "best"),
    [
        ((), True, "best", 0),
        ((0.1, 0.3, 0.2), True, "best", 2),
        ((0.1, 0.3, 0.2), False, "best", 1),
        ((0.3, 0.3), True, "best", 1),
        ((0.1, 0.3, 0.2), True, "last", 3),
    ],
)
def test_the_epoch_that_counts(values: tuple[float, ...], maximize: bool, select: str, best: int) -> None:
    found = history(*values, maximize=maximize, select=select)
    assert found.best_epoch == best
    assert found.best == ({"f1": values[best - 1]} if best else {})
    assert (found.confusion.counts[0][0] if found.confusion else 0) == best


@pytest.mark.parametrize(
    ("values", "patience", "maximize", "ended"),
    [
        ((), 1, True, ""),
        ((0.1,), 1, True, ""),
        ((0.1, 0.1), 1, True, "patience"),
        ((0.1, 0.2), 1, True, ""),
        ((0.3, 0.2, 0.1), 2, True, "patience"),
        ((0.3, 0.2, 0.1), 2, False, ""),
        ((0.3, 0.2, 0.1), None, True, ""),
        ((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), None, True, "epochs"),
        ((0.6, 0.5, 0.4, 0.3, 0.2, 0.1), 5, True, "epochs"),
    ],
)
def test_when_a_run_is_over(values: tuple[float, ...], patience: int | None, maximize: bool, ended: str) -> None:
    assert history(*values, patience=patience, maximize=maximize).ended_by() == ended


def test_json_brings_the_same_bits_back() -> None:
    found = history(0.1 + 0.2, 1 / 3, 2**-1074)
    again = History.from_json(json.loads(json.dumps(found.to_json())), rules=found.rules)
    assert again == found
