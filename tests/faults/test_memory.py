"""Memory that runs out, processes that keep too much, devices that fail: told apart, tried once more, and nobody else is hurt."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import pytest
from sqlalchemy import select
from transformers import BertConfig

from tests.faults.figures import LONG, RecordProperty, record
from tests.faults.short_training import BROKEN, KILLS, LEAK, MIB, TRACE
from tests.faults.tight_training import HELD, ROOM
from tests.store.toy import holder, toy_study
from tests.training import samples
from tuner.search.driver import StudyDriver
from tuner.store import fits, studies, workers
from tuner.store.database import Database
from tuner.store.queries import load_snapshot
from tuner.store.records import Outcome, StudySnapshot
from tuner.store.tables import attempts, events
from tuner.store.tables import fits as fits_table
from tuner.study.domains import Fixed
from tuner.study.space import SearchSpace, StrategySpace
from tuner.worker import health
from tuner.worker.events import Event, Notice, RunEnded, StudySeen
from tuner.worker.options import WorkerOptions
from tuner.worker.supervisor import run_worker

pytestmark = pytest.mark.slow

TRIALS = 20 if LONG else 10
BATCH = 512


@dataclass
class Watcher:
    """Remembers what the worker showed, and acts on it."""

    act: Callable[[Event], None] = lambda _: None
    notices: list[str] = field(default_factory=list)
    ends: list[RunEnded] = field(default_factory=list)

    def show(self, event: Event) -> None:
        if isinstance(event, Notice):
            self.notices.append(event.text)
        if isinstance(event, RunEnded):
            self.ends.append(event)
        self.act(event)

    def close(self) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class Served:
    """A study after one worker has served it to its end."""

    snapshot: StudySnapshot
    notices: list[str]
    ends: list[RunEnded]
    trace: list[dict[str, Any]]

    @property
    def attempts(self) -> list[list[str]]:
        return [[attempt.outcome.value for attempt in trial.attempts] for trial in self.snapshot.trials]

    def traced(self, number: int) -> list[dict[str, Any]]:
        """The processes that trained a trial, in order."""
        return [line for line in self.trace if line["number"] == number]


@pytest.fixture
def serve(tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Served]:
    """Serve a study of a name to its end, in this process but for the runner."""
    files = tmp_path / "files"
    files.mkdir()
    (files / KILLS).write_text("oom_kill 7\n", encoding="ascii")
    monkeypatch.setattr(health, "_GROUPS", tmp_path / "none")
    monkeypatch.setattr(health, "_VMSTAT", files / KILLS)
    monkeypatch.setenv("ODD_CHECK", str(files / BROKEN))

    def run(name: str, *, trials: int, watcher: Watcher | None = None, per_device: int = 1) -> Served:
        with Database.open(sqlite_url, create=True) as db:  # nothing is pruned: every trial comes to its fault
            toy_study(db, name, budget={"trials": trials}, training={"epochs": 2}, search={"pruner": "none"})
        watcher = watcher or Watcher()
        options = WorkerOptions(
            storage=sqlite_url,
            files=files,
            studies=(name,),
            devices="cpu",
            per_device=per_device,
            until_done=True,
            runner="tests.faults.short_training",
            checker="tests.worker.odd_check",
        )
        run_worker(options, display=watcher)
        lines = (files / TRACE).read_text(encoding="utf-8").splitlines()
        with Database.open(sqlite_url) as db:
            snapshot = load_snapshot(db, name)
        return Served(
            snapshot=snapshot, notices=watcher.notices, ends=watcher.ends, trace=[json.loads(line) for line in lines]
        )

    return run


def test_a_runner_that_the_kernel_kills_is_told_apart(
    serve: Callable[..., Served], record_property: RecordProperty
) -> None:
    served = serve("kernel", trials=TRIALS)
    reason = "the runner was killed by SIGKILL, by the kernel for lack of memory"
    assert served.attempts == [["infeasible", "complete"]] * TRIALS
    assert {trial.attempts[0].reason for trial in served.snapshot.trials} == {reason}
    for trial in served.snapshot.trials:
        first, second = served.traced(trial.number)
        assert trial.params is not None
        half = int(trial.params["batch_size"]) // 2
        assert (first["micro_batch"], second["micro_batch"]) == (0, half)
        assert first["pid"] != second["pid"]
    record(
        record_property,
        row=18,
        figures={"SIGKILLs that the kernel counts": TRIALS, "told apart": TRIALS, "supervisors lost": 0},
    )


def test_a_runner_that_somebody_kills_is_not_short_of_memory(serve: Callable[..., Served]) -> None:
    served = serve("outside", trials=3)
    assert served.attempts == [["lost", "complete"]] * 3
    assert {trial.attempts[0].reason for trial in served.snapshot.trials} == {
        "the runner was killed by SIGKILL, from outside"
    }
    assert {line["micro_batch"] for line in served.trace} == {0}


def test_a_run_that_does_not_fit_has_a_second_chance_in_a_fresh_process(serve: Callable[..., Served]) -> None:
    served = serve("short", trials=3)
    assert served.attempts == [["infeasible", "complete"]] * 3
    for number in range(3):
        first, second = served.traced(number)
        assert first["pid"] != second["pid"]
        assert second["resumes"]
    assert served.ends[0].reason == "out of memory on toy with 1 row; it waits for another attempt in a fresh process"


def test_a_warm_runner_makes_room_for_a_fresh_one(serve: Callable[..., Served], sqlite_url: str) -> None:
    """A run whose memory ran out on another box comes to a runner that has trained already."""

    def run_out_elsewhere(event: Event) -> None:
        if isinstance(event, RunEnded) and event.number == 0:
            with Database.open(sqlite_url) as db:
                lease = StudyDriver(db, name="some").claim(holder("another"))
                assert lease is not None
                assert lease.number == 1
                assert fits.try_with_less(db, lease, micro_batch=4, reason="out of memory", seconds=1.0)

    served = serve("some", trials=4, watcher=Watcher(act=run_out_elsewhere))
    assert served.attempts == [["complete"], ["infeasible", "complete"], ["complete"], ["complete"]]
    (again,) = served.traced(1)
    before = served.trace[: served.trace.index(again)]
    assert before
    assert again["pid"] not in [line["pid"] for line in before]


def test_runs_that_run_out_of_memory_are_tried_again_in_fresh_processes(serve: Callable[..., Served]) -> None:
    served = serve("half", trials=12, per_device=2)
    assert served.attempts == [["infeasible", "complete"], ["complete"]] * 6
    for number in range(0, 12, 2):
        _, again = served.traced(number)
        before = served.trace[: served.trace.index(again)]
        assert again["pid"] not in [line["pid"] for line in before]


def test_a_run_that_never_fits_is_infeasible_and_hurts_no_other(
    serve: Callable[..., Served], sqlite_url: str, record_property: RecordProperty
) -> None:
    served = serve("shorter", trials=4)
    assert served.attempts == [["infeasible", "infeasible"]] * 4
    for trial in served.snapshot.trials:
        assert (trial.outcome, trial.reason) == (
            Outcome.INFEASIBLE,
            "out of memory on toy with 1 row; so it did before in another process",
        )
    assert len({line["pid"] for line in served.trace}) == 8, "every attempt had a process of its own"
    with Database.open(sqlite_url) as db:
        told = optuna.load_study(study_name="shorter", storage=db.optuna_storage()).trials
    assert [trial.constraints for trial in told] == [{"runs": 1.0}] * 4
    record(record_property, row=19, figures={"trials that never fit": 4, "tries of each": 2, "worker restarts": 0})


def test_what_fits_is_remembered_for_later_trials(serve: Callable[..., Served], sqlite_url: str) -> None:
    served = serve("halves", trials=6)
    assert served.attempts == [["complete"]] * 6
    strategies = {trial.strategy for trial in served.snapshot.trials}
    seen: set[str | None] = set()
    for trial in served.snapshot.trials:
        (line,) = served.traced(trial.number)
        assert line["micro_batch"] == (4 if trial.strategy in seen else 0)
        seen.add(trial.strategy)
    with Database.open(sqlite_url) as db:
        rows = db.read(lambda tx: tx.execute(select(fits_table)).all())
    assert {(row.strategy, row.device, row.micro_batch) for row in rows} == {
        (strategy, "toy, 1 GiB", 4) for strategy in strategies
    }


def test_a_runner_that_leaks_is_replaced_between_trials(
    serve: Callable[..., Served], record_property: RecordProperty
) -> None:
    served = serve("leaks", trials=12)
    assert served.attempts == [["complete"]] * 12
    pids = [line["pid"] for line in served.trace]
    longest = max(pids.count(pid) for pid in pids)
    assert 3 <= longest <= 6, "it is replaced, and not after every trial"
    (notice,) = [text for text in served.notices if "replaced" in text]
    assert notice.startswith("cpu/0: its runner is replaced between trials: its memory grew from 0.")
    record(
        record_property,
        row=37,
        figures={"leak of a trial, MiB": LEAK // MIB, "most trials of a leaking runner": longest},
    )


def test_a_failed_device_ends_its_process_and_the_next_trial_is_well(
    serve: Callable[..., Served], record_property: RecordProperty
) -> None:
    served = serve("asserts", trials=40)
    assert served.attempts == [["complete"], ["errored", "complete"]] * 20
    first = served.snapshot.trials[1].attempts[0]
    assert first.reason == "RuntimeError: CUDA error: device-side assert triggered"
    assert "short_training.py" in first.log_tail
    for number in range(1, 40, 2):
        broken, again = served.traced(number)
        assert broken["pid"] != again["pid"]
    assert not any("out of use" in text for text in served.notices), "three in a row, not three in all"
    record(record_property, row=20, figures={"device errors": 20, "next trials that were well": 20})


def test_a_broken_device_is_left_alone_until_it_is_well(
    serve: Callable[..., Served], tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_AGAIN_SECONDS", 1.0)
    broken = tmp_path / "files" / BROKEN
    broken.write_text("an ECC error", encoding="utf-8")
    listed: list[tuple[str, ...]] = []

    def mend(event: Event) -> None:
        if isinstance(event, StudySeen) and broken.exists():  # shown after the database was told
            with Database.open(sqlite_url) as db:
                devices = workers.list_workers(db)[0].devices
            if devices == ("cpu/0 (out of use)",):
                listed.append(devices)
                broken.unlink()

    served = serve("broken", trials=3, watcher=Watcher(act=mend))
    assert served.attempts == [["errored", "complete"], ["complete"], ["complete"]]
    assert served.notices[-2:] == [
        "cpu is out of use: an ECC error; see free memory and the log of the runner; it is checked again every 0.0166667 min",
        "cpu is well again and is used",
    ]
    with Database.open(sqlite_url) as db:
        rows = db.read(lambda tx: tx.execute(select(events).where(events.c.kind.like("device_%"))).all())
    assert [row.kind for row in rows] == ["device_quarantined", "device_readmitted"]
    assert listed


def test_a_device_that_three_runs_in_a_row_break_on_is_given_a_rest(
    serve: Callable[..., Served], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: RecordProperty
) -> None:
    """It passes every check, so the first two runs have all their attempts on it."""
    monkeypatch.setattr(health, "_AGAIN_SECONDS", 1.0)
    monkeypatch.setenv("ODD_CHECK", str(tmp_path / "none"))
    broken = tmp_path / "files" / BROKEN
    broken.touch()

    def mend(event: Event) -> None:
        if isinstance(event, Notice) and "is out of use" in event.text:
            broken.unlink()

    served = serve("broken", trials=5, watcher=Watcher(act=mend))
    assert served.attempts == [["errored"] * 3, ["errored"] * 3, ["errored", "complete"], ["complete"], ["complete"]]
    assert served.notices[0].startswith(
        "cpu is out of use: 3 runs in a row ended with its errors, the last with: Runtime"
    )
    record(record_property, row=20, figures={"runs in a row until quarantine": 3})


def test_the_real_training_begins_small_where_the_kernel_gives_no_more(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch, record_property: RecordProperty
) -> None:
    """The first process has no room for a row, the second for a part of the batch, and the second trial knows that."""
    wide = {**samples._BERT, "hidden_size": 64, "intermediate_size": 2048}
    monkeypatch.setitem(samples.CONFIGS, "bert", BertConfig(**wide, **samples._SHARED, max_position_embeddings=64))
    samples.write_rows(tmp_path / "train.csv", rows=1000)
    samples.write_rows(tmp_path / "test.csv", rows=12)
    only = {"learning_rate": Fixed(value=1e-3), "batch_size": Fixed(value=BATCH), "dropout": Fixed(value=0.0)}
    spec = samples.study(
        tmp_path, training={"epochs": 1}, budget={"trials": 2}, search={"pruner": "none"}, confirm={"finalists": 0}
    )
    space = SearchSpace(strategies=(StrategySpace(strategy="full", prior=1e-3, domains=only, recipe={}),))
    files = tmp_path / "files"
    files.mkdir()
    (files / ROOM).write_text("60", encoding="ascii")
    (files / HELD).touch()
    with Database.open(sqlite_url, create=True) as db:
        studies.create_study(db, spec=spec, space=space, maximize=True)
        options = WorkerOptions(
            storage=sqlite_url,
            files=files,
            studies=("tiny",),
            devices="cpu",
            until_done=True,
            runner="tests.faults.tight_training",
        )
        run_worker(options, display=Watcher())
        first, second = load_snapshot(db, "tiny").trials
        facts = [
            json.loads(row.facts)
            for row in db.read(lambda tx: tx.execute(select(attempts).order_by(attempts.c.run_id)).all())
        ]
    ends = [[attempt.outcome.value for attempt in trial.attempts] for trial in (first, second)]
    assert ends == [["infeasible", "complete"], ["complete"]]
    assert first.attempts[0].reason.startswith(f"out of memory on cpu with 1 row of 13 tokens (batch size {BATCH})")
    sizes = [fact["micro_batch"] for fact in facts]
    assert sizes[:2] == [BATCH, BATCH]
    assert 1 < sizes[2] < BATCH
    assert second.value == first.value, "the updates are those of whole batches"
    record(record_property, row=19, figures={"batch size": BATCH, "rows at once in the next trial": sizes[2]})
