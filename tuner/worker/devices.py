"""Which devices a box has, asked without torch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tuner.errors import UnavailableError, UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class SlotPlace:
    """Where one runner lives.

    Attributes:
        name: Such as ``cuda:0/1``: the second share of the first GPU; or ``cpu/0``.
        device: ``cpu``, or what ``CUDA_VISIBLE_DEVICES`` shall hold for this runner: an index or a UUID.
        threads: CPU threads of the runner.
        shares: Slots on this device.
    """

    name: str
    device: str
    threads: int
    shares: int = 1

    @property
    def is_cpu(self) -> bool:
        """Whether it computes on the CPU."""
        return self.device == "cpu"


def find_slots(devices: str, *, per_device: int) -> list[SlotPlace]:
    """The slots of this box.

    Each has its share of the cores as threads, or as many as ``OMP_NUM_THREADS`` says where that is fewer.

    Args:
        devices: ``auto`` (all visible GPUs, else the CPU), ``cpu``, or ``cuda:0,1``.
        per_device: Slots on each device.

    Raises:
        UsageError: If the text is none of these.
        UnavailableError: If a named GPU is not there.
    """
    names = _chosen(devices)
    threads = _threads(len(names) * per_device)
    return [
        SlotPlace(
            name=f"{'cpu' if name == 'cpu' else f'cuda:{name}'}/{share}",
            device=name,
            threads=threads,
            shares=per_device,
        )
        for name in names
        for share in range(per_device)
    ]


def _threads(slots: int) -> int:
    share = max(1, len(os.sched_getaffinity(0)) // slots)
    asked = os.environ.get("OMP_NUM_THREADS", "")  # may also be a list, for nested loops
    return min(share, int(asked)) if asked.isdecimal() and int(asked) > 0 else share


def _chosen(devices: str) -> list[str]:
    if devices == "cpu":
        return ["cpu"]
    gpus = visible_gpus()
    if devices == "auto":
        return gpus or ["cpu"]
    listed = re.fullmatch(r"cuda(?::(\d+(?:,\d+)*))?", devices)
    if listed is None:
        raise UsageError(f'--devices: auto, cpu or cuda:0,1 expected, got "{devices}"')
    if not gpus:
        shown = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = f'CUDA_VISIBLE_DEVICES="{shown}"' if shown is not None else "no NVIDIA GPU was found on this host"
        raise UnavailableError("no CUDA device visible", why=why, fix="--devices cpu to run on the CPU")
    wanted = listed[1].split(",") if listed[1] else [str(index) for index in range(len(gpus))]
    beyond = [index for index in wanted if int(index) >= len(gpus)]
    if beyond:
        raise UnavailableError(
            f"no device cuda:{beyond[0]}",
            why=f"this host shows {len(gpus)}: 0 to {len(gpus) - 1}",
            fix="name one of them",
        )
    return [gpus[int(index)] for index in wanted]


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as entries of ``CUDA_VISIBLE_DEVICES``; empty without any."""
    present = _present_gpus()
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not present or shown is None:
        return present
    # CUDA itself stops at the first entry that it does not know.
    return [entry.strip() for entry in shown.split(",") if entry.strip() and entry.strip() != "-1"]


def _present_gpus() -> list[str]:
    tool = shutil.which("nvidia-smi")
    if tool is not None:
        listing = subprocess.run(
            [tool, "--query-gpu=index", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if listing.returncode == 0:
            return [line.strip() for line in listing.stdout.splitlines() if line.strip()]
    return [str(index) for index, _ in enumerate(sorted(Path("/dev").glob("nvidia[0-9]*")))]
