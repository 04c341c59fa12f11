"""The one place that opens connections, begins transactions and turns database errors into ours.

Callers hand a function to :meth:`Transactions.write` or :meth:`Transactions.read`; it gets a connection inside one transaction.
What the database refuses because of a passing conflict (a deadlock, a serialisation failure) is tried again as a whole.
"""

from __future__ import annotations

import contextlib
import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar

import sqlalchemy
from optuna.storages import RDBStorage
from sqlalchemy import Insert, event
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

from tuner.errors import ConfigurationError, TunerError, UnavailableError

Result = TypeVar("Result")

# The pool logs a traceback when a connection breaks or Ctrl-C comes while one is closed; we say what matters in one line.
logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)

_SQLITE_BUSY_SECONDS = 60
# Passing conflicts. MySQL: deadlock, lock wait, "record has changed since last read" (optuna#6065); SQLSTATE: serialisation
# failure and deadlock.
_RETRIED_CODES = frozenset({1213, 1205, 1020})
_RETRIED_STATES = frozenset({"40001", "40P01"})
_MOST_TRIES = 8


class Transactions:
    """A database whose schema nobody has looked at yet; see :class:`tuner.store.database.Database`."""

    def __init__(self, url: URL, *, read_only: bool = False) -> None:
        """Prepare the engine; nothing is opened yet."""
        self.url = url
        self.dialect = url.get_backend_name()
        self.safe_url = url.set(drivername=self.dialect).render_as_string(hide_password=True)
        self._engine = _engine(url, read_only=read_only)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def write(self, function: Callable[[Connection], Result]) -> Result:
        """Run a function in one transaction and commit it.

        The function may run more than once, each time from the start, and must do nothing but use the connection.

        Raises:
            UnavailableError: If the database cannot be reached.
        """
        return self._run(function, writes=True)

    def read(self, function: Callable[[Connection], Result]) -> Result:
        """Run a function in one read-only transaction: it sees one moment of the database.

        Raises:
            UnavailableError: If the database cannot be reached.
        """
        return self._run(function, writes=False)

    def _run(self, function: Callable[[Connection], Result], *, writes: bool) -> Result:
        for attempt in range(1, _MOST_TRIES + 1):
            try:
                with self._translated(), self._engine.connect() as connection:
                    connection.execution_options(tuner_writes=writes)
                    with connection.begin():
                        return function(connection)
            except _Conflict as conflict:
                if attempt == _MOST_TRIES:
                    raise conflict.error from conflict.error.__cause__
                time.sleep(random.uniform(0.0, 0.05) * 2**attempt)  # noqa: S311 - jitter, not a secret
        raise AssertionError("unreachable")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            fix = "is it running there? see: tuner doctor" if _is_unreachable(error) else ""
            unavailable = UnavailableError(f"database {self.safe_url}: {plain_cause(error)}", fix=fix)
            unavailable.__cause__ = error
            if _is_conflict(error):
                raise _Conflict(unavailable) from error
            raise unavailable from error
        except SQLAlchemyError as error:
            raise UnavailableError(f"database {self.safe_url}: {plain_cause(error)}") from error

    @contextlib.contextmanager
    def session_lock(self, *, take: str, give: str) -> Iterator[None]:
        """Hold a lock that lives as long as one connection of its own.

        Args:
            take: Statement that waits for the lock.
            give: Statement that gives it back.
        """
        # No statement timeout here: waiting is what this connection is for.
        engine = sqlalchemy.create_engine(self.url, poolclass=NullPool, connect_args={"connect_timeout": 10})
        with self._translated(), engine.connect() as connection:
            connection.exec_driver_sql(take)
            connection.commit()
            try:
                yield
            finally:
                connection.exec_driver_sql(give)
                connection.commit()

    def optuna_storage(self) -> RDBStorage:
        """Optuna's storage on the same engine: same transactions mode, same pool, same time zone.

        Optuna's constructor opens its own engine and would create tables; both are kept from it (schema creation races when
        eight workers start at once, optuna#4621).
        """
        with self._translated():
            storage = RDBStorage(
                # The URL goes through str.format: braces in a password would be read as fields.
                self.url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}"),
                engine_kwargs={"poolclass": NullPool, "connect_args": _connect_args(self.url)},
                skip_table_creation=True,
                skip_compatibility_check=True,
            )
        storage.engine.dispose()
        storage.engine = self._engine
        storage.scoped_session = scoped_session(sessionmaker(bind=self._engine))
        return storage


class _Conflict(Exception):
    """A passing conflict; the transaction may be run again."""

    def __init__(self, error: TunerError) -> None:
        super().__init__(str(error))
        self.error = error


def plain_cause(error: BaseException) -> str:
    """One line for people from a database error: the server's own first words, no SQL, no parameters."""
    cause: BaseException = getattr(error, "orig", None) or error.__cause__ or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return (lines[0] if lines else type(cause).__name__)[:300]


def _is_unreachable(error: DBAPIError) -> bool:
    text = str(error.orig).lower()
    return any(
        sign in text
        for sign in ("refused", "resolve host", "timed out", "timeout expired", "no route", "can't connect")
    )


def _is_conflict(error: DBAPIError) -> bool:
    original: Any = error.orig
    code = original.args[0] if original is not None and original.args else None
    return code in _RETRIED_CODES or getattr(original, "sqlstate", None) in _RETRIED_STATES


def _connect_args(url: URL) -> dict[str, Any]:
    """What each connection is opened with: bounded waits and a UTC session."""
    match url.get_backend_name():
        case "sqlite":
            return {"timeout": _SQLITE_BUSY_SECONDS}
        case "postgresql":
            return {
                "connect_timeout": 10,
                "application_name": "tuner",
                "keepalives_idle": 30,
                "keepalives_interval": 10,
                "keepalives_count": 3,
                # Keepalives rest while sent data is unacknowledged; without this a cut cable is noticed after 15 minutes.
                "tcp_user_timeout": 20_000,
                # The session's zone decides what Optuna's naive times mean; a worker's PGTZ must not.
                "options": "-c timezone=UTC -c statement_timeout=30000 -c lock_timeout=10000"
                " -c idle_in_transaction_session_timeout=60000",
            }
        case _:
            return {
                "connect_timeout": 10,
                "read_timeout": 40,
                "write_timeout": 40,
                "charset": "utf8mb4",
                "init_command": "SET time_zone = '+00:00'",
            }


def _engine(url: URL, *, read_only: bool) -> Engine:
    options: dict[str, Any] = {"connect_args": _connect_args(url), "hide_parameters": True}
    backend = url.get_backend_name()
    if backend != "sqlite":
        # One connection for the main thread, one for the heartbeat: 100 connections serve about 45 workers.
        options |= {"pool_size": 2, "max_overflow": 1, "pool_recycle": 1800, "pool_pre_ping": True}
    if backend in ("mysql", "mariadb"):
        options["isolation_level"] = "READ COMMITTED"
    try:
        engine = sqlalchemy.create_engine(url, **options)
    except (ImportError, NoSuchModuleError) as error:
        package = "'psycopg[binary]'" if backend == "postgresql" else "pymysql"
        raise ConfigurationError(
            f"storage: {backend} needs a driver that is not installed", fix=f"pip install {package}"
        ) from error
    if backend == "sqlite":
        _set_up_sqlite(engine, read_only=read_only)
    return engine


def _set_up_sqlite(engine: Engine, *, read_only: bool) -> None:
    """Write-ahead log, and a write lock taken at the start of every writing transaction.

    SQLite's deferred transactions read first and fail on the upgrade to a write lock; that is how Optuna hands one waiting trial
    to two workers (optuna#4002, #4621). With BEGIN IMMEDIATE a transaction waits its turn instead.
    """

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # pysqlite must not begin transactions by itself
        cursor = connection.cursor()
        if not read_only:
            cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")  # what was acknowledged survives a power cut
        cursor.execute(f"PRAGMA busy_timeout={_SQLITE_BUSY_SECONDS * 1000}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        # Optuna's own sessions carry no option: they may write, so they take the lock.
        writes = connection.get_execution_options().get("tuner_writes", not read_only)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def inserted_id(connection: Connection, statement: Insert) -> int:
    """Insert one row and give its generated key."""
    key = connection.execute(statement).inserted_primary_key
    assert key is not None
    return int(key[0])
