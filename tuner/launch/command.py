"""What a launched worker is told: words and an environment in which no password stands."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tuner.errors import ConfigurationError, UsageError
from tuner.store import location

PASSWORD_FILE = "TUNER_STORAGE_PASSWORD_FILE"  # noqa: S105 - the name of a path
# What holds a password in an environment. A scheduler keeps the environment of a job and shows it to its operators.
_SECRETS = ("TUNER_STORAGE", "PGPASSWORD", "MYSQL_PWD")


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerCommand:
    """One worker, as it is started on another machine; safe to print, to pickle and to put into a manifest.

    Attributes:
        storage: Database URL without a password.
        password_file: Where the machine of the worker keeps the password; None where the database asks for none.
        files: Folder for logs, caches and checkpoints on the machine of the worker; shared by all of them.
        studies: Names of the studies to serve; empty: every open study.
        devices: As ``tuner worker start --devices``.
        per_device: Trials at once on each device.
        checkpoints: Folder or URL for checkpoints; empty: in ``files``.
    """

    storage: str
    password_file: str | None
    files: str
    studies: tuple[str, ...] = ()
    devices: str = "auto"
    per_device: int = 1
    checkpoints: str = ""

    @property
    def words(self) -> list[str]:
        """What stands after ``tuner``; the database is left to the environment."""
        words = ["worker", "start", "--until-done", "--devices", self.devices]
        if self.per_device != 1:
            words += ["--per-device", str(self.per_device)]
        return [*words, *(word for study in self.studies for word in ("--study", study))]

    @property
    def environment(self) -> dict[str, str]:
        """What the worker's environment has besides that of its machine."""
        named = {"TUNER_STORAGE": self.storage, "TUNER_FILES": self.files}
        if self.checkpoints:
            named["TUNER_CHECKPOINTS"] = self.checkpoints
        return named | ({PASSWORD_FILE: self.password_file} if self.password_file else {})


def command_for(
    storage: str, *, files: str, studies: Sequence[str], gpus: int, per_device: int = 1, alone: bool = False
) -> WorkerCommand:
    """A command for workers on other machines, which take the password from the file that is named here.

    The place for checkpoints is that of ``TUNER_CHECKPOINTS``, as here.

    Args:
        storage: Database URL as the user gave it.
        files: Folder for checkpoints and caches, as the machines of the workers see it.
        studies: Names of the studies to serve.
        gpus: GPUs of each worker; 0 trains on the CPU.
        per_device: Trials at once on each device.
        alone: All workers run on this machine, so that SQLite will do.

    Raises:
        UsageError: If the database cannot be shared by several machines, or a password would be seen.
        ConfigurationError: If the URL names no database.
    """
    try:
        parts = urlsplit(storage)
    except ValueError as error:  # brackets that are no IPv6 address; the text may hold a password
        raise ConfigurationError("storage: not a database URL") from error
    if parts.password or {"password", "passwd"} & set(parse_qs(parts.query)):
        raise UsageError(
            "the database URL holds a password",
            why="it would stand in job scripts, manifests and process lists",
            fix=f"keep it in a file on the machines of the workers and name that with {PASSWORD_FILE}",
        )
    # With a password of no meaning, so that the file, which may be on other machines only, is not asked for.
    location.parse_url(parts._replace(netloc=f"x:x@{parts.hostname}").geturl() if parts.hostname else storage)
    if parts.scheme.partition("+")[0] == "sqlite" and not alone:
        raise UsageError(
            "SQLite cannot be shared by several machines",
            fix="use PostgreSQL: --storage postgresql://user@host/database",
        )
    password_file = os.environ.get(PASSWORD_FILE) or None
    for name in _SECRETS[1:]:
        if os.environ.get(name) and password_file is None and parts.scheme.partition("+")[0] != "sqlite":
            raise UsageError(
                f"the database password is in {name}",
                why="schedulers keep a job's environment, so it is not passed on",
                fix=f"put it into a file that only you can read and name that with {PASSWORD_FILE}",
            )
    return WorkerCommand(
        storage=storage,
        password_file=password_file,
        files=files,
        studies=tuple(dict.fromkeys(studies)),
        devices="cuda" if gpus else "cpu",  # not "auto": who asked for GPUs does not want to wait for CPUs
        per_device=per_device,
        checkpoints=location.checkpoint_place(None),
    )


def absolute(path: str | os.PathLike[str]) -> str:
    """A path that means the same from every folder; links are kept, they may differ between machines."""
    return str(Path(path).expanduser().absolute())


@contextlib.contextmanager
def no_secrets_in_environment() -> Iterator[None]:
    """Hide passwords from whatever is started meanwhile: schedulers copy the environment of who submits."""
    hidden = {name: os.environ.pop(name) for name in _SECRETS if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
