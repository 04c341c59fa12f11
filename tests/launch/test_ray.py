"""Workers on a Ray cluster: what is refused, and a real cluster that loses a node."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy

from tests.faults.boxes import Box, assert_whole, killed_at_exit
from tests.launch.canary import showing
from tests.launch.toys import PATH, ToyBox, in_the_middle
from tests.postgres import PASSWORD
from tuner.errors import ConfigurationError, UnavailableError, UsageError
from tuner.launch import ray as launcher
from tuner.launch.command import command_for
from tuner.launch.ray import RayOptions
from tuner.store.records import Outcome

TOKEN = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="session")
def _ray() -> None:
    """Ray, or the reason why a test cannot run."""
    if importlib.util.find_spec("ray") is None:
        if os.environ.get("TUNER_CI"):
            pytest.fail("ray is not installed, and CI skips nothing")
        pytest.skip("ray is not installed")


@dataclass(frozen=True)
class Nodes:
    """A running cluster."""

    address: str
    process: subprocess.Popen[str]
    raylets: list[psutil.Process]
    environment: dict[str, str]

    def add(self, cpus: int) -> psutil.Process:
        """One more node with so many CPUs; its process."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{cpus}\n")
        self.process.stdin.flush()
        return psutil.Process(self._answer()["raylet"])

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        said = json.loads(next((line for line in self.process.stdout if line.startswith("{")), "null"))
        assert said is not None, "the cluster did not start"
        return dict(said)


# Ray takes a silent node for dead after 15 seconds; a test need not wait so long.
_QUICK = {"initial_delay_ms": 500, "period_ms": 500, "timeout_ms": 2000, "failure_threshold": 3}


@contextlib.contextmanager
def running(*cpus: int, mode: str) -> Iterator[Nodes]:
    """A cluster with nodes of so many CPUs, whose workers train toys; nothing of it is left afterwards."""
    # A socket's path is 107 characters at most: not below pytest's folders.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        Path(folder, "ray").mkdir()
        environment = {
            **os.environ,
            "PYTHONPATH": PATH,
            "RAY_AUTH_MODE": mode,
            "RAY_AUTH_TOKEN": TOKEN if mode == "token" else "",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_TMPDIR": folder,
            **{f"RAY_health_check_{name}": str(value) for name, value in _QUICK.items()},
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.launch.ray_nodes", *map(str, cpus)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        family: list[psutil.Process] = []
        try:
            nodes = Nodes("", process, [], environment)
            said = nodes._answer()
            yield replace(nodes, address=said["address"], raylets=[psutil.Process(pid) for pid in said["raylets"]])
            family = psutil.Process(process.pid).children(recursive=True)
        finally:
            process.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.stdout.close()
            process.wait()
            for left in psutil.wait_procs(family, timeout=10)[1]:
                left.kill()


@pytest.fixture(scope="module")
def nodes(_ray: None) -> Iterator[Nodes]:
    """A cluster that asks for a token, with one node of two CPUs."""
    with running(2, mode="token") as cluster:
        yield cluster


def workers_below(process: psutil.Process) -> list[psutil.Process]:
    """The supervisors that run somewhere below a process."""
    with contextlib.suppress(psutil.NoSuchProcess):
        below = process.children(recursive=True)
        return [one for one in below if one.is_running() and "worker start" in " ".join(_words(one))]
    return []


def _words(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def launched(nodes: Nodes, box: Box, folder: Path, *options: str, token: str = "") -> subprocess.Popen[str]:
    """``tuner launch ray`` for the study of the box, with the password in a file."""
    url = sqlalchemy.make_url(box.url)
    file = folder / "password"
    file.write_text(str(url.password), encoding="utf-8")
    command = [sys.executable, "-m", "tuner", "launch", "ray", "--address", nodes.address, "--study", box.study]
    command += ["--gpus-per-worker", "0", "--files", str(box.files), *options]
    without = url._replace(password=None).render_as_string(hide_password=False)
    said = {"TUNER_STORAGE": without, "TUNER_STORAGE_PASSWORD_FILE": str(file)}
    return subprocess.Popen(
        command,
        env={**nodes.environment, **said, **({"RAY_AUTH_TOKEN": token} if token else {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_a_node_dies_and_its_worker_comes_back_elsewhere(postgres_url: str, tmp_path: Path, nodes: Nodes) -> None:
    box = ToyBox(tmp_path, postgres_url, trials=4, epochs=40)
    victim = nodes.add(1)
    with killed_at_exit(launched(nodes, box, tmp_path, "--workers", "2")) as process:
        box.wait_beside(
            process,
            lambda snapshot: len(snapshot.workers) == 2 and sum(len(t.epochs) >= 2 for t in snapshot.trials) == 2,
        )
        assert len(workers_below(victim)) == 1
        assert showing(PASSWORD, [victim, *victim.children(recursive=True), psutil.Process(process.pid)]) == []
        for one in [victim, *victim.children(recursive=True)]:
            one.kill()  # the machine is gone: raylet, actor, worker and runner at once
        said = box.finish(process)
    assert nodes.raylets[0].is_running()
    assert "worker 1 of 2 ended" in said
    assert "worker 2 of 2 ended" in said
    assert PASSWORD not in said
    assert box.check().wrong == {}
    snapshot = box.snapshot()
    assert_whole(snapshot, trials=4)
    assert snapshot.workers == ()
    attempts = [attempt for trial in snapshot.trials for attempt in trial.attempts]
    assert [attempt.outcome for attempt in attempts].count(Outcome.LOST) == 1
    # Three workers: the one that lived, the one that died, and the one that came for it.
    assert len(set(re.findall(r"worker ([0-9a-f]{12}) on ", said))) == 3, said


@pytest.mark.slow
def test_a_drained_launch_gives_everything_back_and_strangers_are_refused(
    postgres_url: str, tmp_path: Path, nodes: Nodes
) -> None:
    box = ToyBox(tmp_path, postgres_url, trials=4, epochs=80)
    with killed_at_exit(launched(nodes, box, tmp_path, "--workers", "9")) as process:
        box.wait_beside(process, in_the_middle)
        process.send_signal(signal.SIGINT)
        said = box.finish(process)
    assert re.search(r"9 workers want 9 CPUs and the cluster has \d: the others start when there is room", said), said
    assert "draining: the workers save" in said
    counts = box.snapshot().study.counts
    assert counts["running"] == 0
    assert counts["waiting"] >= 1
    assert box.snapshot().workers == ()
    assert probe(nodes) == "False"
    stranger = launched(nodes, box, tmp_path, token="f" * 32)
    assert "RAY_AUTH_TOKEN_PATH" in box.finish(stranger, status=69)


@pytest.mark.slow
@pytest.mark.usefixtures("_ray")
def test_an_open_cluster_is_refused(postgres_url: str, tmp_path: Path) -> None:
    box = ToyBox(tmp_path, postgres_url, trials=1)
    with running(1, mode="disabled") as nodes:
        said = box.finish(launched(nodes, box, tmp_path), status=78)
        assert "asks nobody for a token" in said
    assert box.snapshot().trials == ()


def probe(nodes: Nodes) -> str:
    """Whether the cluster answers somebody without a token."""
    code = "import sys; from tuner.launch.ray import _answers_strangers; print(_answers_strangers(sys.argv[1]))"
    command = [sys.executable, "-c", code, nodes.address]
    return subprocess.run(command, env=nodes.environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("is_open", "dashboard", "text"),
    [
        (True, "", "asks nobody for a token"),
        (True, "127.0.0.1:8265", "asks nobody for a token"),
        (False, "10.0.0.1:8265", "the Ray dashboard listens on 10.0.0.1:8265"),
        (False, "head.example.org:8265", "the Ray dashboard listens on head"),
    ],
)
def test_who_lets_everybody_in_is_refused(
    monkeypatch: pytest.MonkeyPatch, is_open: bool, dashboard: str, text: str
) -> None:
    monkeypatch.setattr(launcher, "_answers_strangers", lambda _address: is_open)
    with pytest.raises(ConfigurationError, match=text) as caught:
        launcher._refuse_open_cluster("10.0.0.1:6379", dashboard=dashboard)
    assert "--insecure" in str(caught.value)


@pytest.mark.parametrize("dashboard", ["", "127.0.0.1:8265", "localhost:8265", "[::1]:8265"])
def test_who_keeps_strangers_out_is_accepted(monkeypatch: pytest.MonkeyPatch, dashboard: str) -> None:
    asked: list[str] = []
    monkeypatch.setattr(launcher, "_answers_strangers", asked.append)
    launcher._refuse_open_cluster("10.0.0.1:6379", dashboard=dashboard)
    assert asked == ["10.0.0.1:6379"]


def test_a_probe_that_says_nothing_is_no_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess([], 1, stdout="", stderr="Traceback\nRpcError: timed out\n")
    monkeypatch.setattr(subprocess, "run", lambda *_args, **_options: done)
    with pytest.raises(UnavailableError, match=r"cannot tell whether .* asks for a token - RpcError: timed out"):
        launcher._answers_strangers("10.0.0.1:6379")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"address": "ray://head:10001"}, "Ray's client protocol is not offered"),
        ({"workers": 0}, "--workers must be at least 1"),
        ({"gpus": -1}, "must be 0 or more"),
    ],
)
def test_what_no_cluster_can_is_refused_here(changes: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        RayOptions(**changes)


def test_actors_outlive_their_nodes() -> None:
    actor = RayOptions(gpus=2, cpus=4).actor
    assert actor["num_gpus"] == 2
    assert actor["num_cpus"] == 4
    assert actor["max_restarts"] == actor["max_task_retries"] == -1
    assert actor["max_concurrency"] > 1  # `drain` is heard while `run` runs


def test_the_plan_says_what_would_be_started() -> None:
    command = command_for("postgresql://tuner@db/tuner", files="/shared", studies=("a",), gpus=1)
    plan = launcher.plan(command, options=RayOptions(address="head:6379", workers=3))
    assert plan["actors"] == 3
    assert plan["token_required"] is True
    assert plan["command"][:3] == ["tuner", "worker", "start"]
    assert plan["environment"]["TUNER_STORAGE"] == "postgresql://tuner@db/tuner"
