"""What all tests share: fresh databases, and the rule that a missing tool is no excuse in CI."""

from __future__ import annotations

import os
import shutil
import signal
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests import mariadb
from tests.object_stores import ObjectStore, found, running_store
from tests.postgres import PostgresServer, running_server

# Before torch is imported anywhere: many small tests on few cores are slower with many threads, and never the same.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# A test never asks a model hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
# A shell starts what it puts into the background with Ctrl-C switched off, and every process that a test starts would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


SERVERS = {"postgres", "mariadb", "s3", "gs"}


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with many slow tests first: one that begins last would be waited for by all other processes.

    The quick tests have SQLite and folders alone: a server takes seconds to start, in each of the processes that test.
    """
    for item in items:
        if not SERVERS.isdisjoint(_databases(item)):
            item.add_marker(pytest.mark.slow)
    slow = Counter(item.path for item in items if item.get_closest_marker("slow") is not None)
    items.sort(key=lambda item: -slow[item.path])


def _databases(item: pytest.Item) -> set[str]:
    call = getattr(item, "callspec", None)
    chosen = {value for value in call.params.values() if isinstance(value, str)} if call else set()
    return chosen | {name.removesuffix("_url") for name in getattr(item, "fixturenames", ())}


@pytest.fixture(scope="session", autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """A worker, runner or browser that a test started must be gone when the tests are over."""
    yield
    children = psutil.Process().children(recursive=True)
    # Python's own keeper of shared memory lives as long as the process.
    ours = [child for child in children if not any("resource_tracker" in word for word in _command_line(child))]
    _gone, alive = psutil.wait_procs(ours, timeout=5)
    left = {child.pid: " ".join(_command_line(child)) for child in alive}
    for child in alive:
        child.kill()
    assert left == {}


def _command_line(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user has set for tuner or the terminal must not reach a test."""
    for name in [name for name in os.environ if name.startswith("TUNER_") and name != "TUNER_CI"]:
        monkeypatch.delenv(name)
    for name in ("NO_COLOR", "FORCE_COLOR", "CLICOLOR_FORCE", "COLUMNS", "PGPASSWORD", "PGPASSFILE", "PGTZ"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def require_tool() -> Callable[[str], str]:
    """``require_tool("chromium")``: its path. Where it is missing the test is skipped, but fails under CI."""

    def require(*names: str) -> str:
        for name in names:
            if path := shutil.which(name):
                return path
        message = f"none of {', '.join(names)} is installed"
        if os.environ.get("TUNER_CI"):
            pytest.fail(f"{message}, and CI skips nothing")
        pytest.skip(message)

    return require


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The server that all tests share: never stop it; a test about outages starts its own (`running_server`)."""
    with running_server() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of a fresh, empty PostgreSQL database."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture(scope="session")
def mariadb_server(require_tool: Callable[[str], str]) -> Iterator[mariadb.MariaDBServer]:
    """The server that all tests share: never stop it; a test about outages starts its own (`mariadb.running_server`)."""
    for name in mariadb.PROGRAMS:
        if name not in mariadb.programs():
            require_tool(name)
    with mariadb.running_server() as server:
        yield server


@pytest.fixture
def mariadb_url(mariadb_server: mariadb.MariaDBServer) -> Iterator[str]:
    """The URL of a fresh, empty MariaDB database."""
    with mariadb_server.database() as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'tuner.db'}"


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def storage_url(request: pytest.FixtureRequest) -> str:
    """The URL of a fresh, empty database of every kind that tuner supports."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture(scope="session")
def s3_store() -> Iterator[ObjectStore]:
    """The S3 that all tests share: never stop it; a test about outages starts its own (`running_store`)."""
    with running_store("s3") as store:
        yield store


@pytest.fixture(scope="session")
def gs_store() -> Iterator[ObjectStore]:
    """The Google Cloud Storage that all tests share, likewise."""
    with running_store("gs") as store:
        yield store


@pytest.fixture(params=["s3", "gs"])
def object_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a fresh, empty folder in every kind of object store that tuner is tested with."""
    store: ObjectStore = request.getfixturevalue(f"{request.param}_store")
    with found(store):
        yield f"{store.url}/{uuid.uuid4().hex}"


@pytest.fixture
def s3_url(s3_store: ObjectStore) -> Iterator[str]:
    """The same in an S3."""
    with found(s3_store):
        yield f"{s3_store.url}/{uuid.uuid4().hex}"
