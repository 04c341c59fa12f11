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

import optuna
import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from optuna.storages._rdb import models as optuna_models
from sqlalchemy.engine import Connection

from tuner.errors import ConfigurationError, UnavailableError
from tuner.store.location import sqlite_path
from tuner.store.tables import metadata
from tuner.store.transactions import Transactions
from tuner.store.upsert import upsert

VERSION_TABLE = "tuner_alembic_version"
_LOCK_ID = 7_205_759_403  # any number that nobody else uses
_LOCK_SECONDS = 120
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
            is_foreign=_is_foreign(tables, is_torn=database.dialect == "mysql"),
        )

    return database.read(_read)


def _is_foreign(tables: set[str], *, is_torn: bool) -> bool:
    """Whether somebody else's tables are here.

    Args:
        tables: The names of all.
        is_torn: Whether a process that died while it created the tables may have left some of them, as in MySQL, where each is
            a commit of its own.
    """
    if not tables or "version_info" in tables or VERSION_TABLE in tables:
        return False
    return not (is_torn and tables <= set(optuna_models.BaseModel.metadata.tables))


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
            _drop_torn_tables(database)
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
    if database.dialect == "mysql":
        database.write(_set_collation)
    database.write(_create_as_optuna_does)


def _create_as_optuna_does(connection: Connection) -> None:
    """Tables and version rows in one transaction; Optuna's own constructor takes several, on several connections."""
    optuna_models.BaseModel.metadata.create_all(connection)
    row = {
        "version_info_id": 1,
        "schema_version": optuna_models.SCHEMA_VERSION,
        "library_version": optuna.__version__,
    }
    upsert(connection, optuna_models.VersionInfoModel.__table__, [row], key=("version_info_id",))
    scripts = ScriptDirectory(str(Path(optuna_models.__file__).with_name("alembic")))
    MigrationContext.configure(connection).stamp(scripts, _OPTUNA_HEAD)


def _set_collation(connection: Connection) -> None:
    """Names that differ in case or accents are different names, and any character can be stored: in all tables to come."""
    name = connection.dialect.identifier_preparer.quote(str(connection.engine.url.database))
    connection.exec_driver_sql(f"ALTER DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin")


def _drop_torn_tables(database: Transactions) -> None:
    """Remove what a process left behind that died in the middle of creating our tables.

    Only MySQL knows this state: it commits after each table. No version row was written yet, so nobody has used them.

    Raises:
        ConfigurationError: If there are rows in them after all.
    """

    def _drop(connection: Connection) -> None:
        left = set(sqlalchemy.inspect(connection).get_table_names()) & metadata.tables.keys()
        torn = [table for table in metadata.sorted_tables if table.name in left]
        if any(connection.execute(sqlalchemy.select(table).limit(1)).first() for table in torn):
            raise ConfigurationError(
                f"database {database.safe_url} has tuner tables with rows but no version",
                fix="restore it from its backup",
            )
        for table in reversed(torn):
            table.drop(connection)

    if database.dialect == "mysql":
        database.write(_drop)


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
    take, give = f"SELECT pg_advisory_lock({_LOCK_ID})", f"SELECT pg_advisory_unlock({_LOCK_ID})"
    if database.dialect == "mysql":
        # Locks of MySQL belong to the whole server, so the database's name is a part of it.
        name = f"CONCAT('tuner_', LEFT(SHA2(DATABASE(), 256), 32), '_{_LOCK_ID}')"
        take, give = f"SELECT GET_LOCK({name}, {_LOCK_SECONDS})", f"SELECT RELEASE_LOCK({name})"
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
