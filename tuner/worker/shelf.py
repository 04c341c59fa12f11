"""Where the runs of a worker keep their checkpoints: folders, or an object store with a local folder for what is on its way."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tuner.errors import PlaceError, UnavailableError
from tuner.files.place import is_url, join
from tuner.files.remote import RemoteFolder
from tuner.files.removal import remove_below
from tuner.worker.events import Event, Notice

ATTEMPT = "attempt-"
"""What the name of an attempt's folder begins with, before its number."""

_LOCK = "lock"
_CLOSE_SECONDS = 5.0


class Shelf:
    """The checkpoints of one worker."""

    def __init__(self, place: str, *, files: Path, worker: str, show: Callable[[Event], None]) -> None:
        """Nothing is opened before :meth:`open`.

        Args:
            place: Folder or URL, the same for all workers that shall resume each other's runs.
            files: This worker's folder for files.
            worker: Its id.
            show: Takes notices.
        """
        self.place = place
        self.is_remote = is_url(place)
        self._scratch = files / "scratch" / worker
        self._show = show
        self._lock: int | None = None
        self._removals: list[threading.Thread] = []
        self._said: list[str] = []

    def open(self) -> None:
        """See that an object store takes what is written to it, and clear away what dead workers left on this box.

        Raises:
            ConfigurationError: If the store refuses, or nothing is installed that speaks to it.
            PlaceError: If it cannot be reached.
            UnavailableError: If the local folder cannot be made.
        """
        if not self.is_remote:
            return
        RemoteFolder(self.place).check()
        try:
            self._scratch.mkdir(parents=True)
            self._lock = _locked(self._scratch)
            for folder in self._scratch.parent.iterdir():
                if folder != self._scratch:
                    _remove_if_dead(folder)
        except OSError as error:
            raise UnavailableError(f"cannot use {self._scratch}", why=error.strerror or type(error).__name__) from error

    def run_place(self, study: str, *, run: str) -> str:
        """Below it are the folders of a run's attempts."""
        return join(self.place, study, run)

    def scratch_of(self, key: str) -> str:
        """The local folder of an attempt; empty where none is needed."""
        return str(self._scratch / key) if self.is_remote else ""

    def left(self, key: str) -> None:
        """An attempt is over: what its runner left in its local folder is of no use."""
        if self.is_remote:
            shutil.rmtree(self.scratch_of(key), ignore_errors=True)

    def clear(self, run_place: str, *, kept: str, newest: int) -> None:
        """Remove the checkpoints of a run that is over, but those of one attempt.

        Args:
            run_place: Of the run.
            kept: In the folder of the attempt that is kept; empty if none is.
            newest: The attempt that ended it: a later one, of a run that somebody wants again, is no business of ours.
        """

        def _is_later(name: str) -> bool:
            number = name.removeprefix(ATTEMPT)
            return number.isdigit() and int(number) > newest

        if not self.is_remote:
            remove_below(run_place, kept=kept, spared=_is_later)
            return
        what = (run_place, kept, _is_later)
        removal = threading.Thread(target=self._remove, args=what, name="removal", daemon=True)
        removal.start()
        self._removals = [*(one for one in self._removals if one.is_alive()), removal]

    def tell(self) -> None:
        """Say what could not be removed; call in the main thread."""
        while self._said:
            self._show(Notice(level="warning", text=self._said.pop(0)))

    def close(self) -> None:
        """Let removals end, for a while, and remove the local folder."""
        deadline = time.monotonic() + _CLOSE_SECONDS
        for removal in self._removals:
            removal.join(max(deadline - time.monotonic(), 0.0))
        self.tell()
        if self._lock is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            os.close(self._lock)
            self._lock = None

    def _remove(self, run_place: str, kept: str, spared: Callable[[str], bool]) -> None:
        try:
            remove_below(run_place, kept=kept, spared=spared)
        except PlaceError as error:
            self._said.append(f"{error.message}; checkpoints that nobody needs are left there")


def _locked(folder: Path) -> int:
    """A descriptor that says of a folder, as long as it is open, that its worker lives.

    Raises:
        BlockingIOError: If another process says so.
    """
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def _remove_if_dead(folder: Path) -> None:
    with contextlib.suppress(OSError):
        lock = _locked(folder)
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
