"""The signals that ask a worker for its end, counted."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

# The same request twice: a scheduler signals every process of a job, and whoever started this one passes it on.
_ECHO_SECONDS = 1.0


class StopSignals:
    """Counts SIGTERM, SIGINT and SIGHUP while they are caught: the first asks for a drain, the second for the end at once.

    A signal that comes again within a second is an echo and counts once.

    Attributes:
        count: How many came.
    """

    def __init__(self) -> None:
        """None came yet."""
        self.count = 0
        self._last: dict[int, float] = {}

    @contextlib.contextmanager
    def caught(self) -> Iterator[None]:
        """Count instead of dying; only the main thread of a process may, elsewhere nothing is changed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def _count(number: int, _frame: FrameType | None) -> None:
            now = time.monotonic()
            if now - self._last.get(number, -_ECHO_SECONDS) >= _ECHO_SECONDS:
                self.count += 1
                self._last[number] = now

        # What is ignored stays ignored: under nohup a worker outlives its terminal.
        asked = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        caught = [one for one in asked if signal.getsignal(one) is not signal.SIG_IGN]
        before = [signal.signal(one, _count) for one in caught]
        try:
            yield
        finally:
            for one, handler in zip(caught, before, strict=True):
                signal.signal(one, handler)
