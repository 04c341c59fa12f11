"""A study played without training: the real store and the real driver, with made-up curves in place of a model."""

from __future__ import annotations

import random
from dataclasses import dataclass

from tests.report.samples import make_space, make_spec, make_test_score
from tuner.search.driver import StudyDriver
from tuner.store import leases
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

    errored: frozenset[int] = frozenset()
    infeasible: frozenset[int] = frozenset()
    diverged: frozenset[int] = frozenset()


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


def play_trouble(url: str, *, name: str = "played") -> None:
    """Everything that can become of a trial: complete and pruned ones, three that end badly at once (4, 5 and 6), one whose process
    dies again and again (7), one that is tried again twice and has a result then (8), one that waits (9), one that runs (10)."""
    play(
        url,
        name=name,
        runs=7,
        ends=Ends(errored=frozenset({4}), infeasible=frozenset({5}), diverged=frozenset({6})),
    )
    with Database.open(url) as database:
        driver = StudyDriver(database, name=name)
        for _ in range(3):
            _lose(
                database,
                driver,
                number=7,
                reason="the runner was killed by SIGABRT",
                log_tail="Fatal Python error: Aborted",
            )
        _lose(database, driver, number=8, reason="the runner was killed by SIGSEGV", log_tail="Segmentation fault")
        fault = "OSError: [Errno 5] Input/output error: '/data/rows.csv'"
        _lose(database, driver, number=8, reason=fault, log_tail=f"Traceback …\n{fault}", ended=Outcome.ERRORED)
        _end(driver, _claim(driver, 8), Ends(), lift=0.25)  # a good one, which no pruner stops
        first, other = _claim(driver, 9), _claim(driver, 10)
        for lease in (first, other):
            driver.report(lease, epoch=1, metrics={"macro_f1": 0.66, "loss": 1.0}, seconds=2.0, extend=600.0)
        leases.release(database, first, reason="the worker was told to stop", seconds=2.5)


def _claim(driver: StudyDriver, number: int) -> Lease:
    lease = driver.claim(HOLDER)
    assert lease is not None and lease.number == number
    return lease


def _lose(
    database: Database, driver: StudyDriver, *, number: int, reason: str, log_tail: str, ended: Outcome = Outcome.LOST
) -> None:
    lease = _claim(driver, number)
    leases.lose(database, lease, reason=reason, seconds=1.0, log_tail=log_tail, ended=ended)


HOLDER = Holder(worker="w-1", host="box-1", slot="cpu/0", lease=600.0)


def _end(driver: StudyDriver, lease: Lease, ends: Ends, *, lift: float = 0.0) -> None:
    bad = {
        Outcome.ERRORED: (ends.errored, "KeyError: 'text'"),
        Outcome.INFEASIBLE: (ends.infeasible, "out of memory at one row"),
        Outcome.DIVERGED: (
            ends.diverged,
            "loss or gradient became non-finite in epoch 1, step 9; lower the learning rate",
        ),
    }
    for outcome, (numbers, reason) in bad.items():
        if lease.purpose == "search" and lease.number in numbers:
            driver.fail(lease, outcome=outcome, reason=reason, seconds=1.0, log_tail="the last words")
            return
    rng = random.Random(f"{lease.number}-{lease.seed}")
    level = 0.6 + 0.05 * (lease.number % 8) + rng.uniform(0, 0.02) + lift
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
