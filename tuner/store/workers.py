"""Workers: who is there, and whose leases a death frees at once."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from sqlalchemy import delete, insert, select, update
from sqlalchemy.engine import Connection

from tuner.store.database import Database
from tuner.store.records import Outcome, WorkerRecord
from tuner.store.tables import db_now, runs, workers


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """One supervisor process, told apart from every other one, also from an earlier one with the same pid.

    Attributes:
        worker: Unique id.
        host: Host name, for people.
        boot: The running kernel and the process namespace: where ``pid`` means something. Two containers on one
            host differ, two processes beside each other agree.
        pid: Process id.
        process_started: Start of the process, seconds since 1970 by the host's clock; only compared on the same host.
    """

    worker: str
    host: str
    boot: str
    pid: int
    process_started: float

    @classmethod
    def of_this_process(cls, worker: str) -> Identity:
        """The identity of the calling process."""
        return cls(
            worker=worker,
            host=socket.gethostname(),
            boot=_boot(),
            pid=os.getpid(),
            process_started=psutil.Process().create_time(),
        )


def _boot() -> str:
    parts = []
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts) or socket.gethostname()


def register(db: Database, identity: Identity, *, devices: Sequence[str], version: str, lease: float) -> None:
    """Enter a worker, and free the leases of workers on this host that are known to be dead.

    A lease protects against workers that cannot be asked. Those of this host can: a process that no longer exists will
    not come back, so that after a crash the same command goes on at once instead of waiting for the lease to run out.
    """

    def _register(tx: Connection) -> None:
        tx.execute(delete(workers).where(workers.c.worker_id == identity.worker))  # a first try that took effect
        tx.execute(
            insert(workers).values(
                worker_id=identity.worker,
                host=identity.host,
                boot=identity.boot,
                pid=identity.pid,
                process_started=identity.process_started,
                devices=json.dumps(list(devices)),
                version=version,
                code="",
                beat=0,
                asked="",
                state="running",
                started_at=db_now(),
                seen_at=db_now(),
                expires_at=db_now() + lease,
            )
        )
        neighbours = tx.execute(
            select(workers).where(workers.c.boot == identity.boot, workers.c.worker_id != identity.worker)
        ).all()
        for neighbour in neighbours:
            if not _process_exists(neighbour.pid, neighbour.process_started):
                _expire(tx, neighbour.worker_id)

    db.write(_register)


def _expire(tx: Connection, worker: str) -> None:
    tx.execute(
        update(runs).where(runs.c.worker_id == worker, runs.c.outcome == Outcome.RUNNING.value).values(expires_at=0.0)
    )
    tx.execute(delete(workers).where(workers.c.worker_id == worker))


def _process_exists(pid: int, started: float) -> bool:
    try:
        return abs(psutil.Process(pid).create_time() - started) < 1.0
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def beat(db: Database, worker: str, *, state: str, lease: float) -> None:
    """Say that a worker is alive; ``state`` is ``running`` or ``draining``."""
    db.write(
        lambda tx: tx.execute(
            update(workers)
            .where(workers.c.worker_id == worker)
            .values(state=state, seen_at=db_now(), expires_at=db_now() + lease)
        )
    )


def unregister(db: Database, worker: str) -> None:
    """Take a worker off the list; it has given back its runs."""
    db.write(lambda tx: tx.execute(delete(workers).where(workers.c.worker_id == worker)))


def list_workers(db: Database) -> list[WorkerRecord]:
    """All workers on the list, oldest first, the silent ones included."""
    return db.read(read_workers)


def read_workers(tx: Connection) -> list[WorkerRecord]:
    """As :func:`list_workers`, inside a transaction of the caller."""
    now = tx.execute(select(db_now())).scalar_one()
    running: dict[str, list[str]] = {}
    for row in tx.execute(
        select(runs.c.worker_id, runs.c.number, runs.c.purpose).where(runs.c.outcome == Outcome.RUNNING.value)
    ):
        running.setdefault(row.worker_id, []).append(f"{row.number}" if row.purpose == "search" else f"{row.number}c")
    return [
        WorkerRecord(
            worker=row.worker_id,
            host=row.host,
            pid=row.pid,
            devices=tuple(json.loads(row.devices)),
            state=row.state,
            started_at=row.started_at,
            seen_at=row.seen_at,
            is_alive=row.expires_at >= now,
            running=tuple(running.get(row.worker_id, ())),
        )
        for row in tx.execute(select(workers).order_by(workers.c.started_at))
    ]
