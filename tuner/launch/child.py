"""A worker as a child process: started, asked to drain, started again where it crashed."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType

from tuner.errors import TemporaryError, UnavailableError
from tuner.launch import leash
from tuner.launch.command import WorkerCommand

_POLL_SECONDS = 0.1
_FIRST_PAUSE, _LONGEST_PAUSE = 5.0, 60.0
_MOST_CRASHES = 5
_LONG_SECONDS = 600.0  # a worker that lived this long did not crash at its start
# A drain takes 20 seconds at most; a worker that takes longer is ended, and its leases run out by themselves.
_DRAIN_SECONDS = 30.0


class Child:
    """One ``tuner worker start``, leashed to this process."""

    def __init__(self, words: Sequence[str], *, environment: Mapping[str, str]) -> None:
        """Start it.

        Args:
            words: What stands after ``tuner``.
            environment: What it has besides the environment of this process; it inherits the output, too.
        """
        self._drained_at: float | None = None
        self._process = subprocess.Popen(
            leash.words([sys.executable, "-m", "tuner", *words]),
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # what a terminal or a scheduler sends to our group is ours to deal with
        )

    @property
    def pid(self) -> int:
        """Its process, which leads a group of its own."""
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs. One that does not drain in time is ended."""
        status = self._process.poll()
        if status is None and self._drained_at is not None and time.monotonic() - self._drained_at > _DRAIN_SECONDS:
            self.kill()
        return status

    def drain(self) -> None:
        """Ask it to save, to give its trials back and to leave; once is enough, twice would cut it short."""
        if self._drained_at is None:
            self._drained_at = time.monotonic()
            self._process.terminate()

    def kill(self) -> None:
        """End it now; its runners notice and end, too."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def serve(command: WorkerCommand, *, is_asked_to_leave: Callable[[], bool]) -> int:
    """Run a worker until it has nothing more to do, is asked to leave, or fails in a way that trying again does not mend.

    One that was killed, or could not reach its database or device, is started again after a pause.

    Args:
        command: What the worker is told.
        is_asked_to_leave: Looked at several times a second.

    Returns:
        The exit status of the last worker; 0 also after a drain.
    """
    crashes = 0
    while True:
        began = time.monotonic()
        child = Child(command.words, environment=command.environment)
        try:
            while (status := child.poll()) is None:
                if is_asked_to_leave():
                    child.drain()
                time.sleep(_POLL_SECONDS)
        except BaseException:
            child.kill()
            raise
        if is_asked_to_leave():
            return 0
        crashes = 1 if time.monotonic() - began > _LONG_SECONDS else crashes + 1
        may_mend = status < 0 or status in {UnavailableError.exit_code, TemporaryError.exit_code}
        if not may_mend or crashes >= _MOST_CRASHES:
            return status
        pause = min(_FIRST_PAUSE * 2 ** (crashes - 1), _LONGEST_PAUSE)
        sys.stderr.write(f"the worker ended with status {status}; it is started again in {pause:g} s\n")
        sys.stderr.flush()
        _wait(pause, until=is_asked_to_leave)
        if is_asked_to_leave():
            return 0


def _wait(seconds: float, *, until: Callable[[], bool]) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and not until():
        time.sleep(_POLL_SECONDS)


@contextlib.contextmanager
def noted(*signals: signal.Signals) -> Iterator[list[signal.Signals]]:
    """Note signals instead of dying of them; what came is in the list, in order. In the main thread only."""
    came: list[signal.Signals] = []

    def _note(number: int, _frame: FrameType | None) -> None:
        came.append(signal.Signals(number))

    before = [signal.signal(one, _note) for one in signals]
    try:
        yield came
    finally:
        for one, handler in zip(signals, before, strict=True):
            signal.signal(one, handler)
