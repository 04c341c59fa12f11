"""A study served by a crowd of workers, and somebody who kills them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.faults.checker import read_ledger
from tests.faults.figures import LONG
from tests.source_tree import ROOT
from tests.store.toy import toy_space, toy_spec
from tuner.store import studies
from tuner.store.database import Database
from tuner.study.spec import StudySpec

LEASE, HEARTBEAT = 3.0, 1.0
PATIENCE = 1200.0 if LONG else 240.0
_CHILDHOOD = 1.5  # seconds; before, a worker has no run that could be interrupted


@dataclass(frozen=True, kw_only=True, slots=True)
class Kill:
    """One SIGKILL.

    Attributes:
        pid: Of the supervisor that was killed, or whose runner was.
        at: Seconds since 1970.
        is_other_box: Whether its death could only be told from its silence.
    """

    pid: int
    at: float
    is_other_box: bool


class Mob:
    """Workers of one study, forked from a nursery."""

    def __init__(self, folder: Path, *, url: str, study: str, seed: int = 0, within: Sequence[str] = ()) -> None:
        self.url, self.study = url, study
        self.ledger = folder / "ledger.jsonl"
        self.log = folder / "workers.log"
        self.kills: list[Kill] = []
        self._folder = folder
        self._random = random.Random(seed)
        self._boxes: dict[int, bool] = {}
        self._started: dict[int, float] = {}
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TUNER_CI": ""}
        self._nursery = subprocess.Popen(
            [*within, sys.executable, "-m", "tests.faults.nursery"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )

    def start(
        self,
        *,
        failpoint: str = "",
        other_box: bool = False,
        environment: Mapping[str, str] | None = None,
        **options: Any,
    ) -> int:
        """One more worker; its pid."""
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        told = {
            "options": {
                "storage": self.url,
                "files": str(self._folder / "files"),
                "studies": [self.study],
                "devices": "cpu",
                "until_done": True,
                "lease": LEASE,
                "heartbeat": HEARTBEAT,
                "runner": "tests.faults.toy_training",
                "allow_skew": True,  # whoever edits the source while the tests run is not the fault they are about
                **options,
            },
            "failpoint": failpoint,
            "other_box": other_box,
            "environment": dict(environment or {}),
            "ledger": str(self.ledger),
            "log": str(self.log),
        }
        self._nursery.stdin.write(json.dumps(told) + "\n")
        self._nursery.stdin.flush()
        pid = int(self._nursery.stdout.readline())
        self._boxes[pid] = other_box
        self._started[pid] = time.time()
        return pid

    def alive(self) -> list[int]:
        """The workers that run."""
        return [pid for pid in self._boxes if psutil.pid_exists(pid)]

    def kill_one(self) -> None:
        """SIGKILL to a random worker that has had time to begin, or in one of five cases to its runner alone."""
        grown = [pid for pid in self.alive() if time.time() - self._started[pid] > _CHILDHOOD]
        if not grown:
            return
        pid = self._random.choice(grown)
        try:
            runners = psutil.Process(pid).children()
            victim = self._random.choice(runners).pid if runners and self._random.random() < 0.2 else pid
            os.kill(victim, signal.SIGKILL)
        except (psutil.NoSuchProcess, ProcessLookupError):
            return
        self.kills.append(Kill(pid=pid, at=time.time(), is_other_box=self._boxes[pid]))

    def kill(self, pid: int) -> None:
        """SIGKILL to a worker and its runners at once."""
        for process in family(pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self.kills.append(Kill(pid=pid, at=time.time(), is_other_box=self._boxes[pid]))

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What was acknowledged to all workers so far, of one kind."""
        return [line for line in read_ledger(self.ledger) if line["event"] == event] if self.ledger.exists() else []

    def wait_until_over(self) -> None:
        """The study is over, and all workers have left by themselves."""
        self.wait(self.is_done, what="the study is over")
        self.wait(lambda: not self.alive(), what="all workers have left")

    def is_done(self) -> bool:
        """Whether the study is over."""
        with Database.open(self.url) as db:
            return not studies.find_study(db, self.study).state.is_open

    def wait(self, condition: Callable[[], bool], *, what: str) -> None:
        """Until the condition holds; not for ever, and not after all workers have gone."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > deadline:
                raise AssertionError(f"waited {PATIENCE:g} s in vain until {what}; {self.tail()}")
            if not self.alive() and not condition():
                raise AssertionError(f"all workers have gone before {what}; {self.tail()}")
            time.sleep(0.1)

    def tail(self) -> str:
        """What the workers said last."""
        return self.log.read_text(encoding="utf-8")[-2000:] if self.log.exists() else "no worker said anything"

    def reclaim_seconds(self) -> list[float]:
        """For every kill of a worker that held a run: seconds until another attempt at that run began."""
        lines = read_ledger(self.ledger)
        claims = [line for line in lines if line["event"] == "RunClaimed"]
        ends = [line for line in lines if line["event"] == "RunEnded"]
        found = []
        for kill in self.kills:
            held = [line for line in claims if line["pid"] == kill.pid and line["at"] <= kill.at]
            if not held:
                continue
            number, attempt = held[-1]["number"], held[-1]["attempt"]
            if any(line["number"] == number and held[-1]["at"] <= line["at"] <= kill.at for line in ends):
                continue
            again = [line["at"] for line in claims if line["number"] == number and line["attempt"] > attempt]
            found += [min(again) - kill.at] if again else []
        return found

    def close(self) -> None:
        """End everybody."""
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.close()
        self._nursery.stdout.close()
        self._nursery.wait(timeout=30)


def family(pid: int) -> list[psutil.Process]:
    """A worker and its runners, as far as they live."""
    try:
        worker = psutil.Process(pid)
        return [worker, *worker.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def make_study(
    url: str, *, trials: int, name: str = "toy", epochs: int = 4, sampler: str = "tpe", pruner: str = "median"
) -> StudySpec:
    """A study of the toy, stored."""
    options = {"n_startup_trials": 10} if sampler == "tpe" else {}
    spec = toy_spec(
        name,
        budget={"trials": trials},
        training={"epochs": epochs},
        search={"sampler": {"name": sampler, "options": options}, "pruner": pruner},
    )
    with Database.open(url, create=True) as db:
        studies.create_study(db, spec=spec, space=toy_space(), maximize=True)
    return spec


@contextmanager
def mob(folder: Path, *, url: str, study: str = "toy", seed: int = 0, within: Sequence[str] = ()) -> Iterator[Mob]:
    """A crowd that is gone afterwards; ``within`` stands before its command, such as ``nsenter``."""
    crowd = Mob(folder, url=url, study=study, seed=seed, within=within)
    try:
        yield crowd
    finally:
        crowd.close()


def percentile(values: list[float], share: float) -> float:
    """The smallest value that is not below that share of all; 0 if there are none."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)] if values else 0.0


def median(values: list[float]) -> float:
    """The median; 0 if there are none."""
    return statistics.median(values) if values else 0.0
