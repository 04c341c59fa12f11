"""What a database error means: a conflict that passes, a broken connection, a full server, or a real refusal."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError


class Fault(Enum):
    """What to do about an error depends on this alone."""

    CONFLICT = "conflict"  # the transaction was rolled back for another one's sake: run it again
    LOST = "lost"  # the connection broke: run it again on another one
    FULL = "full"  # the server has no free connection: wait
    UNREACHABLE = "unreachable"  # nobody answers
    UNTRUSTED = "untrusted"  # it does not speak TLS, or cannot prove who it is
    NO_ROOM = "no room"  # its disk is full
    DENIED = "denied"  # this user may not do that; it will not change by itself
    OTHER = "other"


# MySQL and MariaDB: https://mariadb.com/docs/server/reference/error-codes. 1020 is "record has changed since last read"
# (optuna#6065), 1927 a killed connection, 4031 an idle one that MySQL 8 cut, 1792 a write in a read-only transaction.
_CODES: Mapping[int, Fault] = (
    dict.fromkeys((1213, 1205, 1020), Fault.CONFLICT)
    | dict.fromkeys((2006, 2013, 2055, 1053, 1927, 4031), Fault.LOST)
    | dict.fromkeys((1040, 1203, 1226), Fault.FULL)
    | dict.fromkeys((2002, 2003, 2005), Fault.UNREACHABLE)
    | dict.fromkeys((1021, 1041, 1114), Fault.NO_ROOM)
    | dict.fromkeys((1044, 1142, 1143, 1227, 1370, 1792), Fault.DENIED)
)
# PostgreSQL: https://www.postgresql.org/docs/current/errcodes-appendix.html. 55P03 is the lock timeout, 25P03 the idle transaction's.
_STATES: Mapping[str, Fault] = (
    dict.fromkeys(("40001", "40P01", "55P03"), Fault.CONFLICT)
    | dict.fromkeys(("57P01", "57P02", "08003", "08006", "25P03"), Fault.LOST)
    | dict.fromkeys(("53300",), Fault.FULL)
    | dict.fromkeys(("57P03",), Fault.UNREACHABLE)
    | dict.fromkeys(("53100",), Fault.NO_ROOM)
    | dict.fromkeys(("42501", "25006"), Fault.DENIED)
)
# libpq tells of a failed connection in words alone; and where one breaks while it is being set up, SQLAlchemy has none to call invalidated.
_WORDS: Mapping[str, Fault] = (
    dict.fromkeys(("too many clients", "connection slots", "too many connections"), Fault.FULL)
    | dict.fromkeys(
        ("refused", "resolve host", "timed out", "timeout expired", "no route", "can't connect", "starting up"),
        Fault.UNREACHABLE,
    )
    | dict.fromkeys(
        (
            "closed the connection",
            "connection has been closed",
            "connection reset",
            "broken pipe",
            "could not receive data",
            "could not send data",
            "ssl syscall error",
        ),
        Fault.LOST,
    )
    | dict.fromkeys(("disk is full", "no space left"), Fault.NO_ROOM)
    | dict.fromkeys(("readonly database",), Fault.DENIED)
)
SQLITE_REFUSALS = ("unable to open database file", "readonly database")
"""SQLite's words where it may not read or write its file, or make those beside it."""

# Both drivers tell of a refused server in words, PyMySQL under the number of an unreachable one.
_DISTRUST = (
    "certificate verify failed",
    "certificate_verify_failed",
    "server certificate for",
    "does not support ssl",
    "server doesn't support it",
    "root certificate file",
)


def fault_of(error: DBAPIError | StorageInternalError) -> Fault:
    """What an error means; Optuna's wrapper of a database error means what is in it."""
    inner: BaseException | None = error
    if isinstance(error, StorageInternalError):
        inner = error.__cause__
    if not isinstance(inner, DBAPIError):
        return Fault.OTHER
    original: Any = inner.orig
    text = str(original).lower()
    if any(words in text for words in _DISTRUST):
        return Fault.UNTRUSTED
    code = original.args[0] if original is not None and original.args else None
    if isinstance(code, int) and code in _CODES:
        return _CODES[code]
    state = str(getattr(original, "sqlstate", ""))
    if state in _STATES:
        return _STATES[state]
    if inner.connection_invalidated:
        return Fault.LOST
    return next((fault for words, fault in _WORDS.items() if words in text), Fault.OTHER)


def plain_cause(error: BaseException) -> str:
    """One line for people from a database error: the server's own first words, no SQL, no parameters."""
    cause: BaseException = getattr(error, "orig", None) or error.__cause__ or error
    text = str(cause)
    if len(cause.args) == 2 and isinstance(cause.args[0], int):  # pymysql: the number, then the words
        text = str(cause.args[1])
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (lines[0] if lines else type(cause).__name__)[:300]
