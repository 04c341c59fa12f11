"""Three roles for one database: the owner changes tables, workers write rows, viewers read.

What a worker may not do, a stolen worker's password cannot do either: no table is created, changed or dropped with it, and no
row is deleted, except a worker's own entry in the list of workers when it leaves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import sqlalchemy
from sqlalchemy.engine import Connection

from tuner.errors import ConfigurationError
from tuner.store.tables import workers
from tuner.store.transactions import Transactions

HIDDEN = "'***'"
"""What stands for a password where statements are shown."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,30}")
_VERSIONS = ("alembic_version", "tuner_alembic_version", "version_info")


class Duty(Enum):
    """What a role is for."""

    OWNER = "owner"  # creates and upgrades the tables, deletes studies
    WORKER = "worker"  # runs workers, creates studies
    VIEWER = "viewer"  # reads: the dashboard, reports


@dataclass(frozen=True, kw_only=True, slots=True)
class Roles:
    """The names of the three roles, and which of them exist.

    Attributes:
        names: By duty.
        existing: Those that the server knows already.
        user: Who is connected.
    """

    names: Mapping[Duty, str]
    existing: frozenset[Duty]
    user: str


def role_names(prefix: str) -> dict[Duty, str]:
    """``tuner_owner``, ``tuner_worker`` and ``tuner_viewer`` for the prefix ``tuner``.

    Raises:
        ConfigurationError: If they would be no plain names.
    """
    names = {duty: f"{prefix}_{duty.value}" for duty in Duty}
    if not all(_NAME.fullmatch(name) for name in names.values()):
        raise ConfigurationError(
            f'roles: "{prefix}" cannot begin a role\'s name', fix="use a-z, 0-9 and _, a letter first, 24 at most"
        )
    return names


def find_roles(db: Transactions, names: Mapping[Duty, str]) -> Roles:
    """See which roles exist.

    Raises:
        ConfigurationError: If the database has no roles, as SQLite.
        UnavailableError: If it cannot be reached.
    """
    if db.dialect == "sqlite":
        raise ConfigurationError(
            "roles: SQLite has none", why="whoever may open the file may do everything", fix="use PostgreSQL or MariaDB"
        )
    question = "SELECT rolname, current_user FROM pg_roles WHERE rolname = :name"
    if db.dialect == "mysql":
        question = "SELECT user, current_user() FROM mysql.user WHERE user = :name AND host = '%'"

    def _find(tx: Connection) -> Roles:
        user = str(tx.exec_driver_sql("SELECT current_user" + ("()" if db.dialect == "mysql" else "")).scalar_one())
        found = [duty for duty, name in names.items() if tx.execute(sqlalchemy.text(question), {"name": name}).first()]
        return Roles(names=names, existing=frozenset(found), user=user.rpartition("@")[0] or user)

    return db.read(_find)


def plan_roles(db: Transactions, roles: Roles, *, with_password: frozenset[Duty]) -> list[str]:
    """The statements that make the roles, with :data:`HIDDEN` for each password; safe to run again.

    Args:
        db: The database, with all its tables.
        roles: See :func:`find_roles`.
        with_password: The roles whose password is set; new ones must be among them.
    """
    statements = _postgresql if db.dialect == "postgresql" else _mysql
    return list(statements(db, roles, with_password))


def apply_roles(db: Transactions, roles: Roles, *, passwords: Mapping[Duty, str]) -> None:
    """Make the roles, in one transaction where the database can.

    Args:
        db: The database, with all its tables.
        roles: See :func:`find_roles`.
        passwords: Of the new roles, and of those whose password changes.

    Raises:
        ConfigurationError: If the connected user may not do that.
        UnavailableError: If the database cannot be reached.
    """

    def _apply(tx: Connection) -> None:
        for statement in plan_roles(db, roles, with_password=frozenset(passwords)):
            for duty, password in passwords.items():
                if HIDDEN in statement and _is_about(statement, roles.names[duty]):
                    _run_with_password(tx, statement, role=roles.names[duty], password=password)
                    break
            else:
                tx.exec_driver_sql(statement.replace("%", "%%"))

    db.write(_apply)


def _is_about(statement: str, role: str) -> bool:
    return re.search(rf"\b{role}\b", statement) is not None


def _run_with_password(tx: Connection, statement: str, *, role: str, password: str) -> None:
    if tx.dialect.name == "postgresql":
        # The verifier, made here: the server's log never sees the password, whatever it logs.
        raw: Any = tx.connection.driver_connection
        verifier = raw.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256").decode()
        tx.exec_driver_sql(statement.replace("%", "%%").replace(HIDDEN, f"'{verifier}'"))
    else:
        tx.exec_driver_sql(statement.replace("%", "%%").replace(HIDDEN, "%s"), (password,))


def _postgresql(db: Transactions, roles: Roles, with_password: frozenset[Duty]) -> Iterator[str]:
    owner, worker, viewer = (roles.names[duty] for duty in Duty)
    database = _quoted(str(db.url.database), '"')
    for duty, name in roles.names.items():
        if duty not in roles.existing:
            yield f"CREATE ROLE {name} LOGIN PASSWORD {HIDDEN}"
        elif duty in with_password:
            yield f"ALTER ROLE {name} PASSWORD {HIDDEN}"
    yield f"ALTER ROLE {viewer} IN DATABASE {database} SET default_transaction_read_only = on"
    yield f"REVOKE ALL ON DATABASE {database} FROM PUBLIC"
    yield f"GRANT CONNECT ON DATABASE {database} TO {owner}, {worker}, {viewer}"
    yield "REVOKE CREATE ON SCHEMA public FROM PUBLIC"
    yield f"GRANT USAGE, CREATE ON SCHEMA public TO {owner}"
    yield f"GRANT USAGE ON SCHEMA public TO {worker}, {viewer}"
    if roles.user != owner:
        yield f"GRANT {owner} TO CURRENT_USER"  # only a member may give something to a role
        for table in _tables(db):
            yield f"ALTER TABLE {table} OWNER TO {owner}"
        for kind in _enumerations(db):
            yield f"ALTER TYPE {kind} OWNER TO {owner}"
    yield f"GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {worker}"
    yield f"REVOKE INSERT, UPDATE ON {', '.join(_VERSIONS)} FROM {worker}"
    yield f"GRANT DELETE ON {workers.name} TO {worker}"
    yield f"GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO {worker}"
    yield f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {viewer}"
    # What a later `tuner db upgrade` adds.
    future = f"ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public GRANT"
    yield f"{future} SELECT, INSERT, UPDATE ON TABLES TO {worker}"
    yield f"{future} USAGE, SELECT ON SEQUENCES TO {worker}"
    yield f"{future} SELECT ON TABLES TO {viewer}"


def _mysql(db: Transactions, roles: Roles, with_password: frozenset[Duty]) -> Iterator[str]:
    owner, worker, viewer = (f"{roles.names[duty]}@'%'" for duty in Duty)
    name = str(db.url.database)
    # In a grant on a whole database _ and % are wildcards; in one on a table they are not.
    every = _quoted(name.replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%"), "`")
    for duty, role in roles.names.items():
        if duty not in roles.existing:
            yield f"CREATE USER {role}@'%' IDENTIFIED BY {HIDDEN}"
        elif duty in with_password:
            yield f"ALTER USER {role}@'%' IDENTIFIED BY {HIDDEN}"
    yield f"GRANT ALL ON {every}.* TO {owner}"
    yield f"GRANT SELECT, INSERT, UPDATE ON {every}.* TO {worker}"
    yield f"GRANT DELETE ON {_quoted(name, '`')}.{workers.name} TO {worker}"
    yield f"GRANT SELECT ON {every}.* TO {viewer}"


def _tables(db: Transactions) -> Sequence[str]:
    return db.read(lambda tx: sorted(sqlalchemy.inspect(tx).get_table_names()))


def _enumerations(db: Transactions) -> Sequence[str]:
    query = "SELECT typname FROM pg_type WHERE typtype = 'e' AND typnamespace = 'public'::regnamespace ORDER BY typname"
    return db.read(lambda tx: [str(name) for (name,) in tx.exec_driver_sql(query)])


def _quoted(name: str, mark: str) -> str:
    return f"{mark}{name.replace(mark, mark + mark)}{mark}"
