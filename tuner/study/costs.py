"""What a trial costs, under the names by which study files, records and documents know it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class CostInfo:
    """One cost that may be an objective or have a bound. Less of it is better.

    Attributes:
        help: One line for people.
        units: What one of each unit is worth in the cost's own; the cost's own has none.
        is_known_at_start: Whether it is known before anything is trained.
    """

    help: str
    units: Mapping[str, float]
    is_known_at_start: bool = False


_BYTES = {
    "B": 1.0,
    **{f"{prefix}B": 1000.0**power for power, prefix in enumerate("kMGT", start=1)},
    **{f"{prefix}iB": 1024.0**power for power, prefix in enumerate("KMGT", start=1)},
}

COSTS: Mapping[str, CostInfo] = {
    "trainable_params": CostInfo(
        help="parameters that are ever trained", units={"k": 1e3, "M": 1e6, "G": 1e9}, is_known_at_start=True
    ),
    "seconds": CostInfo(
        help="device seconds of the trial, without what an attempt that died had lost",
        units={"s": 1.0, "min": 60.0, "h": 3600.0},
    ),
    "peak_memory": CostInfo(help="bytes at most on the device, or of the process on a CPU", units=_BYTES),
}
"""All of them only grow while a trial runs: what is above its bound once stays there."""
