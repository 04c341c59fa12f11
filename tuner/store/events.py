"""What happened, in order: one row for each change that a person may ask about."""

from __future__ import annotations

from sqlalchemy import insert
from sqlalchemy.engine import Connection

from tuner.store.tables import db_now, events


def record(
    tx: Connection,
    kind: str,
    text: str,
    *,
    study_id: int | None = None,
    number: int | None = None,
    run_id: int | None = None,
    worker_id: str | None = None,
) -> None:
    """Write one event in the transaction of the change it tells of.

    Args:
        kind: A word that programs filter by, such as ``run_lost``.
        text: A sentence for people.
    """
    tx.execute(
        insert(events).values(
            at=db_now(), kind=kind, text=text, study_id=study_id, number=number, run_id=run_id, worker_id=worker_id
        )
    )
