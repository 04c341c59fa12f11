"""A study of toys whose workers are started by a launcher."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.boxes import PATIENCE, Box
from tests.faults.checker import Findings, check
from tests.source_tree import ROOT
from tests.store.toy import toy_space, toy_spec
from tuner.store import studies
from tuner.store.database import Database
from tuner.store.records import StudySnapshot

PATH = os.pathsep.join([str(Path(__file__).parent / "toy"), str(ROOT)])
"""What ``PYTHONPATH`` is in an environment whose workers train toys."""


class ToyBox(Box):
    """A folder, a database and a study of toys in it."""

    def __init__(self, folder: Path, url: str, *, trials: int = 4, epochs: int = 20) -> None:
        self.url = url
        self.files = folder / "files"
        self.study = "toys"
        self.trials = trials
        plain = {"sampler": "random", "pruner": "none"}
        spec = toy_spec(self.study, budget={"trials": trials}, training={"epochs": epochs}, search=plain)
        with Database.open(url, create=True) as db:
            studies.create_study(db, spec=spec, space=toy_space(), maximize=True)

    def wait_beside(self, process: subprocess.Popen[str], condition: Callable[[StudySnapshot], bool]) -> StudySnapshot:
        """As :meth:`wait_for`; fails at once when the process that should bring it about has ended."""

        deadline = time.monotonic() + 2 * PATIENCE  # several programs start before anything is trained
        while not condition(snapshot := self.snapshot()):
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                raise AssertionError(f"waited in vain; {process.communicate()[0]}")
            time.sleep(0.05)
        return snapshot

    def check(self) -> Findings:
        """What the checker finds: everything that any worker was acknowledged against the database."""
        return check(url=self.url, study=self.study, ledger=self.files / "ledger.jsonl", trials=self.trials)


def in_the_middle(snapshot: StudySnapshot) -> bool:
    """Whether a trial has stored an epoch and has more to do."""
    epochs = snapshot.study.spec.training.epochs
    return any(not trial.outcome.is_finished and 1 <= len(trial.epochs) <= epochs // 2 for trial in snapshot.trials)
