"""What the connected user may do with a database."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.engine import Connection

from tuner.store.roles import Duty
from tuner.store.transactions import Transactions


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """Who is connected, and as what.

    Attributes:
        user: Name on the server.
        duty: The most that the user may do with tuner's tables; None where not even that.
        is_superuser: Whether the user may do anything on the whole server.
    """

    user: str
    duty: Duty | None
    is_superuser: bool


def read_standing(db: Transactions) -> Standing | None:
    """What the connected user may do; None for SQLite, where whoever may open the file may do everything.

    Raises:
        UnavailableError: If the database cannot be reached.
    """
    if db.dialect == "sqlite":
        return None
    return db.read(_read_postgresql if db.dialect == "postgresql" else _read_mysql)


def _read_postgresql(tx: Connection) -> Standing:
    row = tx.exec_driver_sql(
        "SELECT current_user, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),"
        " has_schema_privilege('public', 'CREATE'),"
        " coalesce(has_table_privilege(to_regclass('public.tuner_runs'), 'INSERT'), false),"
        " coalesce(has_table_privilege(to_regclass('public.tuner_runs'), 'SELECT'), false)"
    ).one()
    user, is_superuser, may_create, may_write, may_read = row
    return Standing(
        user=user, duty=_most(owner=may_create, worker=may_write, viewer=may_read), is_superuser=is_superuser
    )


def _read_mysql(tx: Connection) -> Standing:
    user = str(tx.exec_driver_sql("SELECT current_user()").scalar_one()).rpartition("@")[0]
    database = str(tx.exec_driver_sql("SELECT database()").scalar_one())
    granted, is_superuser = granted_by(
        [str(one) for (one,) in tx.exec_driver_sql("SHOW GRANTS FOR CURRENT_USER")], database=database
    )
    return Standing(
        user=user,
        duty=_most(owner="CREATE" in granted, worker="INSERT" in granted, viewer="SELECT" in granted),
        is_superuser=is_superuser,
    )


def granted_by(grants: Sequence[str], *, database: str) -> tuple[set[str], bool]:
    """What the statements of ``SHOW GRANTS`` allow on a whole database, and whether they allow as much on all of them."""
    everything = {"CREATE", "INSERT", "SELECT"}
    granted: set[str] = set()
    is_superuser = False
    for grant in grants:
        match = re.match(r"GRANT (.+?) ON (`(?:[^`]|``)+`|\*)\.\* TO ", grant)
        if match is None:
            continue
        words = {word.strip() for word in match[1].split(",")}
        words |= everything if {"ALL PRIVILEGES", "ALL"} & words else set()
        place = re.sub(r"\\([_%\\])", r"\1", match[2].strip("`").replace("``", "`"))
        if place == "*":
            is_superuser |= everything <= words
        if place in {"*", database}:
            granted |= words
    return granted, is_superuser


def _most(*, owner: bool, worker: bool, viewer: bool) -> Duty | None:
    if owner:
        return Duty.OWNER
    if worker:
        return Duty.WORKER
    return Duty.VIEWER if viewer else None
