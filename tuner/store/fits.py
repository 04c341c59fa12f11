"""What was learnt about memory: how many rows at once fit, for a model, a strategy, a length of text and a kind of device.

It holds for all studies and all boxes, so that the second trial of a kind does not have to run out of memory to learn what
the first has. It is a start, not a limit that anything depends on: a size that is too large is halved again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.engine import Connection, Row

from tuner.store import ends, events, optuna_rows
from tuner.store.database import Database
from tuner.store.leases import Lease, guard
from tuner.store.records import Outcome
from tuner.store.tables import attempts, db_now, fits
from tuner.store.tables import events as events_table
from tuner.store.upsert import upsert
from tuner.study.spec import StudySpec

FRESH_SECONDS = 7 * 24 * 3600.0
"""How long a size is remembered: another process that held half of the memory is gone some day."""

_KEY = ("model", "strategy", "length", "device")
_NEXT = "next_micro_batch"  # in the facts of an attempt: with how many rows another one should begin


@dataclass(frozen=True, kw_only=True, slots=True)
class FitKey:
    """What a size that fits depends on.

    Attributes:
        model: Fingerprint of the model's source and revision.
        strategy: The strategy or combination.
        length: Most tokens of a row.
        device: Kind and memory of the device.
    """

    model: str
    strategy: str
    length: int
    device: str

    @classmethod
    def of(cls, spec: StudySpec, *, strategy: str, device: str) -> FitKey:
        """The key of a study's trials with one strategy on one kind of device."""
        return cls(
            model=sha256(f"{spec.model}@{spec.revision or ''}".encode()).hexdigest(),
            strategy=strategy,
            length=spec.training.max_length,
            device=device[:100],
        )


def remember(db: Database, key: FitKey, micro_batch: int) -> None:
    """Keep how many rows turned out to fit; of several that are known the smallest counts.

    Raises:
        UnavailableError: If the database cannot be reached.
    """

    def _remember(tx: Connection) -> None:
        known = _fresh(tx, key)
        now = tx.execute(select(db_now())).scalar_one()
        row = _columns(key) | {"micro_batch": min(micro_batch, known or micro_batch), "at": now}
        upsert(tx, fits, [row], key=_KEY)

    db.write(_remember)


@dataclass(frozen=True, kw_only=True, slots=True)
class Beginning:
    """How a run should begin.

    Attributes:
        micro_batch: Rows at once; 0 where nothing is known.
        in_fresh_process: Whether the last attempt ran out of memory.
    """

    micro_batch: int = 0
    in_fresh_process: bool = False


def read_beginning(db: Database, lease: Lease, *, key: FitKey | None) -> Beginning:
    """How a run that was just claimed should begin: from what all trials have learnt, and its own earlier attempts.

    Args:
        db: The database.
        lease: The right to the run.
        key: What it trains, and where; None where that is not known.

    Raises:
        UnavailableError: If the database cannot be reached.
    """

    def _read(tx: Connection) -> Beginning:
        spent = _spent(tx, lease.run_id) if lease.attempt > 1 else []
        sizes = [json.loads(row.facts).get(_NEXT, 0) for row in spent]
        sizes.append(0 if key is None else _fresh(tx, key))
        return Beginning(
            micro_batch=min((size for size in sizes if size), default=0),
            in_fresh_process=any(row.attempt == lease.attempt - 1 for row in spent),
        )

    return Beginning() if key is None and lease.attempt == 1 else db.read(_read)


def _fresh(tx: Connection, key: FitKey) -> int:
    query = select(fits.c.micro_batch).where(
        *(fits.c[name] == value for name, value in _columns(key).items()), fits.c.at > db_now() - FRESH_SECONDS
    )
    return int(tx.execute(query).scalar_one_or_none() or 0)


def _columns(key: FitKey) -> dict[str, str | int]:
    return {"model": key.model, "strategy": key.strategy, "length": key.length, "device": key.device}


def _spent(tx: Connection, run_id: int) -> list[Row[Any]]:
    """The attempts of a run that ended for lack of memory, since a person asked for it last: something is other then."""
    asked = select(func.coalesce(func.max(events_table.c.at), 0.0)).where(
        events_table.c.run_id == run_id, events_table.c.kind == events.RETRIED
    )
    query = select(attempts).where(
        attempts.c.run_id == run_id,
        attempts.c.outcome == Outcome.INFEASIBLE.value,
        attempts.c.started_at >= asked.scalar_subquery(),
    )
    return list(tx.execute(query).all())


def try_with_less(
    db: Database, lease: Lease, *, micro_batch: int, reason: str, seconds: float, log_tail: str = ""
) -> bool:
    """Give a run whose memory ran out one more attempt, in a fresh process and with fewer rows at once.

    Another process may have held the memory, or the allocator was fragmented. It goes on from its last checkpoint.

    Args:
        db: The database.
        lease: The right to the run.
        micro_batch: Rows with which the next attempt begins.
        reason: Why this one ended.
        seconds: Device seconds of it.
        log_tail: Last lines of its log.

    Returns:
        Whether it waits now; not if it had its second attempt already.

    Raises:
        LeaseLost: If the lease does not hold.
        UnavailableError: If the database cannot be reached.
    """

    def _give_back(tx: Connection) -> bool:
        spent = _spent(tx, lease.run_id)
        if any(row.attempt == lease.attempt and row.worker_id == lease.worker for row in spent):
            return True  # an earlier try took effect although its connection broke
        if spent:
            return False
        guard(
            tx,
            lease,
            {
                "outcome": Outcome.WAITING.value,
                "reason": ends.waiting_again(reason),
                "worker_id": None,
                "expires_at": None,
            },
        )
        mine = (attempts.c.run_id == lease.run_id, attempts.c.attempt == lease.attempt)
        facts = json.loads(tx.execute(select(attempts.c.facts).where(*mine)).scalar_one()) | {_NEXT: micro_batch}
        end = {"outcome": Outcome.INFEASIBLE.value, "reason": reason, "ended_at": db_now(), "seconds": seconds}
        tx.execute(update(attempts).where(*mine).values(**end, facts=json.dumps(facts), log_tail=log_tail))
        if lease.purpose == "search":
            optuna_rows.set_state(tx, lease.trial_id, Outcome.WAITING)
        about: dict[str, Any] = {"study_id": lease.study_id, "number": lease.number, "run_id": lease.run_id}
        events.record(tx, "run_stumbled", reason, **about, worker_id=lease.worker)
        return True

    return db.write(_give_back)
