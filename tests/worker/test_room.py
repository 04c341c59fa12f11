from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.object_stores import found, running_store
from tuner.files import remote
from tuner.worker import room
from tuner.worker.events import Event, Notice
from tuner.worker.room import LEAST, Room


class Watcher:
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def show(self, event: Event) -> None:
        assert isinstance(event, Notice)
        self.said.append(f"{event.level}: {event.text}")


@pytest.fixture
def watcher(monkeypatch: pytest.MonkeyPatch) -> Watcher:
    monkeypatch.setattr(room, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(room, "_FIRST_PAUSE", 0.0)
    return Watcher()


def wait_for_room(room_: Room) -> None:
    deadline = time.monotonic() + 20
    while room_.why_not():
        assert time.monotonic() < deadline, room_.why_not()
        time.sleep(0.02)


def test_claiming_goes_on_when_twice_as_much_is_free_as_was_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watcher: Watcher
) -> None:
    free = 5 * 2**20
    monkeypatch.setattr(room, "free_bytes", lambda _: free)
    here = Room(files=tmp_path, show=watcher.show)
    assert here.why_not() == ""
    here.ran_out("disk full: no room in /x", place="/x", needed=4 * 2**20)
    here.ran_out("disk full: no room in /x", place="/x", needed=1 * 2**20)
    assert here.why_not() == "disk full: no room in /x"
    free = 8 * 2**20
    assert here.why_not()
    free = 8 * 2**20 + 1
    assert here.why_not() == ""
    assert watcher.said == [
        "warning: disk full: no room in /x; nothing is claimed here until more than 8.0 MiB are free",
        "info: 8.0 MiB are free in /x: claiming again",
    ]


def test_a_disk_without_room_for_a_log_is_told_before_anybody_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watcher: Watcher
) -> None:
    free = LEAST - 1
    monkeypatch.setattr(room, "free_bytes", lambda _: free)
    here = Room(files=tmp_path, show=watcher.show)
    assert here.why_not() == f"disk full: 1024 KiB are free in {tmp_path}"
    assert here.why_not()
    free = LEAST + 1
    assert here.why_not() == ""
    assert len(watcher.said) == 2


def test_a_run_that_fails_again_and_again_is_waited_for_longer_and_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watcher: Watcher
) -> None:
    monkeypatch.setattr(room, "_FIRST_PAUSE", 100.0)
    now = time.monotonic()
    here = Room(files=tmp_path, show=watcher.show)
    pauses = []
    for _ in range(3):
        here.ran_out("disk full", place=str(tmp_path), needed=1)
        pauses.append(here._next_look - now)
    here.was_there()
    here.ran_out("disk full", place=str(tmp_path), needed=1)
    pauses.append(here._next_look - now)
    assert pauses == pytest.approx([100, 200, 300, 100], abs=5)


def test_what_an_earlier_run_needed_is_forgotten_when_there_was_room_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watcher: Watcher
) -> None:
    free = 2**20
    monkeypatch.setattr(room, "free_bytes", lambda _: free)
    here = Room(files=tmp_path, show=watcher.show)
    here.ran_out("disk full", place="/x", needed=10 * 2**30)
    free = 21 * 2**30
    assert here.why_not() == ""
    free = 2**20
    here.ran_out("disk full", place="/x", needed=2**30)
    free = 3 * 2**30  # the disk may never have more
    assert here.why_not() == ""


def test_an_object_store_is_tried_until_it_takes_what_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watcher: Watcher
) -> None:
    monkeypatch.setattr(remote, "PATIENCE", 0.1)
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    with running_store("s3") as store, found(store):
        here = Room(files=tmp_path, show=watcher.show)
        store.stop()
        here.ran_out(f"{store.url} cannot be written", place=store.url, needed=10)
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            assert here.why_not() == f"{store.url} cannot be written"
            time.sleep(0.05)
        store.start()
        wait_for_room(here)
    assert watcher.said == [
        f"warning: {store.url} cannot be written; nothing is claimed here until it takes what is written to it",
        f"info: {store.url} takes what is written to it again: claiming again",
    ]
