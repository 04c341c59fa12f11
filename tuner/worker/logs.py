"""Where runners write what they say besides their reports."""

from __future__ import annotations

from pathlib import Path


def log_file(files: Path, *, worker: str, slot: str) -> Path:
    """The log of one slot's runners, on the box where they run.

    Args:
        files: The worker's folder for checkpoints, logs and caches.
        worker: The worker's id.
        slot: Which device share, such as ``cuda:0/1``.
    """
    return files / "logs" / worker / f"{slot.replace('/', '-').replace(':', '-')}.log"
