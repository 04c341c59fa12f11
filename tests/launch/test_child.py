"""A worker as a child: what ends it, and what starts it again."""

from __future__ import annotations

import os
import signal
import time
from unittest.mock import patch

import pytest

from tests.launch.stub import Stub
from tuner.launch import child as module
from tuner.launch.child import Child, noted, serve


def never() -> bool:
    return False


@pytest.mark.parametrize(
    ("ends", "status", "starts"),
    [
        ([0], 0, 1),
        ([3], 3, 1),
        ([78], 78, 1),
        ([69, 0], 0, 2),
        (["killed", 75, 0], 0, 3),
        ([69], 69, 5),
    ],
)
def test_what_may_mend_is_tried_again_and_nothing_else(
    stub: Stub, ends: list[str | int], status: int, starts: int
) -> None:
    stub.ends(*ends)
    assert serve(stub.command, is_asked_to_leave=never) == status
    assert stub.starts == starts


def test_a_worker_that_is_asked_to_leave_is_not_started_again(stub: Stub) -> None:
    stub.ends("long", 1)
    assert serve(stub.command, is_asked_to_leave=stub.is_up) == 0
    assert stub.starts == 1


def test_a_pause_ends_when_it_is_asked_to_leave(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FIRST_PAUSE", 60.0)
    stub.ends(69)
    began = time.monotonic()
    assert serve(stub.command, is_asked_to_leave=(stub.folder / "starts").exists) == 0
    assert time.monotonic() - began < 20.0


def test_a_worker_that_does_not_drain_is_ended(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DRAIN_SECONDS", 0.3)
    stub.ends("deaf")
    assert serve(stub.command, is_asked_to_leave=stub.is_up) == 0
    assert stub.starts == 1


def test_a_worker_is_asked_once_because_twice_means_at_once(stub: Stub) -> None:
    stub.ends("long")
    child = Child([], environment={})
    while not stub.is_up():
        time.sleep(0.01)
    with patch.object(child._process, "terminate", wraps=child._process.terminate) as terminate:
        for _ in range(3):
            child.drain()
        assert child._process.wait(20) == 0
    assert terminate.call_count == 1


def test_signals_are_noted_in_order_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with noted(signal.SIGUSR1, signal.SIGTERM) as came:
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert came == [signal.SIGUSR1, signal.SIGTERM]
    assert signal.getsignal(signal.SIGUSR1) is before
