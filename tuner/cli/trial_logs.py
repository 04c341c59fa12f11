"""The last lines that an attempt at a trial wrote: from the database, or from the log of a runner on this box."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import NotFoundError
from tuner.store.records import AttemptRecord, Outcome, TrialStory
from tuner.worker.logs import log_file

_LINES = 40
_MOST_BYTES = 256 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What was found.

    Attributes:
        about: Of which attempt the lines are, for people.
        lines: The lines, oldest first.
    """

    about: str
    lines: tuple[str, ...]


def find(story: TrialStory, *, attempt: int | None, files: Path) -> Found:
    """The last lines of one attempt.

    Args:
        story: The trial.
        attempt: Which; None: the newest that has any.
        files: The folder of this box's workers.

    Raises:
        NotFoundError: If there is no such attempt, or nothing is left of its log.
    """
    name = f"trial {story.trial.number} of study {story.study.name}"
    tried = story.trial.attempts
    if attempt is not None:
        tried = tuple(one for one in tried if one.attempt == attempt)
        if not tried:
            there = len(story.trial.attempts)
            raise NotFoundError(f"{name} has no attempt {attempt}", why=f"it has {there}")
    for one in reversed(tried):
        about = f"{name}, attempt {one.attempt}, {one.outcome.value}{f': {one.reason}' if one.reason else ''}"
        if one.log_tail:
            return Found(about=about, lines=tuple(one.log_tail.splitlines()))
        path = log_file(files, worker=one.worker, slot=one.slot)
        if one.outcome is Outcome.RUNNING and path.is_file():
            return Found(about=f"{about}, from {path}", lines=_last_lines(path))
    raise NotFoundError(f"nothing is left of what {name} wrote", why=_why_nothing(tried), fix=_where(tried, files))


def _why_nothing(tried: tuple[AttemptRecord, ...]) -> str:
    if not tried:
        return "it has not begun"
    if tried[-1].outcome is Outcome.RUNNING:
        return f"it runs on {tried[-1].host}"
    return "the database keeps the last lines of attempts that ended badly"


def _where(tried: tuple[AttemptRecord, ...], files: Path) -> str:
    if not tried:
        return ""
    last = tried[-1]
    return f"look on {last.host} for {log_file(files, worker=last.worker, slot=last.slot)}"


def _last_lines(path: Path) -> tuple[str, ...]:
    with path.open("rb") as log:
        log.seek(max(0, path.stat().st_size - _MOST_BYTES))
        return tuple(deque(log.read().decode(errors="replace").splitlines(), maxlen=_LINES))
