"""Toy studies for the store and the search: real tables, real Optuna, no training."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.engine import Connection

from tuner.search.driver import StudyDriver
from tuner.store import studies
from tuner.store.database import Database
from tuner.store.leases import Holder, Lease
from tuner.store.records import Outcome, StudyRecord
from tuner.store.tables import studies as studies_table
from tuner.study.domains import Choice, Fixed, Range
from tuner.study.plan import Confusion, TestScore, TrialResult, Verdict
from tuner.study.space import SearchSpace, StrategySpace
from tuner.study.spec import StudySpec

LEASE = 60.0


def toy_space(*, finite: bool = False) -> SearchSpace:
    """Two strategies; ``full`` has a knob less than ``lora``."""
    rate = Choice(options=(-1.0, 0.0, 1.0)) if finite else Range(low=-1.5, high=1.5)
    shared = {"learning_rate_decades": rate, "batch_size": Choice(options=(8, 16)), "schedule": Fixed(value="linear")}
    recipe = {"learning_rate_decades": 0.0, "batch_size": 16}
    return SearchSpace(
        strategies=(
            StrategySpace(
                strategy="lora",
                prior=5e-4,
                domains={**shared, "lora.r": Choice(options=(4, 8))},
                recipe={**recipe, "lora.r": 8},
            ),
            StrategySpace(strategy="full", prior=5e-5, domains=shared, recipe=recipe),
        )
    )


def sql(statement: str) -> Callable[[Connection], None]:
    """A transaction of one statement."""

    def _run(tx: Connection) -> None:
        tx.exec_driver_sql(statement.replace("%", "%%"))

    return _run


def toy_spec(name: str = "toy", **changes: Any) -> StudySpec:
    fields: dict[str, Any] = {
        "name": name,
        "task": "text-classification",
        "model": "model",
        "data": {"train": "train.csv"},
        "objective": {"metric": "f1"},
        "strategies": ["lora", "full"],
        "training": {"epochs": 3},
        "budget": {"trials": 6},
        "confirm": {"finalists": 0},
    }
    return StudySpec.model_validate(fields | changes)


def toy_study(db: Database, name: str = "toy", *, space: SearchSpace | None = None, **changes: Any) -> StudyRecord:
    return studies.create_study(db, spec=toy_spec(name, **changes), space=space or toy_space(), maximize=True)


def estrange(db: Database, name: str, *, section: str = "search") -> None:
    """Let a study be one that a newer code made, with a key that this one does not know."""

    def _change(tx: Connection) -> None:
        is_it = studies_table.c.name == name
        spec = json.loads(tx.execute(select(studies_table.c.spec).where(is_it)).scalar_one())
        spec[section]["invented"] = 1
        tx.execute(update(studies_table).where(is_it).values(spec=json.dumps(spec), code="9.0.0/abc"))

    db.write(_change)


def holder(worker: str = "w1", *, lease: float = LEASE) -> Holder:
    return Holder(worker=worker, host="box", slot="cpu/0", lease=lease)


def score(lease: Lease, epoch: int) -> float:
    """A smooth objective: best near a learning rate of 1e-3, better with every epoch."""
    assert lease.params is not None
    rate = float(lease.params["learning_rate"])
    return math.exp(-abs(math.log10(rate / 1e-3))) * (1.0 - 0.5**epoch)


def toy_result(
    value: float, *, epochs: int = 3, ended_by: str = "epochs", seconds: float = 3.0, test: TestScore | None = None
) -> TrialResult:
    return TrialResult(
        ended_by=ended_by,
        epochs=epochs,
        best_epoch=epochs,
        metrics={"f1": value},
        trainable_params=1234,
        total_params=10_000_000_000,
        peak_memory=5_000_000_000,
        seconds=seconds,
        device="cpu",
        checkpoint="/checkpoints/x",
        confusion=Confusion(labels=("a", "b"), counts=((3, 1), (0, 4))),
        test=test,
        notes=("3 % of the texts were cut",),
    )


def train(driver: StudyDriver, lease: Lease, *, seconds: float = 1.0) -> tuple[Outcome, float | None, str]:
    """Report like a runner would, and finish."""
    epochs = driver.study.spec.training.epochs
    for epoch in range(1, epochs + 1):
        value = score(lease, epoch)
        verdict, why = driver.report(
            lease, epoch=epoch, metrics={"f1": value, "loss": 1 - value}, seconds=epoch * seconds, extend=LEASE
        )
        if verdict is Verdict.PRUNE:
            result = toy_result(value, epochs=epoch, ended_by="prune", seconds=epoch * seconds)
            return driver.finish(lease, result=result, reason=why)
    return driver.finish(lease, result=toy_result(score(lease, epochs), epochs=epochs, seconds=epochs * seconds))


def run_out(driver: StudyDriver, worker: str = "w1") -> list[Lease]:
    """Serve a study until it is no longer open; the leases in order."""
    done = []
    while driver.advance().state.is_open:
        lease = driver.claim(holder(worker))
        if lease is not None:
            train(driver, lease)
            done.append(lease)
    return done
