"""A password goes through every command, every failure and every process; afterwards it is looked for everywhere."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import sqlalchemy
import typer
from sqlalchemy.engine import URL, make_url
from typer.testing import CliRunner

from tests.cli.rehearsal import Ends, open_study, play
from tests.dashboard.test_server import serving
from tests.faults.boxes import killed_at_exit
from tests.launch.canary import assert_no_canary, showing
from tests.launch.toys import PATH, ToyBox
from tests.postgres import PostgresServer
from tuner.cli.app import app
from tuner.launch.command import PASSWORD_FILE
from tuner.store.records import Outcome

CANARY = "s3cr3tPW-kanarie-4711"
POD = "--image registry/tuner:0.1.0 --files-claim files --storage-secret db"
# In this order: what stops and deletes comes last. Each is run with --json, too, where it knows the option.
COMMANDS = (
    "db init",
    "db init --roles --dry-run",
    "db upgrade",
    "db check",
    "db check --quick",
    "doctor --skip-torch",
    "study list",
    "study show played",
    "study best played",
    "study trials played",
    "study report played report.html",
    "study watch played",
    "study schema",
    "study check nothing.yaml",
    "study create nothing.yaml",
    "study set played --trials 20",
    "study set played --priority 2",
    "study pause played",
    "study resume played",
    "study enqueue played --strategy nothing",
    "trial show played 0",
    "trial show played 4",
    "trial logs played 4",
    "trial retry played 4",
    "trial stop played 4",
    "worker list",
    "worker start --study nothing",
    "worker drain --all",
    "launch slurm --dry-run",
    f"launch kubernetes {POD} --dry-run",
    "launch ray --dry-run",
    "launch slurm --study nothing --gpus-per-worker 0 --local",
    "study stop played",
    "study delete played --yes",
)
# `demo` has a database of its own and `dashboard` serves until it is stopped: the dashboard has a test below.
ELSEWHERE = {"demo", "dashboard"}

Say = Callable[..., str]


@dataclass(frozen=True)
class Door:
    """A database that lets one user in, with the canary."""

    url: URL
    server: PostgresServer

    def with_password(self, **changes: object) -> str:
        return self.url._replace(password=CANARY, **changes).render_as_string(hide_password=False)  # type: ignore[arg-type]

    @property
    def without_password(self) -> str:
        return self.url._replace(password=None).render_as_string(hide_password=False)

    def contents(self) -> str:
        """All rows of all tables, as text."""
        engine = sqlalchemy.create_engine(self.with_password())
        try:
            with engine.connect() as connection:
                tables = sqlalchemy.inspect(connection).get_table_names()
                rows = [connection.exec_driver_sql(f'SELECT t::text FROM "{table}" t').all() for table in tables]
        finally:
            engine.dispose()
        return str(rows)


@pytest.fixture
def door(postgres_server: PostgresServer) -> Iterator[Door]:
    with postgres_server.database() as url:
        postgres_server.execute(f"CREATE ROLE canary LOGIN PASSWORD '{CANARY}'")
        name = make_url(url).database
        postgres_server.execute(f"ALTER DATABASE {name} OWNER TO canary")
        yield Door(make_url(url)._replace(username="canary"), postgres_server)
    postgres_server.execute("DROP ROLE canary")


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Say:
    """``say("study list", TUNER_STORAGE=...)``: all that a command prints; crash files land in the test's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def _say(words: str, *, debug: bool = False, **environment: str) -> str:
        said = ["--debug", *shlex.split(words)] if debug else shlex.split(words)
        result = CliRunner().invoke(app, said, env=environment, prog_name="tuner")
        return result.output + repr(result.exception)

    return _say


def ways_in(door: Door, file: Path) -> Mapping[str, dict[str, str]]:
    """The ways in which a password may be given."""
    file.parent.mkdir()
    file.write_text(CANARY, encoding="utf-8")
    file.chmod(0o600)
    return {
        "URL": {"TUNER_STORAGE": door.with_password()},
        "file": {"TUNER_STORAGE": door.without_password, PASSWORD_FILE: str(file)},
        "PGPASSWORD": {"TUNER_STORAGE": door.without_password, "PGPASSWORD": CANARY},
    }


def leaves(group: typer.core.TyperGroup, *above: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, typer.core.TyperGroup):
            yield from leaves(command, *above, name)
        else:
            yield " ".join((*above, name))


def test_every_command_has_its_turn() -> None:
    root = typer.main.get_command(app)
    assert isinstance(root, typer.core.TyperGroup)
    known = set(leaves(root))
    turns = {name for words in COMMANDS for name in known if f"{words} ".startswith(f"{name} ")}
    assert turns | ELSEWHERE == known


@pytest.mark.slow
@pytest.mark.parametrize("way", ["URL", "file", "PGPASSWORD"])
def test_no_command_tells_it(door: Door, say: Say, tmp_path: Path, way: str) -> None:
    file = tmp_path / "secret" / "password"
    environment = ways_in(door, file)[way]
    open_study(door.with_password(), trials=6)
    play(door.with_password(), ends=Ends(errored=frozenset({4})))
    said: dict[str, str] = {}
    for words in COMMANDS[:-1]:
        said |= {one: say(one, **environment) for one in (words, f"{words} --json")}
    kept = door.contents()
    said["delete"] = say(COMMANDS[-1], **environment)
    assert [words for words, text in said.items() if CANARY in text] == []
    assert CANARY not in kept
    assert "played" in kept
    assert "OK    schema" in said["doctor --skip-torch"], "the password was not the right one"
    assert (tmp_path / "report.html").exists()
    assert_no_canary(CANARY, tmp_path, but=(file,))


FAILURES = ("wrong password", "no server", "no such host", "no such database", "no tls", "no such user")


def broken(door: Door, failure: str) -> dict[str, str]:
    """The environment of a way in that is closed; the password stands in the URL, where it is told the easiest."""
    changes: dict[str, dict[str, object]] = {
        "wrong password": {"username": "tuner"},  # whose password is another one
        "no server": {"port": 9},
        "no such host": {"host": "nowhere.invalid"},
        "no such database": {"database": "nowhere"},
        "no such user": {"username": "nobody"},
    }
    if failure == "no tls":
        url = door.url.update_query_dict({"sslmode": "verify-full", "sslrootcert": "system"})
        return {"TUNER_STORAGE": url._replace(password=CANARY).render_as_string(hide_password=False)}
    return {"TUNER_STORAGE": door.with_password(**changes[failure])}


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("failure", FAILURES)
def test_no_failure_tells_it(door: Door, say: Say, tmp_path: Path, failure: str, debug: bool) -> None:
    environment = broken(door, failure)
    commands = ("study list", "db init", "db check", "doctor --skip-torch", "worker start", "trial show a 1 --json")
    said = {words: say(words, debug=debug, **environment) for words in commands}
    assert [words for words, text in said.items() if CANARY in text] == []
    assert all("error: " in text or "FAIL" in text for text in said.values()), said
    assert ("Traceback" in said["study list"]) is debug
    assert_no_canary(CANARY, tmp_path)


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("way", ["URL", "file", "PGPASSWORD"])
def test_no_crash_tells_it(
    door: Door, say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, debug: bool
) -> None:
    """A bug whose message holds the password, which no bug should."""
    file = tmp_path / "secret" / "password"
    environment = ways_in(door, file)[way]
    open_study(door.with_password())

    def _fail(*_: object, **__: object) -> None:
        raise ValueError(f"cannot use {door.with_password()}, where the password is {CANARY}")

    monkeypatch.setattr("tuner.store.queries.list_workers", _fail)
    text = say("worker list", debug=debug, **environment)
    assert CANARY not in text
    assert "ValueError" in text
    assert ("Traceback" in text) is debug
    assert_no_canary(CANARY, tmp_path, but=(file,))


@pytest.mark.slow
@pytest.mark.parametrize("way", ["URL", "file", "PGPASSWORD"])
def test_no_process_no_log_and_no_dump_tells_it(door: Door, tmp_path: Path, way: str) -> None:
    file = tmp_path / "secret" / "password"
    environment = {**os.environ, "PYTHONPATH": PATH, **ways_in(door, file)[way]}
    box = ToyBox(tmp_path / "box", door.with_password(), trials=3, epochs=10)
    log = tmp_path / "worker.log"
    command = [sys.executable, "-m", "tuner", "worker", "start", "--devices", "cpu", "--files", str(box.files)]
    with (
        log.open("w") as output,
        killed_at_exit(
            subprocess.Popen(
                [*command, "--until-done", "--study", box.study],
                env=environment,
                stdout=output,
                stderr=output,
                text=True,
                start_new_session=True,
            )
        ) as worker,
    ):
        box.wait_beside(worker, lambda snapshot: any(trial.epochs for trial in snapshot.trials))
        family = [psutil.Process(worker.pid), *psutil.Process(worker.pid).children(recursive=True)]
        shown = showing(CANARY, family)
        arguments = [process.pid for process in family if CANARY in " ".join(process.cmdline())]
        (runner,) = [process for process in family if "tests.faults.toy_training" in process.cmdline()]
        runner.send_signal(signal.SIGABRT)  # its faulthandler writes down every thread
        assert worker.wait(120) == 0
    # Whoever gives it in the environment of the worker has it there, and nowhere below.
    assert shown == ([] if way == "file" else [worker.pid])
    assert arguments == []
    trials = box.snapshot().trials
    lost = [attempt for trial in trials for attempt in trial.attempts if attempt.outcome is Outcome.LOST]
    assert ["SIGABRT" in attempt.reason for attempt in lost] == [True]
    assert any("Fatal Python error: Aborted" in path.read_text() for path in box.files.rglob("*.log"))
    assert CANARY not in door.contents()
    assert_no_canary(CANARY, tmp_path, but=(file,))


def test_no_page_of_the_dashboard_tells_it(door: Door) -> None:
    open_study(door.with_password())
    with serving(door.with_password()) as server:
        pages = [
            urllib.request.urlopen(f"{server.url.rstrip('/')}{path}", timeout=60).read()
            for path in ("/dashboard", "/api/studies", "/api/studies/1?after=0", "/api/meta")
        ]
    assert [page for page in pages if CANARY.encode() in page] == []
    assert b"played" in pages[1]
