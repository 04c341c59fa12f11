"""The confirmation of a study whose rows are divided into folds, through the driver and the database."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.toy import holder, score, toy_result, toy_study
from tuner.search.driver import StudyDriver
from tuner.store.database import Database
from tuner.store.leases import Lease
from tuner.store.past import load_past
from tuner.store.queries import load_snapshot
from tuner.store.records import Outcome, StudyState
from tuner.study.folds import fold_of
from tuner.study.plan import Verdict

BEST_EPOCH = {"lora": 2, "full": 1}


def end(driver: StudyDriver, lease: Lease) -> Verdict:
    """Report as many epochs as the lease has; in the search another epoch than the last one is the best."""
    verdict = Verdict.GO_ON
    for epoch in range(1, lease.epochs + 1):
        metrics = {"f1": score(lease, epoch), "loss": 0.1}
        verdict, _ = driver.report(lease, epoch=epoch, metrics=metrics, seconds=1.0 * epoch, extend=60.0)
    best = BEST_EPOCH[str(lease.strategy)] if lease.purpose == "search" else lease.epochs
    result = toy_result(score(lease, best), epochs=lease.epochs)
    driver.finish(lease, result=type(result).from_json(result.to_json() | {"best_epoch": best}))
    return verdict


@pytest.mark.parametrize("folds", [0, 4])
def test_finalists_go_through_the_folds_for_as_many_epochs_as_counted(folds: int, tmp_path: Path) -> None:
    data = {"train": "train.csv", **({"validation": {"folds": folds}} if folds else {})}
    with Database.open(f"sqlite:///{tmp_path / 'tuner.db'}", create=True) as db:
        study = toy_study(
            db, data=data, budget={"trials": 4}, search={"pruner": {"name": "none"}}, confirm={"finalists": 1}
        )
        driver = StudyDriver(db, name="toy")
        leases = []
        while driver.advance().state.is_open:
            lease = driver.claim(holder())
            assert lease is not None
            leases.append(lease)
            end(driver, lease)
        snapshot = load_snapshot(db, "toy")
        past = load_past(db)[0]
    searched = [lease for lease in leases if lease.purpose == "search"]
    confirmed = [lease for lease in leases if lease.purpose == "confirm"]
    assert snapshot.study.state is StudyState.FINISHED
    assert {lease.epochs for lease in searched} == {3}
    assert {fold_of(study.spec, seed=lease.seed) for lease in searched} == {1 if folds else 0}
    per_finalist = [
        [fold_of(study.spec, seed=run.seed) for run in finalist.runs if run.outcome is Outcome.COMPLETE]
        for finalist in snapshot.finalists
    ]
    fresh = study.spec.confirm.seeds
    assert all(sorted(found) == ([2, 3, 4] if folds else [0] * fresh) for found in per_finalist)
    for lease in confirmed:
        assert lease.epochs == (BEST_EPOCH[str(lease.strategy)] if folds else 3)
    # What the folds said of a finalist leaves no trace in what a new study of these rows learns.
    assert any(trial.confirmed is not None for trial in past.trials) is not bool(folds)
