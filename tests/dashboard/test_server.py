"""The dashboard over real HTTP on the loopback, on an empty database and on one with studies."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.command import ROOT
from tests.cli.rehearsal import Ends, open_study, play
from tests.report.browser import open_browser
from tuner.dashboard.server import DashboardServer, is_loopback
from tuner.errors import ConfigurationError, UnavailableError
from tuner.store import schema, studies
from tuner.store.database import Database
from tuner.store.location import parse_url


@contextmanager
def serving(storage: str, *, allow_write: bool = False) -> Iterator[DashboardServer]:
    """A dashboard on a free port."""
    server = DashboardServer(storage, host="127.0.0.1", port=0, allow_write=allow_write)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(timeout=30)
        assert not thread.is_alive()


def ask(
    url: str, *, method: str = "GET", data: bytes | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, str]:
    """A status and a body."""
    request = urllib.request.Request(url, method=method, data=data, headers=dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_database_that_is_not_there_gets_a_page_and_is_not_made(sqlite_url: str, tmp_path: Path) -> None:
    with serving(sqlite_url) as server:
        status, page = ask(server.url)
        assert status == 200
        assert "No studies yet" in page
        assert "tuner study create FILE" in page
        assert ask(f"{server.url}api/studies")[0] == 503
    assert not (tmp_path / "tuner.db").exists()


def test_an_empty_database_gets_a_page(storage_url: str) -> None:
    if storage_url.startswith("sqlite"):
        Path(storage_url.removeprefix("sqlite:///")).touch()
    with serving(storage_url) as server:
        assert "No studies yet" in ask(server.url)[1]
        with Database(parse_url(storage_url)) as database:
            schema.initialise(database)
        assert "No studies yet" in ask(server.url)[1]


def test_the_dashboard_comes_with_the_first_study_without_a_restart(storage_url: str) -> None:
    with serving(storage_url) as server:
        assert "No studies yet" in ask(server.url)[1]
        open_study(storage_url)
        status, page = ask(server.url)
        assert status == 200
        assert "Optuna Dashboard" in page
        summaries = json.loads(ask(f"{server.url}api/studies")[1])["study_summaries"]
        assert [summary["study_name"] for summary in summaries] == ["played"]


def test_the_dashboard_counts_trials_as_the_snapshot_does(sqlite_url: str) -> None:
    open_study(sqlite_url, trials=8)
    play(sqlite_url, ends=Ends(errored=frozenset({4}), infeasible=frozenset({5})))
    with Database.open(sqlite_url) as database:
        study = studies.find_study(database, "played")
    with serving(sqlite_url) as server:
        trials = json.loads(ask(f"{server.url}api/studies/{study.study_id}")[1])["trials"]
    states = [trial["state"] for trial in trials]
    assert len(states) == sum(study.counts.values()) == 8
    assert states.count("Complete") == study.counts["complete"]
    # Optuna's samplers learn of no failed trial: what cannot run, or diverges, is pruned to them.
    assert states.count("Pruned") == sum(study.counts[end] for end in ("pruned", "diverged", "infeasible"))
    assert states.count("Fail") == study.counts["errored"] == 1
    said = {item["key"]: item["value"] for item in trials[5]["user_attrs"]}
    assert {key: said[key].strip('"') for key in ("tuner:outcome", "tuner:reason")} == {
        "tuner:outcome": "infeasible",
        "tuner:reason": "out of memory at one row",
    }


WRITES = [
    ("POST", "api/studies", {"study_name": "evil", "directions": ["minimize"]}),
    ("DELETE", "api/studies/1", None),
    ("POST", "api/studies/1/rename", {"study_name": "evil"}),
    ("PUT", "api/studies/1/note", {"body": "evil", "version": 1}),
    ("POST", "api/trials/1/tell", {"state": "fail"}),
    ("POST", "api/trials/1/user-attrs", {"user_attrs": {"a": 1}}),
]


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_nothing_can_be_written(sqlite_url: str, method: str, path: str, body: dict[str, object] | None) -> None:
    open_study(sqlite_url)
    data = None if body is None else json.dumps(body).encode()
    with serving(sqlite_url) as server:
        assert ask(server.url)[0] == 200
        status, text = ask(
            f"{server.url}{path}", method=method, data=data, headers={"Content-Type": "application/json"}
        )
    assert status == 403
    assert "read-only" in json.loads(text)["reason"]
    with Database.open(sqlite_url) as database:
        assert [study.name for study in studies.list_studies(database)] == ["played"]


def test_writing_can_be_allowed(sqlite_url: str) -> None:
    open_study(sqlite_url)
    body = json.dumps({"body": "a note", "version": 1}).encode()
    with serving(sqlite_url, allow_write=True) as server:
        url = f"{server.url}api/studies/1/note"
        assert ask(url, method="PUT", data=body, headers={"Content-Type": "application/json"})[0] == 204


def test_requests_for_other_names_are_refused(sqlite_url: str) -> None:
    with serving(sqlite_url) as server:
        assert ask(server.url, headers={"Host": "evil.example"})[0] == 421
        assert ask(server.url, headers={"Host": f"localhost:{server.port}"})[0] == 200


def test_a_database_out_of_reach_gets_a_page_without_the_password() -> None:
    with serving("postgresql://tuner:s3cr3tPW@127.0.0.1:9/tuner") as server:
        status, page = ask(server.url)
    assert status == 503
    assert "The database is out of reach" in page
    assert "s3cr3tPW" not in page


def test_a_port_in_use_is_said(sqlite_url: str) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(UnavailableError, match="choose another --port"),
    ):
        DashboardServer(sqlite_url, host="127.0.0.1", port=taken.getsockname()[1])


def test_a_wrong_url_is_said_at_once() -> None:
    with pytest.raises(ConfigurationError, match="not a database URL"):
        DashboardServer("nonsense", host="127.0.0.1", port=0)


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("10.0.0.1", False), ("box", False)],
)
def test_is_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@contextmanager
def command(
    *words: str, cwd: Path, env: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``tuner dashboard`` as a process, and its URL."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner", "dashboard", "--port", "0", *words],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        while "http://" not in line:
            assert line, "the dashboard ended"
            line = process.stderr.readline()
        match = re.search(r"http://\S+", line)
        assert match
        yield process, match[0]
    finally:
        process.kill()
        process.communicate(timeout=30)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path, sign: signal.Signals) -> None:
    with command(cwd=tmp_path) as (process, url):
        assert "No studies yet" in ask(url)[1]
        process.send_signal(sign)
        assert process.wait(timeout=30) == 0


def test_no_process_shows_the_password(tmp_path: Path) -> None:
    url = "postgresql://tuner:s3cr3tPW@127.0.0.1:9/tuner"
    with command(cwd=tmp_path, env={"TUNER_STORAGE": url}) as (process, address):
        assert ask(address)[0] == 503
        line = Path(f"/proc/{process.pid}/cmdline").read_text(encoding="utf-8")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()
        assert "s3cr3tPW" not in line
        assert children == []


def test_the_command_warns_where_others_can_reach_it(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner", "dashboard", "--port", "0", "--host", "0.0.0.0"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    process.kill()
    process.communicate(timeout=30)
    assert line.startswith("warning: 0.0.0.0 is reachable from other machines, and there is no login")


@pytest.mark.slow
def test_a_real_browser_shows_the_study(sqlite_url: str, tmp_path: Path, require_tool: Callable[..., str]) -> None:
    executable = require_tool("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell")
    open_study(sqlite_url, trials=8)
    play(sqlite_url)
    with serving(sqlite_url) as server, open_browser(executable, tmp_path / "profile") as browser:
        browser.view(width=1200)
        browser.open(f"{server.url}dashboard/studies/1")
        browser.wait("document.body.innerText.includes('Best Trial (number=')")
        text = str(browser.evaluate("document.body.innerText"))
        browser.screenshot(tmp_path / "dashboard.png")
        assert "Best Trial (number=" in text
        elsewhere = [url for url in browser.requests() if url.startswith("http") and not url.startswith(server.url)]
        assert elsewhere == []
