"""Four workers and one budget of device hours: it is not overshot, and little of it is left."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from tests.faults.checker import check
from tests.faults.figures import LONG, RecordProperty, record
from tests.faults.mob import mob
from tests.store.toy import toy_space, toy_spec
from tuner.api import load_study
from tuner.store import studies
from tuner.store.database import Database

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800 if LONG else 300)]

WORKERS = 4
SECONDS = 300.0 if LONG else 24.0
"""Device seconds of the budget; a whole training takes about half of one, and longer on a busy machine."""


def test_device_hours_hold_with_four_workers(tmp_path: Path, record_property: RecordProperty) -> None:
    url = f"sqlite:///{tmp_path}/tuner.db"
    spec = toy_spec(
        budget={"money": SECONDS / 3600.0 * 2.5, "price_per_hour": 2.5},
        training={"epochs": 3},
        search={"sampler": {"name": "random"}, "pruner": "median"},
    )
    with Database.open(url, create=True) as db:
        studies.create_study(db, spec=spec, space=toy_space(), maximize=True)
    with mob(tmp_path, url=url) as crowd:
        for _ in range(WORKERS):
            crowd.start()
        crowd.wait_until_over()
    snapshot = load_study("toy", storage=url)
    off = snapshot.study.used.gpu_seconds / SECONDS - 1.0
    cut = [trial for trial in snapshot.trials if trial.reason.startswith("budget of")]
    assert check(url=url, study="toy", ledger=crowd.ledger, trials=len(snapshot.trials)).wrong == {}
    assert len({attempt.worker for trial in snapshot.trials for attempt in trial.attempts}) == WORKERS
    mean = statistics.mean(trial.seconds for trial in snapshot.trials if trial.epochs)
    left = 0.02 if LONG else max(0.02, 1.1 * mean / SECONDS)  # of a small budget one trial is more than 2 %
    assert -left <= off <= 0.02, (snapshot.study.used, snapshot.study.state_reason)
    figures = {
        "workers": WORKERS,
        "device seconds": round(SECONDS),
        "trials": len(snapshot.trials),
        "of them cut at the limit": len(cut),
        "off by %": round(100.0 * off, 2),
    }
    record(record_property, row=32, database="sqlite", figures=figures)
