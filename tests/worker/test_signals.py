"""Signals are counted, and ignored ones stay ignored."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from tuner.worker.signals import StopSignals


def test_signals_are_counted_and_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    signals = StopSignals()
    with signals.caught():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
    assert signals.count == 2
    assert signal.getsignal(signal.SIGTERM) is before


def test_an_echo_counts_once_and_a_second_request_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    signals = StopSignals()
    with signals.caught():
        for count, seconds in ((1, 0.0), (1, 0.2), (1, 0.7), (2, 0.2), (2, 0.3)):
            now[0] += seconds
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.count == count


def test_an_ignored_hangup_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        signals = StopSignals()
        with signals.caught():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signals.count == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_changes_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen = []

    def _run() -> None:
        with StopSignals().caught():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=_run)
    thread.start()
    thread.join()
    assert seen == [before]
