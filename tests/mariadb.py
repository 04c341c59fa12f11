"""A real MariaDB server, private to the tests: no root, no service, nothing kept.

The programs come from the system (Debian: ``mariadb-server-core`` and ``mariadb-client-core``); the server's data, its socket and
its port are its own. Its defaults are the unkind ones on purpose: Latin-1 names that ignore case, another time zone, REPEATABLE
READ. tuner has to bring its own.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pymysql

USER = "tuner"
PASSWORD = "my-p@ssword/1"  # must be quoted in a URL, so that a test which builds one by hand fails
NOBODY = 65534
SETTINGS = {
    # The data need not outlive the machine, only the process: a commit still reaches the operating system.
    "innodb-flush-method": "nosync",
    "innodb-doublewrite": "0",
    "innodb-buffer-pool-size": "32M",
    "innodb-log-file-size": "16M",
    "performance-schema": "0",
    "max-connections": "100",
    "character-set-server": "latin1",
    "collation-server": "latin1_swedish_ci",
    "default-time-zone": "+09:00",
    "transaction-isolation": "REPEATABLE-READ",
    "default-storage-engine": "MyISAM",
    "skip-name-resolve": "1",
}
CANNOT_CONNECT = 2003
PROGRAMS = ("mariadbd", "mariadb-install-db")
_SYSTEM_PATH = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin"


class MariaDBError(RuntimeError):
    """A program of MariaDB failed; its output and the server's log are the message."""


def programs() -> dict[str, str]:
    """Where the programs are; those that are missing are left out."""
    found = {name: shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}") for name in PROGRAMS}
    return {name: path for name, path in found.items() if path is not None}


class MariaDBServer:
    """One server on a free port of the loopback address, with its data in a folder of its own."""

    def __init__(self, folder: Path, *, options: Sequence[str] = ()) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "server.log"
        self.port = _free_port()
        # A folder of its own for passing tables, too: a server that starts sweeps those of others out of /tmp.
        passing = folder / "passing"
        passing.mkdir()
        self._options = (*(f"--{name}={value}" for name, value in SETTINGS.items()), f"--tmpdir={passing}", *options)
        self._owner = NOBODY if os.geteuid() == 0 else None
        self._programs = programs()
        self._server: subprocess.Popen[bytes] | None = None
        if self._owner is not None:
            for path in (folder, passing):
                os.chown(path, self._owner, self._owner)
        self._install()

    def url(self, database: str = "", *, user: str = USER, password: str = PASSWORD) -> str:
        """A database URL with the password in it."""
        return f"mysql://{user}:{quote(password, safe='')}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        for attempt in range(3):
            self._launch()
            deadline = time.monotonic() + 60
            assert self._server is not None
            while self._server.poll() is None and time.monotonic() < deadline:
                try:
                    self.execute("SELECT 1")
                except pymysql.err.OperationalError as error:
                    if error.args[0] != CANNOT_CONNECT:
                        raise
                    time.sleep(0.05)
                else:
                    return
            self.stop()
            if attempt < 2:
                self.port = _free_port()  # somebody may have taken the port in the meantime
        raise MariaDBError(f"the server does not start:\n{self.log.read_text(encoding='utf-8', errors='replace')}")

    def stop(self, *, crash: bool = False) -> None:
        """Stop it: politely, or at once as a crash would."""
        if self._server is None:
            return
        if crash:
            self._server.kill()
        else:
            self._server.terminate()
        self._server.wait(timeout=60)
        self._server = None

    def restart(self) -> None:
        """Crash it and start it again on the same port."""
        self.stop(crash=True)
        self.start()

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a fresh, empty database that is dropped at the end, whoever is still connected."""
        name = f"t_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}")
        try:
            yield self.url(name)
        finally:
            # A session that still holds a table's lock would let the drop wait for ever.
            for (thread,) in self.execute(f"SELECT id FROM information_schema.processlist WHERE db = '{name}'"):
                self.execute(f"KILL {thread}", missing_ok=True)
            self.execute(f"DROP DATABASE {name}")

    def execute(self, statement: str, *, missing_ok: bool = False) -> Sequence[tuple[object, ...]]:
        """Run one statement outside any database; the rows that it gives."""
        with pymysql.connect(
            host="127.0.0.1", port=self.port, user=USER, password=PASSWORD.encode(), autocommit=True, connect_timeout=5
        ) as connection:
            cursor = connection.cursor()
            try:
                cursor.execute(statement)
            except pymysql.err.OperationalError:
                if not missing_ok:
                    raise
            return list(cursor.fetchall())

    def _install(self) -> None:
        first = self.folder / "first.sql"
        password = PASSWORD.replace("'", "''")
        first.write_text(
            "SET NAMES utf8mb4;\n"
            f"CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY '{password}';\n"
            f"GRANT ALL ON *.* TO '{USER}'@'%' WITH GRANT OPTION;\n",
            encoding="utf-8",
        )
        self.folder.chmod(0o755)
        done = subprocess.run(
            [
                *(self._programs["mariadb-install-db"], "--no-defaults", f"--datadir={self.data}"),
                *("--auth-root-authentication-method=normal", "--skip-test-db", *self._options),
            ],
            capture_output=True,
            text=True,
            check=False,
            **self._process(),
        )
        if done.returncode:
            raise MariaDBError(f"mariadb-install-db failed ({done.returncode}):\n{done.stdout}\n{done.stderr}")

    def _launch(self) -> None:
        command = [
            *(self._programs["mariadbd"], "--no-defaults", f"--datadir={self.data}", *self._options),
            *(f"--port={self.port}", "--bind-address=127.0.0.1", f"--socket={self.folder / 'socket'}"),
            *(f"--pid-file={self.folder / 'pid'}", f"--init-file={self.folder / 'first.sql'}"),
        ]
        with self.log.open("ab") as log:
            self._server = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, **self._process()
            )

    def _process(self) -> dict[str, Any]:
        return {
            "env": {"PATH": _SYSTEM_PATH, "LC_ALL": "C", "TZ": "UTC"},
            "cwd": "/",
            "user": self._owner,
            "group": self._owner,
            "extra_groups": None if self._owner is None else [],
        }


@contextmanager
def running_server(*options: str, files: Mapping[str, bytes] | None = None) -> Iterator[MariaDBServer]:
    """A started server in a temporary folder; stopped and removed at the end.

    Args:
        options: Such as ``--max-connections=10``.
        files: ``server.pem`` and ``server.key`` for a server that speaks TLS.
    """
    # Not pytest's tmp_path: its parents are closed to other users, and the server may run as another one.
    with tempfile.TemporaryDirectory(prefix="tuner-mariadb-", ignore_cleanup_errors=True) as folder:
        server = MariaDBServer(Path(folder), options=(*options, *_stored(Path(folder), files or {})))
        server.start()
        try:
            yield server
        finally:
            server.stop(crash=True)


def _stored(folder: Path, files: Mapping[str, bytes]) -> list[str]:
    """Write the files where the server may read them; the options that name them."""
    for name, content in files.items():
        (folder / name).write_bytes(content)
        if os.geteuid() == 0:
            os.chown(folder / name, NOBODY, NOBODY)
    return [
        f"--ssl-{name.replace('server.pem', 'cert').replace('server.key', 'key')}={folder / name}" for name in files
    ]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
