"""Devices of a worker that it leaves alone: told where people look for its devices, and as an event."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import update
from sqlalchemy.engine import Connection

from tuner.store import events
from tuner.store.database import Database
from tuner.store.tables import workers


def tell_of_devices(db: Database, worker: str, *, devices: Sequence[str], kind: str, text: str) -> None:
    """Say which devices a worker has now, in words, and what has changed.

    Args:
        db: The database.
        worker: Its id.
        devices: One for each slot, such as ``cuda:1/0 (out of use)``.
        kind: Of the event.
        text: What happened, for people.

    Raises:
        UnavailableError: If the database cannot be reached.
    """

    def _tell(tx: Connection) -> None:
        tx.execute(update(workers).where(workers.c.worker_id == worker).values(devices=json.dumps(list(devices))))
        events.record(tx, kind, text, worker_id=worker)

    db.write(_tell)
