"""A runner of a formula whose memory runs out, or whose device fails: the study's name says how.

Run by a supervisor as ``python -m tests.faults.short_training``; everything around the formula is the real one. What happened in
which process is written beside the checkpoints.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.faults.toy_training import quality
from tuner.errors import TrialOutOfMemory
from tuner.study.plan import TrialPlan, TrialResult, Verdict
from tuner.training import memory
from tuner.worker.runner import Runner, read_options

MIB = 2**20
LEAK = 48 * MIB
TRACE = "trace.jsonl"
KILLS = "kills"
"""Where the tests' kernel counts its kills."""

BROKEN = "broken"
"""While a file of this name is there, the device is broken."""

memory._BEYOND = 64 * MIB
_kept: list[bytearray] = []


def folder_of(plan: TrialPlan) -> Path:
    """Where all files of a worker are."""
    return Path(plan.checkpoint_dir).parents[3]


def run_trial(
    plan: TrialPlan,
    *,
    report: Callable[[int, Mapping[str, float], float], Verdict],
    fitted: Callable[[int], None],
    **_: object,
) -> TrialResult:
    """Two epochs, with what the study brings in between."""
    metric = plan.spec.lead.metric
    line = {
        "number": plan.number,
        "pid": os.getpid(),
        "micro_batch": plan.micro_batch,
        "resumes": bool(plan.resume_from),
    }
    with (folder_of(plan) / TRACE).open("a", encoding="utf-8") as trace:
        trace.write(json.dumps(line) + "\n")
    for epoch in (1, 2):
        if report(epoch, {metric: quality(plan.params, epoch)}, 0.1) is not Verdict.GO_ON:
            raise AssertionError("nobody prunes or stops these runs")
        if epoch == 1:
            _misbehave(plan, fitted=fitted)
    values: dict[str, Any] = {
        "trainable_params": 1,
        "total_params": 1,
        "peak_memory": 1,
        "seconds": 0.1,
        "device": "toy",
    }
    return TrialResult(ended_by="epochs", epochs=2, best_epoch=2, metrics={metric: quality(plan.params, 2)}, **values)


def _misbehave(plan: TrialPlan, *, fitted: Callable[[int], None]) -> None:
    is_first = not plan.resume_from
    folder = folder_of(plan)
    match plan.spec.name:
        case "kernel" | "outside" if is_first:
            if plan.spec.name == "kernel":
                kills = int((folder / KILLS).read_text().split()[1])
                (folder / KILLS).write_text(f"oom_kill {kills + 1}\n")
            os.kill(os.getpid(), signal.SIGKILL)
        case "halves" if not plan.micro_batch:
            fitted(4)
        case "short" if is_first:
            raise TrialOutOfMemory("out of memory on toy with 1 row")
        case "half" if is_first and not plan.number % 2:
            raise TrialOutOfMemory("out of memory on toy with 1 row")
        case "shorter":
            raise TrialOutOfMemory("out of memory on toy with 1 row")
        case "asserts" if is_first and plan.number % 2:
            raise RuntimeError("CUDA error: device-side assert triggered")
        case "broken" if (folder / BROKEN).exists():
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        case "dies" if (folder / BROKEN).exists():
            os.abort()
        case "leaks":
            _kept.append(bytearray(b"x") * LEAK)


if __name__ == "__main__":
    options = read_options()
    Runner(read=options.read, write=options.write, cache=options.cache, train=run_trial, device="toy, 1 GiB").serve()
