"""Engines: how each kind of database is opened, so that its sessions all behave alike.

Whatever the server's defaults are, a session of ours has UTC, strict values, bounded waits and the isolation that the
store is written for. One connection is kept and two more are opened where threads meet, so that a hundred
connections serve about ninety workers.
"""

from __future__ import annotations

import inspect
from typing import Any

import sqlalchemy
from sqlalchemy import event
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import NoSuchModuleError
from sqlalchemy.pool import NullPool

from tuner.errors import ConfigurationError
from tuner.store.location import as_user
from tuner.store.patience import be_patient_for
from tuner.store.tls import SSL_FILES, mysql_tls, postgresql_tls
from tuner.study.names import did_you_mean

SQLITE_BUSY_SECONDS = 60
STATEMENT_SECONDS = 30
LOCK_SECONDS = 10
IDLE_TRANSACTION_SECONDS = 60
PATIENCE_SECONDS = (
    STATEMENT_SECONDS + 10
)  # longer than what the server ends by itself: it must be the server that says so


def make_engine(url: URL, *, read_only: bool = False, is_waiting: bool = False) -> Engine:
    """An engine for a URL of :func:`tuner.store.location.parse_url`; nothing is opened yet.

    Args:
        url: The database.
        read_only: Whether nothing will be written.
        is_waiting: For the one connection that waits for a lock as long as it takes: no statement timeout, no pool.

    Raises:
        ConfigurationError: If the driver is missing, or an option of the URL is wrong.
    """
    backend = url.get_backend_name()
    options: dict[str, Any] = {"hide_parameters": True}
    if is_waiting:
        options["poolclass"] = NullPool
    elif backend != "sqlite":
        options |= {"pool_size": 1, "max_overflow": 2, "pool_recycle": 1800, "pool_pre_ping": True}
    try:
        match backend:
            case "sqlite":
                options["connect_args"] = {"timeout": SQLITE_BUSY_SECONDS}
            case "postgresql":
                options["connect_args"] = _postgresql_arguments(url, is_waiting=is_waiting)
            case _:
                url, options["connect_args"] = _mysql_arguments(url, is_waiting=is_waiting)
                options["isolation_level"] = "READ COMMITTED"
        engine = sqlalchemy.create_engine(url, **options)
    except (ImportError, NoSuchModuleError) as error:
        package = "psycopg[binary]" if backend == "postgresql" else "pymysql"
        raise ConfigurationError(
            f"storage: {backend} needs a driver that is not installed", fix=f"pip install '{package}'"
        ) from error
    if backend == "sqlite":
        _set_up_sqlite(engine, read_only=read_only)
    elif backend == "mysql":
        _set_up_mysql(engine, is_waiting=is_waiting)
    elif not is_waiting:
        be_patient_for(engine, seconds=PATIENCE_SECONDS)
    return engine


def _postgresql_arguments(url: URL, *, is_waiting: bool) -> dict[str, Any]:
    limits = "" if is_waiting else f" -c statement_timeout={STATEMENT_SECONDS}s -c lock_timeout={LOCK_SECONDS}s"
    return {
        "connect_timeout": 10,
        "application_name": "tuner",
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
        # Keepalives rest while sent data is unacknowledged; without this a cut cable is noticed after 15 minutes.
        "tcp_user_timeout": 20_000,
        # The session's zone decides what Optuna's naive times mean; a worker's PGTZ must not.
        "options": f"-c timezone=UTC -c idle_in_transaction_session_timeout={IDLE_TRANSACTION_SECONDS}s{limits}",
        **postgresql_tls(url),
    }


def _mysql_arguments(url: URL, *, is_waiting: bool) -> tuple[URL, dict[str, Any]]:
    """The URL without what the driver does not know, and the driver's arguments."""
    import pymysql

    known = set(inspect.signature(pymysql.connections.Connection).parameters) | SSL_FILES.keys() | {"sslmode"}
    for name in url.query:
        if name not in known:
            raise ConfigurationError(f'storage: unknown option "{name}" in the URL{did_you_mean(name, known)}')
    arguments: dict[str, Any] = {"connect_timeout": 10, "charset": "utf8mb4", **mysql_tls(url)}
    if url.password is not None:
        arguments["password"] = str(url.password).encode()  # the driver would encode it as Latin-1
    if not is_waiting:
        arguments |= {"read_timeout": PATIENCE_SECONDS, "write_timeout": PATIENCE_SECONDS}
    return as_user(url, url.username).difference_update_query([*SSL_FILES, *SSL_FILES.values(), "sslmode"]), arguments


def _set_up_mysql(engine: Engine, *, is_waiting: bool) -> None:
    """The server's defaults must not decide what is cut, how long is waited, or which engine keeps a table."""

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        settings = {
            "time_zone": "'+00:00'",
            "sql_mode": "'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
            "default_storage_engine": "InnoDB",
        }
        if not is_waiting:
            settings |= {"innodb_lock_wait_timeout": str(LOCK_SECONDS), "lock_wait_timeout": str(LOCK_SECONDS)}
            if "mariadb" in connection.get_server_info().lower():
                settings["max_statement_time"] = str(STATEMENT_SECONDS)
                settings["idle_transaction_timeout"] = str(IDLE_TRANSACTION_SECONDS)
            else:
                settings["max_execution_time"] = str(1000 * STATEMENT_SECONDS)  # of reads; MySQL has none for writes
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION " + ", ".join(f"{name} = {value}" for name, value in settings.items()))


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
        cursor.execute(f"PRAGMA busy_timeout={SQLITE_BUSY_SECONDS * 1000}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        # Optuna's own sessions carry no option: they may write, so they take the lock.
        writes = connection.get_execution_options().get("tuner_writes", not read_only)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
