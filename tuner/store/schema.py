"""The schema: created once, however many workers start at once, and checked by everybody.

Optuna's tables come first, then ours under Alembic (version table :data:`VERSION_TABLE`; Optuna has its own). Both steps run under one
lock of the database server, or of the file system for SQLite: without it, 10 of 32 processes that opened an empty PostgreSQL
database together crashed in Optuna's own table creation.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from optuna.storages import RDBStorage
from optuna.storages._rdb import models as optuna_models
from sqlalchemy.engine import Connection

from tuner.errors import ConfigurationError, UnavailableError
from tuner.store.location import sqlite_path
from tuner.store.transactions import Transactions

VERSION_TABLE = "tuner_alembic_version"
_LOCK_ID = 7_205_759_403  # any number that nobody else uses
_OPTUNA_HEAD = "v3.2.0.a"  # of optuna 5.0


@dataclass(frozen=True, kw_only=True, slots=True)
class SchemaState:
    """Which schema a database has.

    Attributes:
        tuner: Our revision; None if our tables are missing.
        tuner_head: The revision that this tuner needs.
        optuna: Optuna's revision; None if its tables are missing.
        optuna_head: The revision that this Optuna needs.
        is_foreign: There are tables, but none of Optuna's: somebody else's database.
    """

    tuner: str | None
    tuner_head: str
    optuna: str | None
    optuna_head: str
    is_foreign: bool

    @property
    def is_current(self) -> bool:
        """Whether this tuner can work with it."""
        return self.tuner == self.tuner_head and self.optuna == self.optuna_head


def read_state(database: Transactions) -> SchemaState:
    """Which schema the database has.

    Raises:
        UnavailableError: If the database cannot be reached.
    """

    def _read(connection: Connection) -> SchemaState:
        tables = set(sqlalchemy.inspect(connection).get_table_names())
        return SchemaState(
            tuner=_revision(connection, VERSION_TABLE) if VERSION_TABLE in tables else None,
            tuner_head=_head(),
            optuna=_revision(connection, "alembic_version") if "version_info" in tables else None,
            optuna_head=_OPTUNA_HEAD,
            is_foreign=bool(tables) and "version_info" not in tables and VERSION_TABLE not in tables,
        )

    return database.read(_read)


def require_current(database: Transactions) -> SchemaState:
    """See that this tuner can work with the database.

    Raises:
        ConfigurationError: If the schema is missing, older or newer.
        UnavailableError: If the database cannot be reached.
    """
    state = read_state(database)
    if state.is_current:
        return state
    where = f"database {database.safe_url}"
    if state.tuner is None:
        raise ConfigurationError(f"{where} has no tuner tables", fix="run: tuner db init")
    if state.tuner not in _known_revisions():
        raise ConfigurationError(
            f"{where} has schema {state.tuner}, newer than this tuner's {state.tuner_head}", fix="upgrade tuner"
        )
    if state.tuner != state.tuner_head:
        raise ConfigurationError(
            f"{where} has schema {state.tuner}, this tuner needs {state.tuner_head}",
            fix="back it up, then run: tuner db upgrade",
        )
    raise ConfigurationError(
        f"{where} has Optuna schema {state.optuna}, this tuner needs {state.optuna_head}",
        fix="back it up, then run: optuna storage upgrade",
    )


def initialise(database: Transactions) -> SchemaState:
    """Create what is missing; safe to call from any number of processes at once.

    Raises:
        ConfigurationError: If the database holds somebody else's tables, or an older schema (see :func:`upgrade`).
        UnavailableError: If the database cannot be reached.
    """
    with _schema_lock(database):
        state = read_state(database)
        if state.is_foreign:
            raise ConfigurationError(
                f"database {database.safe_url} has tables but no Optuna schema",
                why="refusing to write",
                fix="name an empty database",
            )
        if state.optuna is None:
            _create_optuna_tables(database)
        if state.tuner is None:
            _upgrade_ours(database)
        return read_state(database)


def upgrade(database: Transactions) -> SchemaState:
    """Bring our tables to this tuner's schema, creating them where they are missing.

    Raises:
        ConfigurationError: If the database holds somebody else's tables.
        UnavailableError: If the database cannot be reached.
    """
    initialise(database)
    with _schema_lock(database):
        _upgrade_ours(database)
        return read_state(database)


def _create_optuna_tables(database: Transactions) -> None:
    database.write(optuna_models.BaseModel.metadata.create_all)
    storage: RDBStorage = database.optuna_storage()  # its constructor writes the version rows
    storage.remove_session()


def _upgrade_ours(database: Transactions) -> None:
    def _run(connection: Connection) -> None:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    database.write(_run)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "tuner.store:migrations")
    config.set_main_option("path_separator", "os")
    return config


def _head() -> str:
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def _known_revisions() -> set[str]:
    return {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


def _revision(connection: Connection, table: str) -> str | None:
    return MigrationContext.configure(connection, opts={"version_table": table}).get_current_revision()


@contextlib.contextmanager
def _schema_lock(database: Transactions) -> Iterator[None]:
    """At most one process changes the schema; the others wait."""
    path = sqlite_path(database.url)
    if path is not None:
        with _file_lock(path):
            yield
        return
    if database.dialect == "sqlite":  # in memory: nobody else sees it
        yield
        return
    take, give = {
        "postgresql": (f"SELECT pg_advisory_lock({_LOCK_ID})", f"SELECT pg_advisory_unlock({_LOCK_ID})"),
    }.get(
        database.dialect,
        (f"SELECT GET_LOCK('tuner_schema_{_LOCK_ID}', 60)", f"SELECT RELEASE_LOCK('tuner_schema_{_LOCK_ID}')"),
    )
    with database.session_lock(take=take, give=give):
        yield


@contextlib.contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    # Not on the database file itself: closing any handle of it would drop SQLite's own locks in this process.
    name = hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]
    lock = Path(tempfile.gettempdir()) / f"tuner-schema-{name}.lock"
    try:
        handle = lock.open("a")
    except OSError as error:
        raise UnavailableError(f"cannot lock the schema of {path}", why=f"{lock}: {error.strerror}") from error
    with handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
