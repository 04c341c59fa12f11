"""Disks fill up and object stores go away: a run is given back as it was, and the worker waits for room."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.boxes import Box, assert_whole, curves, killed_at_exit
from tests.faults.disks import fill, make_room, small_disk
from tests.faults.figures import LONG, RecordProperty, record
from tests.object_stores import ObjectStore, found, running_store
from tuner.files.remote import RemoteFolder
from tuner.store.records import Outcome, StudySnapshot, TrialRecord
from tuner.training.sealed import MANIFEST, check_seal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROUNDS = 5 if LONG else 1
STUDY = {"strategies": ["full"], "training": {"epochs": 5, "max_length": 32}, "budget": {"trials": 2}}


def checkpoints_of(files: Path) -> list[Path]:
    """All folders that somebody could go on from."""
    return [path for path in files.glob("checkpoints/*/*/attempt-*/*") if not path.name.startswith(".")]


def torn(files: Path) -> list[str]:
    """What is there and not whole, or half written and not swept."""
    wrong = [str(path) for path in files.glob("checkpoints/*/*/attempt-*/.*")]
    for path in checkpoints_of(files):
        try:
            check_seal(path)
        except (OSError, ValueError) as error:
            wrong.append(f"{path}: {error}")
    return wrong


def given_back(snapshot: StudySnapshot, words: str) -> list[TrialRecord]:
    return [
        trial
        for trial in snapshot.trials
        if any(attempt.outcome is Outcome.PREEMPTED and words in attempt.reason for attempt in trial.attempts)
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict[str, float]]]:
    """The curves of the study when nothing goes wrong."""
    folder = tmp_path_factory.mktemp("undisturbed")
    box = Box(folder, f"sqlite:///{folder}/tuner.db", **STUDY)
    box.run()
    return curves(box.snapshot())


def test_a_full_disk_stops_nobody_for_good(
    tmp_path: Path, undisturbed: dict[int, list[dict[str, float]]], record_property: RecordProperty
) -> None:
    """There is room for the worker's log, and for less than another checkpoint."""
    lost = half = failed = 0
    for number in range(ROUNDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        box = Box(folder, f"sqlite:///{folder}/tuner.db", **STUDY)
        with small_disk(box.files, size=5 * 2**20), killed_at_exit(box.start()) as worker:
            box.wait_for_epoch()
            fill(box.files, leave=100 * 2**10)
            stopped = given_back(box.wait_for(lambda snapshot: not snapshot.study.counts["running"]), "disk full")
            assert stopped
            half += len(torn(box.files))
            kept = {path.name for path in checkpoints_of(box.files)}
            lost += not kept
            claims = sum(len(trial.attempts) for trial in box.snapshot().trials)
            time.sleep(5.0)
            assert worker.poll() is None
            assert claims == sum(len(trial.attempts) for trial in box.snapshot().trials), "claimed on a full disk"
            make_room(box.files)
            said = box.finish(worker)
            half += len(torn(box.files))
        snapshot = box.snapshot()
        failed += sum(trial.outcome is not Outcome.COMPLETE for trial in snapshot.trials)
        reasons = [attempt.reason for trial in stopped for attempt in trial.attempts if "disk full" in attempt.reason]
        assert reasons
        assert all(f"in {box.files}/checkpoints/" in reason for reason in reasons), "the reason names the place"
        assert said.count("nothing is claimed here until more than") == 1
        assert said.count("claiming again") == 1
        assert "given up" not in said
        assert_whole(snapshot, trials=2)
        assert curves(snapshot) == undisturbed  # bit for bit: it went on from the checkpoint before
    figures = {"disks filled": ROUNDS, "torn checkpoints": half, "checkpoints lost": lost, "failed trials": failed}
    record(record_property, row=17, figures=figures)
    assert (half, lost, failed) == (0, 0, 0)


def test_a_full_disk_under_the_database_is_an_outage(
    tmp_path: Path, undisturbed: dict[int, list[dict[str, float]]], record_property: RecordProperty
) -> None:
    with small_disk(tmp_path / "small", size=4 * 2**20) as disk:
        box = Box(tmp_path, f"sqlite:///{disk}/tuner.db", **STUDY)
        with killed_at_exit(box.start()) as worker:
            box.wait_for_epoch()
            fill(disk, leave=0)
            time.sleep(8.0)
            assert worker.poll() is None
            make_room(disk)
            said = box.finish(worker)
        snapshot = box.snapshot()
    failed = sum(trial.outcome is not Outcome.COMPLETE for trial in snapshot.trials)
    again = sum(len(trial.attempts) - 1 for trial in snapshot.trials)
    figures = {"disks filled": 1, "failed trials": failed, "runs begun again": again}
    record(record_property, row=17, database="sqlite", figures=figures)
    assert said.count("training goes on") == 1
    assert said.count("the database is back after") == 1
    assert_whole(snapshot, trials=2)
    assert (failed, again) == (0, 0)
    assert curves(snapshot) == undisturbed


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers find out soon that a store is gone."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")


def manifests(url: str) -> list[str]:
    """Checkpoints below a place that somebody could go on from."""
    here = RemoteFolder(url)
    found_here = [url] if MANIFEST in here.names() else []
    return found_here + [deeper for name in here.names() if "." not in name for deeper in manifests(f"{url}/{name}")]


def test_any_box_goes_on_where_another_one_stopped(
    tmp_path: Path, s3_url: str, undisturbed: dict[int, list[dict[str, float]]]
) -> None:
    """Two boxes that share the database and the store, and no folder."""
    box = Box(tmp_path, f"sqlite:///{tmp_path}/tuner.db", **STUDY)
    with killed_at_exit(box.start("--checkpoints", s3_url)) as worker:
        interrupted = box.wait_for_epoch()
        worker.kill()
        worker.wait()
    assert manifests(s3_url)
    shutil.rmtree(box.files)
    box.files = tmp_path / "other-files"
    box.run("--checkpoints", s3_url)
    snapshot = box.snapshot()
    assert_whole(snapshot, trials=2)
    assert curves(snapshot) == undisturbed
    attempts = snapshot.trial(interrupted.number).attempts
    assert [attempt.outcome for attempt in attempts] == [Outcome.LOST, Outcome.COMPLETE]
    kept = sorted(trial.checkpoint for trial in snapshot.trials)
    assert sorted(manifests(s3_url)) == kept, "nothing is left but what the trials name"
    assert all(place.startswith(s3_url) and place.endswith("/final") for place in kept)
    assert not (box.files / "checkpoints").exists()
    assert list((box.files / "scratch").iterdir()) == []


@pytest.mark.usefixtures("impatient")
def test_a_store_that_is_gone_gives_runs_back_and_is_waited_for(tmp_path: Path) -> None:
    with running_store("s3") as store, found(store):
        box = Box(tmp_path, f"sqlite:///{tmp_path}/tuner.db", **STUDY)
        with killed_at_exit(box.start("--checkpoints", store.url)) as worker:
            box.wait_for_epoch()
            _interrupt(store, until=lambda: bool(given_back(box.snapshot(), "cannot be")))
            said = box.finish(worker)
        snapshot = box.snapshot()
        assert_whole(snapshot, trials=2)
        assert not [
            a for trial in snapshot.trials for a in trial.attempts if a.outcome in (Outcome.LOST, Outcome.ERRORED)
        ]
        assert sorted(manifests(store.url)) == sorted(trial.checkpoint for trial in snapshot.trials)
    assert "nothing is claimed here until it takes what is written to it" in said


def _interrupt(store: ObjectStore, *, until: Callable[[], bool]) -> None:
    store.stop()
    deadline = time.monotonic() + 200
    while not until():
        assert time.monotonic() < deadline, "the run is not given back"
        time.sleep(0.5)
    store.start()


def test_a_store_without_its_package_is_one_line(tmp_path: Path, s3_url: str) -> None:
    box = Box(tmp_path, f"sqlite:///{tmp_path}/tuner.db", **STUDY)
    (tmp_path / "s3fs.py").write_text("raise ImportError('no s3fs here')\n", encoding="utf-8")
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)
        said = box.finish(box.start("--checkpoints", s3_url), status=78)
    assert said.splitlines()[-1].endswith("speaks s3://; pip install s3fs")
    assert box.snapshot().trials == ()
