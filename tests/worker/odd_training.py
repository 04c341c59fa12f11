"""A runner whose trials end in every way there is: the trial's number says how.

Run by a supervisor as ``python -m tests.worker.odd_training``.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tuner.errors import TrialDiverged, TrialInfeasible
from tuner.study.plan import TrialPlan, TrialResult, Verdict
from tuner.worker.runner import Runner, read_options

(
    COMPLETE,
    INFEASIBLE,
    DIVERGED,
    BUG,
    ONE_FAULT,
    FAULTS,
    ABORTS,
    ONE_ABORT,
    NAN_REPORT,
    NAN_RESULT,
    NAN_BESIDE,
    NO_METRIC,
) = range(12)


def run_trial(
    plan: TrialPlan,
    *,
    report: Callable[[int, Mapping[str, float], float], Verdict],
    started: Callable[[Mapping[str, object]], None],
    **_: object,
) -> TrialResult:
    """One epoch, with what the trial's number brings."""
    started({"trainable_params": 1, "device": "toy"})
    metric, number = plan.spec.lead.metric, plan.number
    folder = Path(plan.checkpoint_dir)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights").write_text("weights", encoding="utf-8")
    sys.stdout.write(f"trial {number} is about to begin\n")
    sys.stdout.flush()
    _misbehave(number, is_first=not plan.resume_from)
    metrics = {metric: 0.5 + 0.01 * number, "loss": float("inf") if number == NAN_BESIDE else 0.5}
    if number == NAN_REPORT:
        metrics[metric] = float("nan")
    if number == NO_METRIC:
        del metrics[metric]
    verdict = report(1, metrics, 0.1)
    if number == NAN_RESULT:
        metrics[metric] = float("inf")
    return TrialResult(
        ended_by="epochs" if verdict is Verdict.GO_ON else verdict.value,
        epochs=1,
        best_epoch=1,
        metrics=metrics,
        trainable_params=1,
        total_params=1,
        peak_memory=1,
        seconds=0.1,
        device="toy",
        checkpoint=str(folder) if number == COMPLETE else "",
    )


def _misbehave(number: int, *, is_first: bool) -> None:
    if number == INFEASIBLE:
        raise TrialInfeasible("out of memory on toy with 1 row")
    if number == DIVERGED:
        raise TrialDiverged("loss or gradient became non-finite in epoch 1, step 7")
    if number == BUG:
        raise KeyError("text")
    if number == FAULTS or (number == ONE_FAULT and is_first):
        raise OSError(errno.EIO, "Input/output error", "/data/rows.csv")
    if number == ABORTS or (number == ONE_ABORT and is_first):
        os.abort()


if __name__ == "__main__":
    options = read_options()
    Runner(read=options.read, write=options.write, cache=options.cache, train=run_trial).serve()
