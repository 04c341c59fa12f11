"""The database as the rest of tuner sees it: opened, with a schema that this tuner can work with."""

from __future__ import annotations

from typing import Self

from tuner.errors import UnavailableError
from tuner.store import schema
from tuner.store.filesystem import refuse_unusable_path
from tuner.store.location import parse_url, sqlite_path
from tuner.store.transactions import Transactions

OPEN_PATIENCE = 600.0
"""Seconds that opening waits for a server whose connections are all taken: a worker that starts takes its turn."""


class Database(Transactions):
    """A tuner database: Optuna's tables and ours."""

    @classmethod
    def open(cls, url: str, *, create: bool = False, read_only: bool = False) -> Self:
        """Open a database and see that it can be used.

        Args:
            url: See :func:`tuner.store.location.parse_url`.
            create: Create or complete the schema where it is missing. Workers and readers do not.
            read_only: Promise to write nothing; works with a role that may only read.

        Raises:
            ConfigurationError: If the URL is wrong, the file is on a network file system, or the schema does not fit.
            UnavailableError: If the server or the file cannot be reached, or has had no free connection for
                :data:`OPEN_PATIENCE`.
        """
        database = cls(parse_url(url), read_only=read_only)
        path = sqlite_path(database.url)
        if path is not None:
            refuse_unusable_path(database.url, create=create)
            if not create and not path.exists():
                raise UnavailableError(
                    f"no database at {path}",
                    fix="create a study first: tuner study create FILE, or name it with --storage",
                )
        usual, database._patience = database._patience, OPEN_PATIENCE
        if create:
            schema.initialise(database)
        schema.require_current(database)
        database._patience = usual
        return database
