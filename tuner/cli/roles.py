"""The roles of ``tuner db init --roles``, and where their passwords come from."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from tuner.cli.output import line, message
from tuner.errors import UnavailableError

if TYPE_CHECKING:
    from tuner.store.database import Database
    from tuner.store.roles import Duty, Roles

_CLOSED = 0o700
_PRIVATE = 0o600


def preview(database: Database, *, prefix: str) -> list[str]:
    """The statements that :func:`make` would run, passwords hidden.

    Raises:
        ConfigurationError: If the database has no roles, or the prefix makes no name.
        UnavailableError: If the database cannot be reached.
    """
    from tuner.store import roles

    found = roles.find_roles(database, roles.role_names(prefix))
    return roles.plan_roles(database, found, with_password=frozenset(roles.Duty) - found.existing)


def make(database: Database, *, prefix: str, folder: Path | None) -> None:
    """Make the roles and say how each is used.

    Args:
        database: With all its tables, opened by somebody who may create roles.
        prefix: How the roles' names begin.
        folder: Where the passwords are, a file for each role; None: ask for them.

    Raises:
        ConfigurationError: If the connected user may not do that.
        UnavailableError: If the database cannot be reached, or a file cannot be written.
    """
    from tuner.store import roles
    from tuner.store.location import as_user

    found = roles.find_roles(database, roles.role_names(prefix))
    given = _asked(found) if folder is None else _stored(found, folder)
    roles.apply_roles(database, found, passwords=given)
    for duty, name in found.names.items():
        url = as_user(database.url, name).set(drivername=database.dialect)
        line(f"{duty.value:<7} {url.render_as_string()}")
        if folder is not None and duty in given:
            line(f"        password in {folder / name}")
        elif duty not in given:
            line("        its password was not changed")
    message("next: give each machine the URL as TUNER_STORAGE and the file as TUNER_STORAGE_PASSWORD_FILE;")
    message("      the owner's is for tuner db upgrade and tuner study delete alone")


def _asked(found: Roles) -> dict[Duty, str]:
    return {
        duty: typer.prompt(f"password of {name}", hide_input=True, confirmation_prompt=True, err=True)
        for duty, name in found.names.items()
    }


def _stored(found: Roles, folder: Path) -> dict[Duty, str]:
    """The passwords in the folder; those of new roles are made where they are missing."""
    given = {}
    try:
        folder.mkdir(mode=_CLOSED, parents=True, exist_ok=True)
        for duty, name in found.names.items():
            file = folder / name
            if file.exists():
                given[duty] = file.read_text(encoding="utf-8").strip()
            elif duty not in found.existing:
                given[duty] = secrets.token_urlsafe(24)
                handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
                with os.fdopen(handle, "w", encoding="utf-8") as stream:
                    stream.write(given[duty])
    except OSError as error:
        raise UnavailableError(
            f"cannot use the password files in {folder}", why=error.strerror or str(error)
        ) from error
    return given
