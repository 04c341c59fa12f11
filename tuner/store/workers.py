"""Workers: who is there, and whose leases a death frees at once."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from sqlalchemy import delete, insert, select, update
from sqlalchemy.engine import Connection

from tuner.errors import NotFoundError, UsageError
from tuner.store import events
from tuner.store.database import Database
from tuner.store.records import Asked, Outcome, WorkerRecord
from tuner.store.tables import db_now, runs, studies, workers
from tuner.study.names import did_you_mean

_PROC = Path("/proc")


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """One supervisor process, told apart from every other one, also from an earlier one with the same pid.

    Attributes:
        worker: Unique id.
        host: Host name, for people.
        boot: The running kernel and the process namespace: where ``pid`` means something. Two containers on one
            host differ, two processes beside each other agree.
        pid: Process id.
        process_started: See :func:`when_started`; only compared where ``boot`` is the same.
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
            process_started=when_started(os.getpid()),
        )


def _boot() -> str:
    parts = []
    with contextlib.suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
    with contextlib.suppress(OSError):
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts) or socket.gethostname()


def when_started(pid: int) -> float:
    """When a process of this host began, to tell it from a later one with the same pid; to be compared, not to be shown.

    Below 0: clock ticks of the kernel from its boot on, which no change of the host's clock moves. Above 0, where there is no ``/proc``:
    seconds since 1970 by that clock.

    Raises:
        psutil.NoSuchProcess: If there is none.
        psutil.AccessDenied: If this user may not know.
    """
    return -_ticks(pid) if (_PROC / "self" / "stat").is_file() else psutil.Process(pid).create_time()


def _ticks(pid: int) -> float:
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError) as error:
        raise psutil.NoSuchProcess(pid) from error
    except PermissionError as error:
        raise psutil.AccessDenied(pid) from error
    # The 22nd field; the second is the program's name in brackets, which may hold blanks and brackets.
    return float(stat.rpartition(")")[2].split()[19])


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """What a person asks of the worker that holds a run.

    Attributes:
        token: Of the claim that it holds.
        asked: STOP or RELEASE.
        why: Who asked, and why, in words.
    """

    token: str
    asked: Asked
    why: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Pulse:
    """What a sign of life was answered.

    Attributes:
        is_known: Whether the database knows the worker as it last left it. If not, it was restored from an older backup, or somebody took the
            worker off: what it holds may belong to another one, or to nobody.
        drain: Who asks it to drain, in words; an empty string if nobody does.
        requests: What is asked of the worker's runs.
    """

    is_known: bool
    drain: str = ""
    requests: tuple[Request, ...] = ()


def register(
    db: Database,
    identity: Identity,
    *,
    devices: Sequence[str],
    version: str,
    lease: float,
    code: str = "",
    formerly: str | None = None,
) -> None:
    """Enter a worker, and free the leases of workers on this host that are known to be dead.

    A lease protects against workers that cannot be asked. Those of this host can: a process that no longer exists will
    not come back, so that after a crash the same command goes on at once instead of waiting for the lease to run out.

    Args:
        db: The database.
        identity: The worker.
        devices: Names of its slots.
        version: Of tuner.
        lease: Seconds until it counts as silent.
        code: See :mod:`tuner.source`.
        formerly: Its id before the database was restored; what is held under that is free.
    """

    def _register(tx: Connection) -> None:
        tx.execute(delete(workers).where(workers.c.worker_id == identity.worker))  # a first try that took effect
        if formerly is not None:
            _expire(tx, formerly)
        tx.execute(
            insert(workers).values(
                worker_id=identity.worker,
                host=identity.host,
                boot=identity.boot,
                pid=identity.pid,
                process_started=identity.process_started,
                devices=json.dumps(list(devices)),
                version=version,
                code=code,
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
        if started < 0.0:
            return when_started(pid) == started
        return abs(psutil.Process(pid).create_time() - started) < 1.0  # an older tuner entered it, or there is no /proc
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def beat(db: Database, worker: str, *, number: int, state: str, lease: float) -> Pulse:
    """Say that a worker is alive, and hear what is asked of it.

    Args:
        db: The database.
        worker: The worker's id.
        number: Of this sign of life: 1, 2, … A database that has a smaller one than the last was restored from an older backup.
        state: ``running`` or ``draining``.
        lease: Seconds until the worker counts as silent.

    Raises:
        UnavailableError: If the database cannot be reached; the same number may be said again, whether it was stored or not.
    """

    def _beat(tx: Connection) -> Pulse:
        heard = tx.execute(
            update(workers)
            .where(workers.c.worker_id == worker, workers.c.beat.in_((number - 1, number)))
            .values(beat=number, state=state, seen_at=db_now(), expires_at=db_now() + lease)
        )
        if heard.rowcount != 1:
            return Pulse(is_known=False)
        asked = tx.execute(select(workers.c.asked).where(workers.c.worker_id == worker)).scalar_one()
        why = events.why_asked(tx, events.DRAIN_ASKED, worker_id=worker) if asked == Asked.DRAIN.value else ""
        return Pulse(
            is_known=True,
            drain=why or ("drain asked" if asked == Asked.DRAIN.value else ""),
            requests=tuple(_requests(tx, worker)),
        )

    return db.write(_beat)


def _requests(tx: Connection, worker: str) -> Iterator[Request]:
    query = (
        select(runs.c.run_id, runs.c.token, runs.c.asked, studies.c.state, studies.c.state_reason)
        .join(studies, studies.c.study_id == runs.c.study_id)
        .where(runs.c.worker_id == worker, runs.c.outcome == Outcome.RUNNING.value, runs.c.asked != "")
    )
    for row in tx.execute(query).all():
        why = f"its study was {row.state} {row.state_reason}"
        if row.asked == Asked.STOP.value:
            why = events.why_asked(tx, events.STOP_ASKED, run_id=row.run_id) or "stopped"
        yield Request(token=row.token, asked=Asked(row.asked), why=why)


def ask_to_drain(
    db: Database, *, worker: str | None = None, host: str | None = None, everyone: bool = False, who: str
) -> list[WorkerRecord]:
    """Ask workers to give back what they run and to end.

    Args:
        db: The database.
        worker: The worker's id, or the beginning of it.
        host: All workers of this host.
        everyone: All workers.
        who: Who asks, as ``user@host``.

    Returns:
        Those that were asked, or had been asked before.

    Raises:
        UsageError: If not exactly one of the three is given, or several workers' ids begin so.
        NotFoundError: If there is no such worker.
    """
    if [worker is not None, host is not None, everyone].count(True) != 1:
        raise UsageError(
            "say which workers in one way: an id, a host, or all of them",
            fix="tuner worker drain ID | --host H | --all",
        )

    def _ask(tx: Connection) -> list[WorkerRecord]:
        chosen = _chosen(read_workers(tx), worker=worker, host=host)
        for one in chosen:
            asked = tx.execute(
                update(workers)
                .where(workers.c.worker_id == one.worker, workers.c.asked != Asked.DRAIN.value)
                .values(asked=Asked.DRAIN.value)
            )
            if asked.rowcount:
                events.record(tx, events.DRAIN_ASKED, f"drain asked by {who}", worker_id=one.worker, who=who)
        return chosen

    return db.write(_ask)


def _chosen(known: list[WorkerRecord], *, worker: str | None, host: str | None) -> list[WorkerRecord]:
    if worker is not None:
        found = [one for one in known if worker and one.worker.startswith(worker)]
        if len(found) > 1:
            raise UsageError(f'"{worker}" begins {len(found)} ids', fix=f"say more of it: {found[0].worker}")
        hint = did_you_mean(worker, [one.worker for one in known]).removeprefix("; ")
        if not found:
            raise NotFoundError(f'no worker "{worker}"', fix=hint or "see: tuner worker list")
        return found
    if host is not None:
        found = [one for one in known if one.host == host]
        if not found:
            hint = did_you_mean(host, sorted({one.host for one in known})).removeprefix("; ")
            raise NotFoundError(f'no worker on host "{host}"', fix=hint or "see: tuner worker list")
        return found
    return known


def touch(db: Database, worker: str) -> None:
    """Write something of no consequence: a database whose disk is full can be read, and is of no use.

    Raises:
        UnavailableError: If the database cannot be reached, or takes nothing.
    """
    db.write(lambda tx: tx.execute(update(workers).where(workers.c.worker_id == worker).values(seen_at=db_now())))


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
            asked=row.asked,
            code=row.code,
        )
        for row in tx.execute(select(workers).order_by(workers.c.started_at))
    ]
