"""Where things are: the database URL and the folder for files."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from tuner.errors import ConfigurationError
from tuner.files.place import parse_place
from tuner.study.names import did_you_mean

DEFAULT_STORAGE = "sqlite:///tuner.db"

# The driver that tuner asks for where the URL names none, and the extra that brings it.
_DRIVERS = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
}
# MariaDB answers to MySQL's dialect, which Optuna knows by that name alone.
_ALIASES = {"postgres": "postgresql", "mariadb": "mysql"}

SECRET_OPTIONS = ("password", "passwd", "sslpassword")
"""Options of a database URL that nobody shall see."""
_USER_OPTIONS = ("user", "password", "passwd")


def storage_url(option: str | None = None) -> str:
    """The database URL: the option, else ``TUNER_STORAGE``, else a SQLite file in the current folder."""
    return option or os.environ.get("TUNER_STORAGE") or DEFAULT_STORAGE


def parse_url(text: str) -> URL:
    """A database URL with its driver filled in and its password taken from a file where one is named.

    Args:
        text: Such as ``sqlite:///tuner.db`` or ``postgresql://tuner@db/tuner``. A password is better kept in the file named by
            ``TUNER_STORAGE_PASSWORD_FILE`` or in ``~/.pgpass``.

    Raises:
        ConfigurationError: If it is no URL or names an unknown database. The text is never repeated: it may hold a
            password.
    """
    example = "use for example sqlite:///tuner.db or postgresql://user@host/database"
    if "://" not in text:
        raise ConfigurationError("storage: not a database URL", fix=example)
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise ConfigurationError("storage: not a database URL", why="it cannot be parsed", fix=example) from error
    backend, _, driver = url.drivername.partition("+")
    backend = _ALIASES.get(backend, backend)
    if backend not in _DRIVERS:
        raise ConfigurationError(
            f'storage: unknown database "{backend}"{did_you_mean(backend, [*_DRIVERS, *_ALIASES])}', fix=example
        )
    if backend == "mysql" and driver not in ("", "pymysql"):
        raise ConfigurationError("storage: MySQL and MariaDB are spoken to with pymysql", fix="write mysql://")
    url = url.set(drivername=f"{backend}+{driver}" if driver else _DRIVERS[backend])
    if backend != "sqlite":
        url = _with_user_in_place(url)
    password_file = os.environ.get("TUNER_STORAGE_PASSWORD_FILE")
    if password_file and url.password is None and backend != "sqlite":
        url = url.set(password=_read_secret(Path(password_file)))
    return url


def _with_user_in_place(url: URL) -> URL:
    """The same, with a user and a password that stand among the options, as libpq allows, where a password is never shown."""
    said = {name: values[-1] for name, values in url.normalized_query.items()}
    password = said.get("password", said.get("passwd"))
    return url.difference_update_query(_USER_OPTIONS).set(username=said.get("user"), password=password)


def shown(url: URL) -> str:
    """A database URL for people: without any password."""
    return url.difference_update_query(SECRET_OPTIONS).render_as_string(hide_password=True)


def _read_secret(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ConfigurationError(
            f"TUNER_STORAGE_PASSWORD_FILE: cannot read {path}", why=error.strerror or "unreadable"
        ) from error


def as_user(url: URL, name: str | None) -> URL:
    """The same place for another user, without a password: `URL.set` takes None for "as it was"."""
    return URL.create(
        url.drivername, username=name, host=url.host, port=url.port, database=url.database, query=url.query
    )


def sqlite_path(url: URL) -> Path | None:
    """The file of a SQLite URL; None for other databases and for ``:memory:``."""
    if url.get_backend_name() != "sqlite" or not url.database or url.database == ":memory:":
        return None
    return Path(url.database)


def files_dir(option: str | os.PathLike[str] | None, storage: str) -> Path:
    """The folder for logs, caches and, unless they have a place of their own, checkpoints; absolute.

    The option, else ``TUNER_FILES``, else ``tuner-files`` beside the SQLite file, else ``tuner-files`` in the current folder.
    """
    chosen = option or os.environ.get("TUNER_FILES")
    if chosen:
        return Path(chosen).expanduser().absolute()
    file = sqlite_path(parse_url(storage))
    return ((file.absolute().parent if file else Path.cwd()) / "tuner-files").absolute()


def checkpoint_place(option: str | os.PathLike[str] | None) -> str:
    """The folder or URL for checkpoints: the option, else ``TUNER_CHECKPOINTS``, else empty: in the folder for files.

    Raises:
        ConfigurationError: If it is no folder and no URL of one, or holds a password.
    """
    chosen = os.fspath(option) if option else os.environ.get("TUNER_CHECKPOINTS", "")
    return parse_place(chosen) if chosen else ""
