"""Workers die in every way; no trial is lost, none runs twice, and resumed curves are the uninterrupted ones."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.faults.boxes import Box, assert_whole, curves, killed_at_exit, runners_of
from tuner.store.records import Outcome, StudyState

pytestmark = pytest.mark.slow

TRIALS = 4


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, float]]]:
    """The curves of the study when nothing goes wrong."""
    folder = tmp_path_factory.mktemp("undisturbed")
    box = Box(folder, f"sqlite:///{folder}/tuner.db", budget={"trials": TRIALS})
    box.run(slots=2)
    snapshot = box.snapshot()
    assert_whole(snapshot, trials=TRIALS)
    return curves(snapshot)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path, f"sqlite:///{tmp_path}/tuner.db", budget={"trials": TRIALS})


@pytest.fixture
def orphans() -> Iterator[list[psutil.Process]]:
    """Runners that must be gone when the test is over."""
    processes: list[psutil.Process] = []
    yield processes
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive, alive


def test_a_killed_supervisor_loses_nothing(
    box: Box, undisturbed: dict[int, list[dict[str, float]]], orphans: list[psutil.Process]
) -> None:
    with killed_at_exit(box.start("--lease", "3600", slots=2)) as worker:
        interrupted = box.wait_for_epoch()
        orphans += runners_of(worker)
        assert orphans
        worker.kill()
        worker.wait()
    box.run(slots=2)  # the same command again: it does not wait for the hour of the dead worker's leases
    snapshot = box.snapshot()
    assert_whole(snapshot, trials=TRIALS)
    assert curves(snapshot) == undisturbed  # bit for bit, the interrupted trial's too
    attempts = snapshot.trial(interrupted.number).attempts
    assert [attempt.outcome for attempt in attempts] == [Outcome.LOST, Outcome.COMPLETE]
    assert snapshot.study.state is StudyState.FINISHED
    assert snapshot.workers == ()


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_drained_worker_gives_its_trials_back(
    box: Box, undisturbed: dict[int, list[dict[str, float]]], sent: signal.Signals
) -> None:
    with killed_at_exit(box.start(slots=2)) as worker:
        box.wait_for_epoch()
        begin = time.monotonic()
        worker.send_signal(sent)
        said = box.finish(worker)
        assert time.monotonic() - begin < 20.0
    assert "draining" in said
    drained = box.snapshot()
    assert drained.study.counts["running"] == 0
    assert drained.study.counts["waiting"] >= 1
    assert drained.workers == ()
    box.run(slots=2)
    snapshot = box.snapshot()
    assert_whole(snapshot, trials=TRIALS)
    assert curves(snapshot) == undisturbed
    assert not [a for trial in snapshot.trials for a in trial.attempts if a.outcome is Outcome.LOST]


def test_a_second_ctrl_c_stops_at_once(box: Box) -> None:
    with killed_at_exit(box.start()) as worker:
        box.wait_for_epoch()
        os.kill(worker.pid, signal.SIGINT)
        os.kill(worker.pid, signal.SIGTERM)
        box.finish(worker, status=130)
    snapshot = box.snapshot()
    assert snapshot.study.counts["running"] == 0
    assert snapshot.study.counts["waiting"] >= 1


def test_a_killed_runner_is_replaced_and_its_trial_goes_on(
    box: Box, undisturbed: dict[int, list[dict[str, float]]]
) -> None:
    with killed_at_exit(box.start(slots=2)) as worker:
        box.wait_for_epoch()
        for runner in runners_of(worker):
            runner.kill()
        box.finish(worker)
    snapshot = box.snapshot()
    assert_whole(snapshot, trials=TRIALS)
    assert curves(snapshot) == undisturbed
    lost = [a for trial in snapshot.trials for a in trial.attempts if a.outcome is Outcome.LOST]
    assert lost
    assert all("killed by SIGKILL" in attempt.reason for attempt in lost)


def suspend_between_writes(box: Box, processes: list[psutil.Process]) -> None:
    """Stop processes; not in the middle of a write, where SQLite's lock would stop everybody else, too."""
    while True:
        for process in processes:
            process.suspend()
        connection = sqlite3.connect(box.url.removeprefix("sqlite:///"), timeout=0.5)
        with contextlib.closing(connection), contextlib.suppress(sqlite3.OperationalError):
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
            return
        for process in processes:
            process.resume()


def test_a_stopped_worker_comes_back_to_a_trial_that_has_another_owner(box: Box) -> None:
    with killed_at_exit(box.start("--lease", "6", "--heartbeat", "2", slots=2)) as sleeper:
        box.wait_for_epoch()
        suspend_between_writes(box, [psutil.Process(sleeper.pid), *runners_of(sleeper)])
        held = [one.number for one in box.snapshot().trials if one.outcome is Outcome.RUNNING]
        box.run("--lease", "6", "--heartbeat", "2")
        after = box.snapshot()
        for process in (psutil.Process(sleeper.pid), *runners_of(sleeper)):
            process.resume()
        box.finish(sleeper)
    assert held
    assert_whole(after, trials=TRIALS)
    assert curves(box.snapshot()) == curves(after)  # the zombie wrote nothing
    for number in held:
        outcomes = [attempt.outcome for attempt in after.trial(number).attempts]
        assert (outcomes[0], outcomes[-1]) == (Outcome.LOST, Outcome.COMPLETE)
        assert outcomes.count(Outcome.COMPLETE) == 1


def test_two_workers_share_a_study(tmp_path: Path, storage_url: str) -> None:
    box = Box(tmp_path, storage_url, budget={"trials": 9}, training={"epochs": 2, "max_length": 32})
    with killed_at_exit(box.start()) as first, killed_at_exit(box.start()) as second:
        box.finish(first)
        box.finish(second)
    snapshot = box.snapshot()
    assert_whole(snapshot, trials=9)
    assert all(len(trial.attempts) == 1 for trial in snapshot.trials)
    assert len({trial.attempts[0].worker for trial in snapshot.trials}) == 2
    assert snapshot.study.used.trials == 9


def test_a_runner_knows_no_password(tmp_path: Path, postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "s3cr3tPW"  # the test server trusts every password
    monkeypatch.setenv("PGPASSWORD", secret)
    box = Box(tmp_path, postgres_url, budget={"trials": 6})  # of two a busy machine may see none in its middle
    with killed_at_exit(box.start()) as worker:
        box.wait_for_epoch()
        (runner, *_) = runners_of(worker)
        seen = {**runner.environ(), "cmdline": " ".join(runner.cmdline())}
        box.finish(worker)
    assert not [name for name, value in seen.items() if secret in value or postgres_url in value]
    logs = [path.read_text(encoding="utf-8", errors="replace") for path in box.files.rglob("*.log")]
    assert logs
    assert not [text for text in logs if secret in text]
