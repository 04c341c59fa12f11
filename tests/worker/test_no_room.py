"""A run without room, through a real worker and a real runner: given back, waited for, and none the worse for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.toy import toy_study
from tests.worker import cramped_training as cramped
from tuner.store.database import Database
from tuner.store.queries import load_snapshot
from tuner.store.records import Outcome
from tuner.worker.events import Event, Notice
from tuner.worker.options import WorkerOptions
from tuner.worker.supervisor import run_worker

TRIALS = 5


class Listener:
    """A display that keeps the notices."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def show(self, event: Event) -> None:
        if isinstance(event, Notice):
            self.said.append(event.text)

    def close(self) -> None:
        pass


@pytest.mark.slow
def test_runs_without_room_are_given_back_and_go_on_when_there_is_some(tmp_path: Path) -> None:
    url, listener = f"sqlite:///{tmp_path}/tuner.db", Listener()
    with Database.open(url, create=True) as db:
        search = {"sampler": {"name": "random"}, "pruner": {"name": "none"}}
        toy_study(db, training={"epochs": 1}, budget={"trials": TRIALS}, search=search)
        options = WorkerOptions(
            storage=url,
            files=tmp_path / "files",
            checkpoints=str(tmp_path / "kept"),
            devices="cpu",
            until_done=True,
            runner="tests.worker.cramped_training",
        )
        run_worker(options, display=listener)
        snapshot = load_snapshot(db, "toy")
    assert [trial.outcome for trial in snapshot.trials] == [Outcome.COMPLETE] * TRIALS
    ends = {trial.number: [attempt.outcome for attempt in trial.attempts] for trial in snapshot.trials}
    twice = [Outcome.PREEMPTED, Outcome.COMPLETE]
    assert ends == {cramped.COMPLETE: [Outcome.COMPLETE]} | dict.fromkeys(range(1, TRIALS), twice)
    reasons = {trial.number: trial.attempts[0].reason for trial in snapshot.trials}
    places = {number: tmp_path / "kept" / f"toy-{snapshot.study.uid[:8]}" / f"trial-{number}" for number in reasons}
    assert reasons[cramped.CHECKPOINT] == (
        f"disk full: no room for a checkpoint of 3.0 MiB in {places[cramped.CHECKPOINT]}/attempt-1"
    )
    assert reasons[cramped.CACHE] == f"disk full: no room for {places[cramped.CACHE]}/cache/tokens"
    assert reasons[cramped.COPIES].startswith("disk full: ") and "No space left on device" in reasons[cramped.COPIES]
    assert reasons[cramped.STORE] == "s3://bucket cannot be written - it does not answer"
    waited = [text for text in listener.said if "nothing is claimed here until" in text]
    assert len(waited) == len([text for text in listener.said if text.endswith("claiming again")]) == TRIALS - 1
    assert "until more than 6.0 MiB are free" in waited[0]
    assert sorted(path.name for path in places[cramped.CHECKPOINT].iterdir()) == ["attempt-2"]
    assert not (tmp_path / "files" / "checkpoints").exists()
