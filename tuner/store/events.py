"""What happened, in order: one row for each change that a person may ask about."""

from __future__ import annotations

from sqlalchemy import func, insert, select
from sqlalchemy.engine import Connection

from tuner.store.tables import db_now, events

STOP_ASKED, DRAIN_ASKED = "trial_stop_asked", "drain_asked"
"""Kinds of events whose text says who asked what of a worker."""

RETRIED = "trial_retried"
"""The kind of event from which on a run that ended badly is a new one."""

REPEATED = "trial_repeated"
"""The kind of event that tells of a training outside of the study, to see whether the trial is reproduced."""


def record(
    tx: Connection,
    kind: str,
    text: str,
    *,
    study_id: int | None = None,
    number: int | None = None,
    run_id: int | None = None,
    worker_id: str | None = None,
    who: str | None = None,
) -> None:
    """Write one event in the transaction of the change it tells of.

    Args:
        kind: A word that programs filter by, such as ``run_lost``.
        text: A sentence for people.
        who: Who asked for it, as ``user@host``; None where a worker acts by itself.
    """
    tx.execute(
        insert(events).values(
            at=db_now(),
            kind=kind,
            text=text,
            study_id=study_id,
            number=number,
            run_id=run_id,
            worker_id=worker_id,
            who=who,
        )
    )


def why_asked(tx: Connection, kind: str, *, run_id: int | None = None, worker_id: str | None = None) -> str:
    """What the newest event of a kind says of a run or of a worker; an empty string without one."""
    of = events.c.worker_id == worker_id if run_id is None else events.c.run_id == run_id
    query = select(events.c.text).where(events.c.kind == kind, of).order_by(events.c.event_id.desc()).limit(1)
    return str(tx.execute(query).scalar_one_or_none() or "")


def newest(tx: Connection, kind: str, *, study_id: int) -> int:
    """The id of the newest event of a kind in a study; 0 without one."""
    query = select(func.max(events.c.event_id)).where(events.c.study_id == study_id, events.c.kind == kind)
    return int(tx.execute(query).scalar_one_or_none() or 0)
