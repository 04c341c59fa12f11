"""How a worker is started."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tuner.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerOptions:
    """One supervisor's settings.

    Attributes:
        storage: Database URL.
        files: Folder for logs, caches and, unless they have a place of their own, checkpoints.
        checkpoints: Folder or URL for checkpoints; shared by all boxes that should resume each other's trials. Empty: in
            ``files``.
        studies: Names of the studies to serve; empty: every open study.
        devices: ``auto`` (all GPUs, else the CPU), ``cpu``, or a list such as ``cuda:0,1``.
        per_device: Slots on each device.
        until_done: Exit when the served studies are finished.
        max_trials: Exit after this many runs.
        lease: Seconds a run stays ours without a heartbeat.
        heartbeat: Seconds between two heartbeats.
        hang_after: Seconds of silence of a runner that are never held against it.
        outage: Seconds for which a database that is gone is waited for.
        allow_skew: Serve studies that other code made, too, and those whose rows are others here than those of their first trial.
        runner: The module that trains, run as a child process for each slot.
        checker: The module that checks a device, likewise.

    Raises:
        UsageError: If the lease is shorter than three heartbeats, or a count is below one.
    """

    storage: str
    files: Path
    checkpoints: str = ""
    studies: tuple[str, ...] = ()
    devices: str = "auto"
    per_device: int = 1
    until_done: bool = False
    max_trials: int | None = None
    lease: float = 90.0
    heartbeat: float = 15.0
    hang_after: float = 300.0
    outage: float = 900.0
    allow_skew: bool = False
    runner: str = "tuner.worker.runner"
    checker: str = "tuner.training.device_check"

    @property
    def checkpoint_place(self) -> str:
        """Folder or URL for checkpoints."""
        return self.checkpoints or str(self.files / "checkpoints")

    def __post_init__(self) -> None:
        if self.lease < 3 * self.heartbeat:
            raise UsageError(
                f"lease {self.lease:g} s must be at least 3 x heartbeat {self.heartbeat:g} s",
                fix="raise --lease or lower --heartbeat",
            )
        if self.hang_after <= 0 or self.outage < 0:
            raise UsageError(
                f"--hang-after must be above 0 and --outage not below, got {self.hang_after:g} and {self.outage:g}"
            )
        if self.per_device < 1:
            raise UsageError(f"--per-device must be at least 1, got {self.per_device}")
        if self.max_trials is not None and self.max_trials < 1:
            raise UsageError(f"--max-trials must be at least 1, got {self.max_trials}")
