"""Room for what runs write: where there is none, a worker claims nothing, says so once, and goes on by itself when there is.

A run that finds its disk full, or its object store gone, is given back with its last checkpoint: nothing is wrong with it, and
another box may have what it needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from tuner.files.disk import free_bytes
from tuner.files.place import is_url
from tuner.files.remote import RemoteFolder
from tuner.worker.events import Event, Notice
from tuner.worker.question import Question

LEAST = 2**20
"""Bytes without which not even a log can be written."""

_LOOK_SECONDS = 2.0
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 300.0


class Room:
    """Whether there is room, as far as the last look told."""

    def __init__(self, *, files: Path, show: Callable[[Event], None]) -> None:
        """There is.

        Args:
            files: The worker's folder for files.
            show: Takes the notices about beginning and end.
        """
        self._files = files
        self._show = show
        self._place = ""
        self._needed = 0
        self._reason = ""
        self._in_a_row = 0
        self._next_look = 0.0
        self._question: Question | None = None

    def why_not(self) -> str:
        """Why nothing may be claimed now; an empty string if there is room. Looks at the disk now and then."""
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _LOOK_SECONDS
            self._look()
        return self._reason

    def ran_out(self, reason: str, *, place: str, needed: int) -> None:
        """A run found none.

        Args:
            reason: In words, with the place.
            place: Folder or URL that took nothing; empty if that is not known.
            needed: Bytes that were to be written there.
        """
        self._in_a_row += 1
        pause = min(_FIRST_PAUSE * 2 ** (self._in_a_row - 1), _LONGEST_PAUSE)
        self._next_look = time.monotonic() + pause
        self._place, self._needed = place or str(self._files), max(needed, self._needed)
        if is_url(self._place):
            self._begin(reason, until="it takes what is written to it")
        else:
            self._begin(reason, until=f"more than {_size(self._wanted)} are free")

    def was_there(self) -> None:
        """A run has written a checkpoint."""
        self._in_a_row = 0

    @property
    def _wanted(self) -> int:
        return max(2 * self._needed, LEAST)

    def _begin(self, reason: str, *, until: str) -> None:
        if not self._reason:
            self._show(Notice(level="warning", text=f"{reason}; nothing is claimed here until {until}"))
        self._reason = reason

    def _look(self) -> None:
        if self._reason and is_url(self._place):
            self._look_at_store()
            return
        folder = Path(self._place) if self._reason else self._files
        try:
            free = free_bytes(folder)
        except OSError:  # it cannot be told; who writes will see
            free = self._wanted + 1
        if self._reason and free > self._wanted:
            self._end(f"{_size(free)} are free in {folder}")
        elif not self._reason and free < LEAST:
            self._place = str(folder)
            self._begin(
                f"disk full: {_size(free)} are free in {folder}", until=f"more than {_size(self._wanted)} are free"
            )

    def _look_at_store(self) -> None:
        if self._question is None:
            self._question = Question(RemoteFolder(self._place).check)
        elif self._question.is_done:
            error, self._question = self._question.error, None
            if error is None:
                self._end(f"{self._place} takes what is written to it again")

    def _end(self, text: str) -> None:
        self._reason, self._needed = "", 0  # the next run may need less
        self._show(Notice(level="info", text=f"{text}: claiming again"))


def _size(count: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 2**10:.0f} KiB"
