"""Real workers in real processes, watched through the database."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from tests.tiny import write_study
from tuner.api import create_study, load_study
from tuner.store.records import Outcome, StudySnapshot, TrialRecord

PATIENCE = 120.0
# One strategy whose epochs take long enough to be interrupted, and one whose are short.
STUDY: dict[str, Any] = {
    "strategies": ["full", "head"],
    "training": {"epochs": 4, "max_length": 32},
    "space": {"batch_size": 4},
    "search": {"sampler": "random", "pruner": "none"},
    "confirm": {"finalists": 0},
}


class Box:
    """A folder, a database, a study in it, and the workers that serve it."""

    def __init__(self, folder: Path, url: str, **changes: Any) -> None:
        self.url = url
        self.files = folder / "files"
        self.study = create_study(write_study(folder, **(STUDY | changes)), storage=url).name

    def start(self, *options: str, slots: int = 1) -> subprocess.Popen[str]:
        """A worker of its own process group.

        Each runner takes seconds to import torch; their number decides how many threads each has, and these the last digits.
        """
        command = [sys.executable, "-m", "tuner", "worker", "start", "--study", self.study, "--until-done"]
        command += ["--allow-skew"]  # whoever edits the source while the tests run is not the fault they are about
        command += ["--devices", "cpu", "--per-device", str(slots), "--files", str(self.files), *options]
        return subprocess.Popen(
            command,
            env={**os.environ, "TUNER_STORAGE": self.url},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *options: str, slots: int = 1) -> str:
        """A worker to its end; what it said."""
        return self.finish(self.start(*options, slots=slots))

    def finish(self, worker: subprocess.Popen[str], *, status: int = 0) -> str:
        said, _ = worker.communicate(timeout=PATIENCE)
        assert worker.returncode == status, said
        return said

    def snapshot(self) -> StudySnapshot:
        return load_study(self.study, storage=self.url)

    def wait_for(self, condition: Callable[[StudySnapshot], bool]) -> StudySnapshot:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            snapshot = self.snapshot()
            if condition(snapshot):
                return snapshot
            time.sleep(0.02)
        raise AssertionError(
            f"waited {PATIENCE:g} s in vain; trials: {[trial.outcome for trial in self.snapshot().trials]}"
        )

    def wait_for_epoch(self) -> TrialRecord:
        """A running trial that has stored an epoch and has more to do."""

        def _in_the_middle(snapshot: StudySnapshot) -> list[TrialRecord]:
            return [
                trial for trial in snapshot.trials if trial.outcome is Outcome.RUNNING and 1 <= len(trial.epochs) <= 2
            ]

        return _in_the_middle(self.wait_for(lambda snapshot: bool(_in_the_middle(snapshot))))[0]


@contextlib.contextmanager
def killed_at_exit(worker: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """The worker, and no trace of it afterwards."""
    try:
        yield worker
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(worker.pid, signal.SIGKILL)
        if worker.stdout is not None:
            worker.stdout.close()
        worker.wait()


def runners_of(worker: subprocess.Popen[str]) -> list[psutil.Process]:
    """The runner processes of a worker."""
    children = psutil.Process(worker.pid).children(recursive=True)
    return [child for child in children if "tuner.worker.runner" in child.cmdline()]


def curves(snapshot: StudySnapshot) -> dict[int, list[dict[str, float]]]:
    """What each trial reported, epoch by epoch."""
    return {trial.number: [dict(epoch.metrics) for epoch in trial.epochs] for trial in snapshot.trials}


def assert_whole(snapshot: StudySnapshot, *, trials: int) -> None:
    """Every trial of the budget is there once, complete, with all its epochs."""
    assert [trial.number for trial in snapshot.trials] == list(range(trials))
    assert all(trial.outcome is Outcome.COMPLETE for trial in snapshot.trials)
    epochs = snapshot.study.spec.training.epochs
    assert all([record.epoch for record in trial.epochs] == list(range(1, epochs + 1)) for trial in snapshot.trials)
    assert all(
        [attempt.outcome for attempt in trial.attempts].count(Outcome.COMPLETE) == 1 for trial in snapshot.trials
    )
