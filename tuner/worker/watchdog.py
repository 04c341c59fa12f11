"""Runs that no longer move: told from slow ones by their own pace, and ended with a record of where they hung.

A runner says something at least every second while it moves: progress, or a pulse between two batches of its preparation. A step
that takes ten times as long as the longest silence that ended well is one that will not end (a data loader that waits for a dead
disk, a collective whose other side is gone).
"""

from __future__ import annotations

import contextlib
import os
import signal
import time

from tuner.worker.slot import Slot

_TIMES_LONGEST = 10.0
_DUMP_SECONDS = 5.0


def why_hung(slot: Slot, *, after: float) -> str:
    """Why a slot's run counts as hung; an empty string if it moves.

    Args:
        slot: A slot whose messages have just been read.
        after: Seconds of silence that are never held against a run.
    """
    job = slot.job
    if job is None or not slot.is_ready or job.kill_reason:
        return ""
    limit = max(after, _TIMES_LONGEST * job.longest_silence)
    silence = time.monotonic() - job.heard_at
    return f"it hung: no step for {silence:.0f} s" if silence > limit else ""


def end_hung(slot: Slot, *, reason: str) -> None:
    """Let the runner write down where it is, then kill it; its death is dealt with like any other.

    SIGABRT makes Python's faulthandler print the stack of every thread into the runner's log, also when the main thread
    is stuck in a call that never returns.
    """
    assert slot.job is not None
    if slot.process is None:
        return
    slot.job.kill_reason = reason
    with contextlib.suppress(ProcessLookupError):
        os.killpg(slot.process.pid, signal.SIGCONT)
        os.kill(slot.process.pid, signal.SIGABRT)
    deadline = time.monotonic() + _DUMP_SECONDS
    while slot.process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    slot.kill()
