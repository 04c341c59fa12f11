"""How many connections a server has, and how many are taken."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.engine import Connection

from tuner.store.transactions import Transactions


@dataclass(frozen=True, kw_only=True, slots=True)
class ConnectionUse:
    """The connections of a server, everybody's together.

    Attributes:
        used: Those that are open, ours included.
        limit: The server's limit.
    """

    used: int
    limit: int


def read_connections(db: Transactions) -> ConnectionUse | None:
    """How many connections the server has left; None for SQLite, which has no server.

    Raises:
        UnavailableError: If the database cannot be reached.
    """
    if db.dialect == "sqlite":
        return None
    # What any role may read, and of everybody's.
    used, limit = "SELECT sum(numbackends) FROM pg_stat_database", "SHOW max_connections"
    if db.dialect == "mysql":
        used, limit = "SHOW GLOBAL STATUS LIKE 'Threads\\_connected'", "SELECT @@max_connections"

    def _read(tx: Connection) -> ConnectionUse:
        # Both answer with one row, in which the number is last.
        one, other = (int(tx.exec_driver_sql(query.replace("%", "%%")).one()[-1]) for query in (used, limit))
        return ConnectionUse(used=one, limit=other)

    return db.read(_read)
