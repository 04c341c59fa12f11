"""One slot: a device share and the runner process that lives on it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tuner.search.driver import StudyDriver
from tuner.store.leases import Lease
from tuner.store.records import Outcome
from tuner.worker import protocol
from tuner.worker.devices import SlotPlace
from tuner.worker.shelf import Shelf

LOG_TAIL_LINES = 20
_SECRET_PREFIXES = ("TUNER_STORAGE", "PG", "MYSQL_", "MARIADB_")
_FIRST_BACKOFF, _LONGEST_BACKOFF = 1.0, 60.0


@dataclass(kw_only=True, slots=True)
class Job:
    """The run that a slot works on.

    Attributes:
        lease: The right to it.
        driver: Of its study.
        claimed_at: Monotonic time of the claim.
        log_start: Where its part of the runner's log begins, in bytes.
        place: Folder or URL; below it are the checkpoints of the run's attempts.
        shelf: What looks after them.
        prune_reason: Why it was told to stop as a loser; empty if it was not.
        kill_reason: Why its runner was ended from outside; empty if it was not.
        release_reason: Why it is given back, if it is.
        is_lost: Whether the lease is gone: whatever the runner says now counts for nothing.
        ended_as: What became of it where the lease is gone: it is another's now, or this worker has ended it.
        stop_asked_at: Monotonic time at which it was told to stop, None if it was not.
        heard_at: Monotonic time at which its runner last said something, or was answered.
        longest_silence: Seconds of its longest silence that ended well.
        micro_batch: Rows of it that are on the device at once, as far as is known.
        kills_before: How many processes the kernel had killed for lack of memory when it began, None if it does not tell.
        backlog: What its runner said while the database was gone, answered but not stored; oldest first.
    """

    lease: Lease
    driver: StudyDriver
    claimed_at: float
    log_start: int
    place: str
    shelf: Shelf
    prune_reason: str = ""
    kill_reason: str = ""
    release_reason: str = "the worker was told to stop"
    is_lost: bool = False
    ended_as: Outcome = Outcome.LOST
    stop_asked_at: float | None = None
    heard_at: float = field(default_factory=time.monotonic)
    longest_silence: float = 0.0
    micro_batch: int = 1
    kills_before: int | None = None
    backlog: deque[protocol.Started | protocol.Fit | protocol.Recall | protocol.Report] = field(default_factory=deque)

    @property
    def key(self) -> str:
        """What the messages about it are marked with."""
        return self.lease.token

    @property
    def seed(self) -> int | None:
        """The fresh seed of a confirmation run, None for a search run."""
        return self.lease.seed if self.lease.purpose == "confirm" else None

    @property
    def seconds(self) -> float:
        """Device seconds since the claim."""
        return time.monotonic() - self.claimed_at


@dataclass(kw_only=True, slots=True)
class Slot:
    """A place, its process, and what that process is doing.

    Attributes:
        place: Which device share.
        log: The runner's log file.
        cache: Folder for tokenised data.
        runner: The module that is run.
        process: The runner, None before the first start and after an end.
        is_ready: Whether the runner can take a run.
        was_ready: Whether this runner has ever been ready; one that ends before is a failed start.
        device: What this runner trains on, with its memory; empty while nothing is known.
        runs: How many runs this runner was given.
        out_of_use: Why no run is claimed for it, whatever its runner says; empty if one may be.
        job: What it works on, None if it is free.
        inbox: Messages that were read but not yet dealt with, oldest first: a database outage keeps them here.
        failed_starts: Runners that ended before they were ready, in a row.
        failed_spawns: Times in a row that not even a process could be made.
        cannot_start: Why, for the last of them; empty if there is a runner or was one.
        started_at: Monotonic time of the last start.
        start_after: Monotonic time before which no new runner is started.
        leaks: Runners that were replaced because they kept too much.
        exit_status: Of the last runner that ended.
    """

    place: SlotPlace
    log: Path
    cache: Path
    runner: str = "tuner.worker.runner"
    process: subprocess.Popen[bytes] | None = None
    is_ready: bool = False
    was_ready: bool = False
    device: str = ""
    runs: int = 0
    out_of_use: str = ""
    job: Job | None = None
    inbox: deque[protocol.Message] = field(default_factory=deque)
    failed_starts: int = 0
    failed_spawns: int = 0
    cannot_start: str = ""
    started_at: float = 0.0
    start_after: float = 0.0
    leaks: int = 0
    exit_status: int = 0
    _to_runner: int = -1
    _reader: protocol.LineReader | None = None
    _from_runner: int = -1

    @property
    def name(self) -> str:
        """The place's name."""
        return self.place.name

    @property
    def is_free(self) -> bool:
        """Whether it can take a run now."""
        return self.is_ready and self.job is None and not self.inbox and not self.out_of_use

    @property
    def is_training(self) -> bool:
        """Whether its runner has not said, by word or by its death, how the run ended."""
        ends = protocol.Finished | protocol.Failed | protocol.NoRoom
        return self.job is not None and not self.has_hung_up and not any(isinstance(one, ends) for one in self.inbox)

    @property
    def is_alive(self) -> bool:
        """Whether its process runs, or has ended with words that were not read yet."""
        return self.process is not None

    @property
    def descriptor(self) -> int:
        """What to wait on for messages."""
        return self._from_runner

    def start(self) -> None:
        """Spawn a runner: a fresh interpreter without database secrets, in a process group of its own.

        Raises:
            OSError: If none can be made; nothing is left open, and :attr:`start_after` says when to try again.
        """
        try:
            self._spawn()
        except OSError as error:
            self.failed_spawns += 1
            self.cannot_start = f"the runner of {self.name} cannot be started: {error.strerror or error}"
            self.start_after = time.monotonic() + _pause(self.failed_spawns)
            raise
        self.failed_spawns, self.cannot_start = 0, ""
        self.is_ready = self.was_ready = False
        self.runs = 0
        self.started_at = time.monotonic()

    def _spawn(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
            child_read, to_runner = _pipe(read=theirs, write=ours)
            from_runner, child_write = _pipe(read=ours, write=theirs)
            command = [sys.executable, "-m", self.runner, "--read", str(child_read), "--write", str(child_write)]
            command += ["--cache", str(self.cache), "--threads", str(self.place.threads)]
            log = theirs.enter_context(self.log.open("ab"))
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(child_read, child_write),
                env=environment_of(self.place),
                start_new_session=True,  # Ctrl-C goes to the supervisor alone
            )
            ours.pop_all()  # open for as long as the runner lives
        self._to_runner, self._from_runner = to_runner, from_runner
        self._reader = protocol.LineReader(from_runner)

    def read(self) -> None:
        """Take what the runner has said into the inbox; call when the descriptor is readable."""
        assert self._reader is not None
        self.inbox.extend(self._reader.read())
        if self.job is not None:
            now = time.monotonic()
            self.job.longest_silence = max(self.job.longest_silence, now - self.job.heard_at)
            self.job.heard_at = now

    @property
    def has_hung_up(self) -> bool:
        """Whether the runner closed its side: it has ended, and all its words are in the inbox."""
        return self._reader is not None and self._reader.is_closed

    def send(self, message: protocol.Message) -> None:
        """Say something to the runner; if it is gone, its end is noticed by the reader."""
        with contextlib.suppress(BrokenPipeError):
            protocol.send(self._to_runner, message)

    def kill(self) -> None:
        """End the runner and all that it started, now."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def reap(self) -> int:
        """Collect a runner that hung up; its exit status as :mod:`subprocess` gives it."""
        assert self.process is not None
        try:
            status = self.process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            self.kill()
            status = self.process.wait()
        self.kill()  # what it started may outlive it
        for descriptor in (self._to_runner, self._from_runner):
            os.close(descriptor)
        if not self.was_ready:
            self.failed_starts += 1
            self.start_after = time.monotonic() + _pause(self.failed_starts)
        self.process, self._reader, self.is_ready = None, None, False
        return status

    def renew(self) -> None:
        """Put a fresh runner into the place of one that is idle; it may be told at once what to do.

        Where none can be started the slot has none afterwards, and :attr:`cannot_start` says why.
        """
        if self.process is not None:
            self.kill()
            self.reap()
        with contextlib.suppress(OSError):
            self.start()

    def log_size(self) -> int:
        """Bytes in the log now."""
        try:
            return self.log.stat().st_size
        except OSError:
            return 0

    def log_tail(self, start: int = 0) -> str:
        """The last lines of the log from an offset on."""
        try:
            with self.log.open("rb") as log:
                _seek_near_end(log, start)
                lines = log.read().decode(errors="replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-LOG_TAIL_LINES:])


def _pipe(*, read: contextlib.ExitStack, write: contextlib.ExitStack) -> tuple[int, int]:
    """A pipe, each end of which is closed with what it is put on."""
    reading, writing = os.pipe()
    read.callback(os.close, reading)
    write.callback(os.close, writing)
    return reading, writing


def _pause(failures: int) -> float:
    """Seconds until the next try after so many failures in a row."""
    return min(_FIRST_BACKOFF * 2.0 ** min(failures - 1, 30), _LONGEST_BACKOFF)


def _seek_near_end(log: IO[bytes], start: int) -> None:
    size = log.seek(0, os.SEEK_END)
    log.seek(max(start, size - 64 * 1024))


def environment_of(place: SlotPlace) -> dict[str, str]:
    """The runner's environment: the supervisor's without database secrets, with its device and its threads."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_SECRET_PREFIXES)}
    threads = str(place.threads)
    environment |= {
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
        # Threads that spin while they wait take the cores from the other slots' threads.
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    if place.is_cpu:
        # Activations of a training step are freed and taken again at once: without these, glibc gives them back to the kernel each
        # time, and a step of a small model spends a tenth of its time on page faults.
        environment |= {
            "MALLOC_MMAP_THRESHOLD_": "4000000000",
            "MALLOC_TRIM_THRESHOLD_": "4000000000",
            "MALLOC_TOP_PAD_": "67108864",
        }
    environment["CUDA_VISIBLE_DEVICES"] = "" if place.is_cpu else place.device
    return environment


def describe_death(status: int, *, by_kernel: bool | None = None) -> str:
    """What an exit status says, for people.

    Args:
        status: As :mod:`subprocess` gives it.
        by_kernel: Whether the kernel killed a process for lack of memory meanwhile; None if it does not tell.
    """
    if status >= 0:
        return f"the runner exited with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    hint = ""
    if -status == signal.SIGKILL:
        hint = {
            True: ", by the kernel for lack of memory",
            False: ", from outside",
            None: ", perhaps by the kernel for lack of memory",
        }[by_kernel]
    return f"the runner was killed by {name}{hint}"
