"""A study played without training: the real store and the real driver, with made-up curves in place of a model."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.report.samples import make_space, make_spec, make_test_score
from tuner.search.driver import StudyDriver
from tuner.store.database import Database
from tuner.store.leases import Holder, Lease
from tuner.store.records import Outcome, StudyRecord
from tuner.store.studies import create_study
from tuner.study.plan import Confusion, TrialResult, Verdict

_LABELS = ("acq", "earn")
_CONFUSION = Confusion(labels=_LABELS, counts=((40, 10), (5, 45)))


@dataclass(frozen=True, kw_only=True)
class Ends:
    """Trial numbers that end badly."""

    failed: frozenset[int] = frozenset()
    infeasible: frozenset[int] = frozenset()


def open_study(url: str, *, name: str = "played", trials: int = 6, epochs: int = 3) -> StudyRecord:
    """Store a study of four strategies."""
    spec = make_spec(name=name, trials=trials, epochs=epochs)
    with Database.open(url, create=True) as database:
        return create_study(database, spec=spec, space=make_space(), maximize=True)


def play(url: str, *, name: str = "played", runs: int | None = None, ends: Ends = Ends()) -> None:
    """Run trials and confirmations until nothing is left, or until this many were run."""
    with Database.open(url) as database:
        driver = StudyDriver(database, name=name)
        count = 0
        while driver.advance().state.is_open and (runs is None or count < runs):
            lease = driver.claim(HOLDER)
            assert lease is not None
            _end(driver, lease, ends)
            count += 1


def claim(url: str, *, name: str = "played") -> None:
    """Take a run and leave it running."""
    with Database.open(url) as database:
        assert StudyDriver(database, name=name).claim(HOLDER) is not None


HOLDER = Holder(worker="w-1", host="box-1", slot="cpu/0", lease=600.0)


def _end(driver: StudyDriver, lease: Lease, ends: Ends) -> None:
    bad = {Outcome.ERRORED: ends.failed, Outcome.INFEASIBLE: ends.infeasible}
    for outcome, numbers in bad.items():
        if lease.purpose == "search" and lease.number in numbers:
            reason = "loss became non-finite" if outcome is Outcome.ERRORED else "out of memory at one row"
            driver.fail(lease, outcome=outcome, reason=reason, seconds=1.0, log_tail="the last words")
            return
    rng = random.Random(f"{lease.number}-{lease.seed}")
    level = 0.6 + 0.05 * lease.number + rng.uniform(0, 0.02)
    epochs = driver.study.spec.training.epochs
    for epoch in range(1, epochs + 1):
        metrics = {"macro_f1": level + 0.01 * epoch, "accuracy": level + 0.02, "loss": 1.0 / epoch}
        verdict, reason = driver.report(lease, epoch=epoch, metrics=metrics, seconds=2.0 * epoch, extend=600.0)
        if verdict is Verdict.PRUNE or epoch == epochs:
            ended_by = verdict.value if verdict is Verdict.PRUNE else "epochs"
            driver.finish(lease, result=_result(lease, metrics, epoch=epoch, ended_by=ended_by), reason=reason)
            return


def _result(lease: Lease, metrics: dict[str, float], *, epoch: int, ended_by: str) -> TrialResult:
    test = make_test_score((0, 1, 0, 1), (0, 1, 1, 1), labels=_LABELS) if lease.purpose == "confirm" else None
    return TrialResult(
        ended_by=ended_by,
        epochs=epoch,
        best_epoch=epoch,
        metrics=metrics,
        trainable_params=1026,
        total_params=4_400_000,
        peak_memory=2**29,
        seconds=2.0 * epoch,
        device="cpu",
        confusion=_CONFUSION,
        test=test,
    )
