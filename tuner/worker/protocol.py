"""What supervisor and runner say to each other: one JSON object a line, each with the run it is about.

The key of a run is the random token of its claim, so that one runner may hold several runs at once and an answer to an earlier attempt is
never taken for one to a later.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """To the runner: train this; ``plan`` is a TrialPlan as JSON."""

    key: str
    plan: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """To the runner: the verdict on the report of an epoch."""

    key: str
    epoch: int
    verdict: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Interrupt:
    """To the runner: stop within a step, with the verdict ``release`` or ``stop``."""

    key: str
    verdict: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """From the runner: its imports are done, it can take a run; ``device`` is what it trains on, with its memory."""

    device: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Started:
    """From the runner: the model stands."""

    key: str
    facts: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fit:
    """From the runner: fewer rows fit into the memory at once than was thought."""

    key: str
    micro_batch: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """From the runner: a share of an epoch is done."""

    key: str
    epoch: int
    fraction: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Pulse:
    """From the runner: it moves, though there is nothing to say of an epoch."""

    key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Recall:
    """From the runner: what an earlier attempt has measured, from the checkpoint; to be stored if it is not known."""

    key: str
    epoch: int
    metrics: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """From the runner: an epoch is done; it waits for the Answer. ``peak_memory`` in bytes; 0: not measured."""

    key: str
    epoch: int
    metrics: Mapping[str, float]
    seconds: float
    peak_memory: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """From the runner: the run ended well.

    Attributes:
        result: A TrialResult as JSON.
        leak: What this process has kept too much of; it ends itself now. Empty while all is well.
    """

    key: str
    result: Mapping[str, Any]
    leak: str = field(default="")


@dataclass(frozen=True, kw_only=True, slots=True)
class Failed:
    """From the runner: the run, or this attempt at it, cannot succeed.

    Attributes:
        outcome: ``infeasible``, ``diverged`` or ``errored``.
        reason: One line for people.
        traceback: For the log of the trial; empty where the reason says it all.
        recycle: Whether the runner ends itself now, because its process may be damaged.
        may_pass: Whether another attempt may end otherwise.
        cause: ``memory`` if it ran out, ``device`` if the device failed; empty for all else.
        micro_batch: With how many rows at once another attempt should begin, where memory ran out; 0: as the
            first did.
    """

    key: str
    outcome: str
    reason: str
    seconds: float
    traceback: str = field(default="")
    recycle: bool = field(default=False)
    may_pass: bool = field(default=False)
    cause: str = field(default="")
    micro_batch: int = field(default=0)


@dataclass(frozen=True, kw_only=True, slots=True)
class NoRoom:
    """From the runner: what the run must write finds no room here; nothing is wrong with it, and it may go on elsewhere.

    Attributes:
        reason: One line for people.
        place: Folder or URL that took nothing; empty if that is not known.
        needed: Bytes that were to be written there; 0 if that is not known.
    """

    key: str
    reason: str
    seconds: float
    place: str
    needed: int


MEMORY, DEVICE = "memory", "device"
"""Causes of a failure that say something of the process or its device, not of the configuration alone."""

Message = (
    Run | Answer | Interrupt | Ready | Started | Fit | Progress | Pulse | Recall | Report | Finished | Failed | NoRoom
)

_TYPES: Mapping[str, type[Message]] = {
    cls.__name__.lower(): cls
    for cls in (Run, Answer, Interrupt, Ready, Started, Fit, Progress, Pulse, Recall, Report, Finished, Failed, NoRoom)
}


def encode(message: Message) -> bytes:
    """A message as one line."""
    return json.dumps({"type": type(message).__name__.lower(), **asdict(message)}, allow_nan=True).encode() + b"\n"


def decode(line: bytes) -> Message:
    """The inverse of :func:`encode`.

    Raises:
        ValueError: If the line is no message; the sender is broken.
    """
    data = json.loads(line)
    if not isinstance(data, dict) or data.get("type") not in _TYPES:
        raise ValueError(f"not a message: {line[:200]!r}")
    return _TYPES[data.pop("type")](**data)


class LineReader:
    """Splits what a pipe gives into messages.

    Attributes:
        is_closed: Whether the other side closed the pipe.
    """

    def __init__(self, descriptor: int) -> None:
        """Read from a file descriptor; the caller closes it."""
        self._descriptor = descriptor
        self._rest = b""
        self.is_closed = False

    def read(self) -> list[Message]:
        """Wait for bytes, then give the whole messages among them; empty at the end of the pipe."""
        try:
            chunk = os.read(self._descriptor, 1 << 16)
        except OSError:
            chunk = b""
        if not chunk:
            self.is_closed = True
            return []
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        return [decode(line) for line in lines]


def send(descriptor: int, message: Message) -> None:
    """Write a whole message.

    Raises:
        BrokenPipeError: If the other side is gone.
    """
    rest = memoryview(encode(message))
    while rest:
        rest = rest[os.write(descriptor, rest) :]
