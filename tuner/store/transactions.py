"""The one place that begins transactions and turns database errors into ours.

Callers hand a function to :meth:`Transactions.write` or :meth:`Transactions.read`; it gets a connection inside one transaction.
What the database refuses because of a passing conflict (a deadlock, a serialisation failure, a connection that broke) is tried
again as a whole; a server without a free connection is waited for.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any, Self, TypeVar

from sqlalchemy import Insert
from sqlalchemy.engine import URL, Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from tuner.errors import ConfigurationError, TunerError, UnavailableError
from tuner.store.engines import make_engine
from tuner.store.faults import SQLITE_REFUSALS, Fault, fault_of, plain_cause
from tuner.store.filesystem import why_refused
from tuner.store.location import shown, sqlite_path
from tuner.store.optuna_storage import SharedStorage
from tuner.store.retries import retried

__all__ = ["Transactions", "inserted_id", "plain_cause"]

Result = TypeVar("Result")

# The pool logs a traceback when a connection breaks or Ctrl-C comes while one is closed; we say what matters in one line.
logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
_log = logging.getLogger(__name__)

PATIENCE = 10.0
"""Seconds to wait for a server that has no free connection, where the caller can come back later."""


class Transactions:
    """A database whose schema nobody has looked at yet; see :class:`tuner.store.database.Database`."""

    def __init__(self, url: URL, *, read_only: bool = False) -> None:
        """Prepare the engine; nothing is opened yet.

        Raises:
            ConfigurationError: If the driver is missing, or an option of the URL is wrong.
        """
        self.url = url
        self.dialect = url.get_backend_name()
        self.safe_url = shown(url.set(drivername=self.dialect))
        self._engine = make_engine(url, read_only=read_only)
        self._patience = PATIENCE

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def write(self, function: Callable[[Connection], Result]) -> Result:
        """Run a function in one transaction and commit it.

        The function may run more than once, each time from the start, and must do nothing but use the connection. If the connection
        breaks during the commit, the function runs again although its first run may have taken effect: it must see that
        for itself where it matters.

        Raises:
            UnavailableError: If the database cannot be reached.
            ConfigurationError: If the database's user may not do this.
        """
        return self._run(function, writes=True)

    def read(self, function: Callable[[Connection], Result]) -> Result:
        """Run a function in one read-only transaction: it sees one moment of the database.

        Raises:
            UnavailableError: If the database cannot be reached.
            ConfigurationError: If the database's user may not do this.
        """
        return self._run(function, writes=False)

    def _run(self, function: Callable[[Connection], Result], *, writes: bool) -> Result:
        def _once() -> Result:
            with self._engine.connect() as connection:
                options: dict[str, Any] = {"tuner_writes": writes}
                if not writes and self.dialect == "postgresql":
                    options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
                connection.execution_options(**options)
                with connection.begin():
                    if not writes and self.dialect == "mysql":
                        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                    return function(connection)

        with self._translated():
            return self._retried(_once)

    def _retried(self, attempt: Callable[[], Result]) -> Result:
        return retried(attempt, patience=self._patience, on_full=self._tell_of_waiting)

    def _tell_of_waiting(self, error: BaseException) -> None:
        cause = plain_cause(error.__cause__ if not isinstance(error, DBAPIError) and error.__cause__ else error)
        _log.warning("database %s: %s; waiting for a free connection", self.safe_url, cause)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self._error(error) from error
        except SQLAlchemyError as error:
            raise UnavailableError(f"database {self.safe_url}: {plain_cause(error)}") from error
        except RuntimeError as error:
            if "'cryptography' package is required" not in str(error):  # PyMySQL's word about MySQL 8's usual passwords
                raise
            raise ConfigurationError(
                f"database {self.safe_url}: this user's password may not be sent in clear",
                fix="add ?sslmode=verify-full to the URL, or: pip install 'pymysql[rsa]'",
            ) from error

    def _error(self, error: DBAPIError) -> TunerError:
        text = f"database {self.safe_url}: {plain_cause(error)}"
        file = sqlite_path(self.url)
        if file is not None and any(words in text for words in SQLITE_REFUSALS):
            why, fix = why_refused(file)
            if why:
                return UnavailableError(text, why=why, fix=fix)
        match fault_of(error):
            case Fault.UNREACHABLE:
                return UnavailableError(text, fix="is it running there? see: tuner doctor")
            case Fault.UNTRUSTED:
                return UnavailableError(
                    text,
                    fix="name its authority with sslrootcert=FILE in the URL, or say sslmode=disable there if you trust"
                    " the whole network (docs/deployment.md, Encryption)",
                )
            case Fault.FULL:
                return UnavailableError(text, fix="run fewer workers, or raise the server's max_connections")
            case Fault.NO_ROOM:
                return UnavailableError(text, fix="make room on its disk")
            case Fault.DENIED:
                return ConfigurationError(text, fix="use the URL of a role that may: docs/deployment.md, Roles")
            case _:
                return UnavailableError(text)

    @contextlib.contextmanager
    def session_lock(self, *, take: str, give: str) -> Iterator[None]:
        """Hold a lock that lives as long as one connection of its own.

        Args:
            take: Statement that waits for the lock; it must not give 0, which is how MySQL says that it was not had.
            give: Statement that gives it back.

        Raises:
            UnavailableError: If the database cannot be reached, or the lock was not had.
        """
        engine = make_engine(self.url, is_waiting=True)
        with self._translated(), self._retried(engine.connect) as connection:
            if connection.exec_driver_sql(take).scalar_one() == 0:
                raise UnavailableError(f"database {self.safe_url}: somebody else has been changing the schema for long")
            connection.commit()
            try:
                yield
            finally:
                connection.exec_driver_sql(give)
                connection.commit()

    def optuna_storage(self) -> SharedStorage:
        """Optuna's storage on the same engine: same transactions mode, same pool, same time zone."""
        return SharedStorage(self._engine, self.url, retry=self._retried)


def inserted_id(connection: Connection, statement: Insert) -> int:
    """Insert one row and give its generated key."""
    key = connection.execute(statement).inserted_primary_key
    assert key is not None
    return int(key[0])
