"""Hours of trials in minutes: a worker that serves study after study keeps no memory, descriptor, thread or connection.

`make test` soaks for half a minute, which finds what grows with every trial; `make soak` for TUNER_SOAK_MINUTES (30).
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import psutil
import pytest
from sqlalchemy.engine import make_url

from tests.faults.figures import record
from tests.faults.mob import make_study, median, mob
from tests.postgres import PostgresServer
from tests.tiny import write_study
from tuner.api import create_study
from tuner.store import queries, studies
from tuner.store.database import Database

pytestmark = pytest.mark.slow

MINUTES = float(os.environ.get("TUNER_SOAK_MINUTES", "0.2"))
SECONDS = 60.0 * MINUTES
WARM_UP = min(300.0, SECONDS / 3)  # imports are lazy, caches fill, pools open
MOST_SECONDS = 5 * SECONDS  # on a busy machine: a short form asks for its number of trials, not for its time
LEAST_TRIALS = 10  # to warm up, and as many again to look at
INTERVAL = max(0.25, SECONDS / 600)
MOST_GROWTH = 0.05
KINDS = ("toy", "tiny") if MINUTES > 5 else ("toy",)
"""The tiny one is a real model that is really trained: its runner holds torch, tokens and weights."""
MEMORY = ("supervisor", "runners")
RUNNERS = {"toy": "tests.faults.toy_training", "tiny": "tuner.worker.runner"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A worker at one moment.

    Attributes:
        supervisor: Its resident memory, MiB.
        runners: That of its runners together, MiB.
        descriptors: Its open files, pipes and sockets.
        threads: Its threads.
        connections: Those to the database.
    """

    supervisor: float
    runners: float
    descriptors: float
    threads: float
    connections: float


class Pasture:
    """One worker, one database, and always a study with work left."""

    def __init__(self, folder: Path, *, url: str, kind: str) -> None:
        self.names: list[str] = []
        self.samples: list[Sample] = []
        self.kind = kind
        self._folder = folder
        self._url = url
        self._port = make_url(url).port

    def top_up(self) -> None:
        """Open another study when the last but one is over."""
        with Database.open(self._url, create=not self.names) as db:
            while len(self.names) < 2 or not studies.find_study(db, self.names[-2]).state.is_open:
                name = f"{self.kind}-{len(self.names)}"
                if self.kind == "toy":
                    make_study(self._url, trials=40, name=name)
                else:
                    training = {"epochs": 2, "max_length": 32}
                    path = write_study(self._folder, name=name, training=training, budget={"trials": 10})
                    create_study(path, storage=self._url)
                self.names.append(name)

    def look(self, pid: int) -> None:
        """Take a sample, unless a runner is just being replaced."""
        with contextlib.suppress(psutil.NoSuchProcess):
            worker = psutil.Process(pid)
            self.samples.append(
                Sample(
                    supervisor=worker.memory_info().rss / 2**20,
                    runners=sum(runner.memory_info().rss for runner in worker.children()) / 2**20,
                    descriptors=worker.num_fds(),
                    threads=worker.num_threads(),
                    connections=sum(
                        bool(one.raddr) and one.raddr.port == self._port for one in worker.net_connections()
                    ),
                )
            )

    def trials(self) -> int:
        """How many were finished."""
        with Database.open(self._url) as db:
            snapshots = [queries.load_snapshot(db, name) for name in self.names]
        return sum(trial.outcome.is_finished for snapshot in snapshots for trial in snapshot.trials)

    def changes(self) -> dict[str, tuple[float, float]]:
        """What the first third of all samples and the last third say of each thing that is looked at.

        Of memory the median; of what is counted the least, for what is kept is always there, but what waits for an answer opens
        a descriptor for that moment.
        """
        third = len(self.samples) // 3
        parts = (self.samples[:third], self.samples[-third:])
        found = {}
        for field in fields(Sample):
            of = median if field.name in MEMORY else min
            begin, end = (of([getattr(one, field.name) for one in part]) for part in parts)
            found[field.name] = (begin, end)
        return found


@pytest.mark.timeout(2 * MOST_SECONDS + 600)
def test_a_worker_that_serves_for_long_keeps_nothing(
    tmp_path: Path,
    postgres_server: PostgresServer,
    record_property: Callable[[str, object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    pastures = []
    grown = {}
    with contextlib.ExitStack() as stack:
        pids = []
        for kind in KINDS:
            folder = tmp_path / kind
            folder.mkdir()
            url = stack.enter_context(postgres_server.database())
            pastures.append(Pasture(folder, url=url, kind=kind))
            pastures[-1].top_up()
            crowd = stack.enter_context(mob(folder, url=url, study=""))
            pids.append(crowd.start(studies=[], until_done=False, runner=RUNNERS[kind]))
        _graze(pastures, seconds=WARM_UP, trials=LEAST_TRIALS)
        _graze(pastures, seconds=SECONDS - WARM_UP, trials=2 * LEAST_TRIALS, pids=pids)
        trials = {pasture.kind: pasture.trials() for pasture in pastures}
    for pasture in pastures:
        figures: dict[str, float | str] = {"minutes": MINUTES, f"{pasture.kind} trials": trials[pasture.kind]}
        for name, (begin, end) in pasture.changes().items():
            is_memory = name in MEMORY
            figures |= {f"{name} MiB" if is_memory else name: f"{begin:.4g} to {end:.4g}"}
            if end > begin * (1 + MOST_GROWTH if is_memory else 1):
                grown[f"{pasture.kind} {name}"] = (begin, end)
        record(record_property, row=37, database="postgresql", figures=figures)
        with capsys.disabled():
            sys.stdout.write("\n" + "".join(f"{name:>16}  {value}\n" for name, value in figures.items()))
    assert min(trials.values()) >= 2 * LEAST_TRIALS
    assert grown == {}


def _graze(pastures: Sequence[Pasture], *, seconds: float, trials: int, pids: Sequence[int] = ()) -> None:
    """Let all workers work for so long and until each has done so many trials; look at those whose process is given."""
    begin = next_top_up = now = time.monotonic()
    done = 0
    while (now - begin < seconds or done < trials) and now - begin < MOST_SECONDS:
        if now >= next_top_up:
            next_top_up = now + 2.0
            for pasture in pastures:
                pasture.top_up()
            done = min(pasture.trials() for pasture in pastures)
        for pasture, pid in zip(pastures, pids, strict=False):
            pasture.look(pid)
        time.sleep(INTERVAL)
        now = time.monotonic()
