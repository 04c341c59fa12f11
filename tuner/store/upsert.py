"""Insert, or replace what is there: one statement in every dialect, and no DELETE, which a worker's role may not do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import FromClause, Table
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Connection


def upsert(tx: Connection, table: Table | FromClause, rows: Sequence[Mapping[str, Any]], *, key: Sequence[str]) -> None:
    """Write rows; one whose key is taken replaces the values of the row that has it.

    Args:
        tx: The transaction.
        table: With a unique constraint on the key.
        rows: All with the same columns, the key's among them.
        key: Names of the key's columns.
    """
    if not rows:
        return
    assert isinstance(table, Table)
    replaced = [name for name in rows[0] if name not in key]
    if tx.dialect.name == "mysql":
        into = mysql.insert(table)
        statement: Any = into.on_duplicate_key_update({name: into.inserted[name] for name in replaced})
    else:
        onto = (postgresql if tx.dialect.name == "postgresql" else sqlite).insert(table)
        statement = onto.on_conflict_do_update(
            index_elements=list(key), set_={name: onto.excluded[name] for name in replaced}
        )
    tx.execute(statement, [dict(row) for row in rows])
