"""The clock that counts: the database's."""

from __future__ import annotations

from sqlalchemy import select

from tuner.store.database import Database
from tuner.store.tables import db_now


def read_clock(db: Database) -> float:
    """Seconds since 1970 by the database's clock.

    Raises:
        UnavailableError: If the database cannot be reached.
    """
    return db.read(lambda tx: float(tx.execute(select(db_now())).scalar_one()))
