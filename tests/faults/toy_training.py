"""A runner whose training is a formula: everything around it (pipes, process, plan, checkpoints' folders) is the real one.

Run by a supervisor as ``python -m tests.faults.toy_training``. It starts in a fraction of a second, so that a test can kill
hundreds of them.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tuner.study.plan import TrialPlan, TrialResult, Verdict
from tuner.worker.runner import Runner, read_options

EPOCH_SECONDS = 0.15
POISON_ABOVE, PLAGUE_FROM = 2e-3, 3


def quality(params: Mapping[str, Any], epoch: int) -> float:
    """A smooth objective of the learning rate that grows with every epoch; the same whoever computes it."""
    return math.exp(-abs(math.log10(float(params["learning_rate"]) / 1e-3))) * (1.0 - 0.5**epoch)


def is_poison(study: str, number: int, params: Mapping[str, Any]) -> bool:
    """Whether a trial ends every process that trains it: some of ``poison``, and from a number on all of ``plague``."""
    if study == "plague":
        return number >= PLAGUE_FROM
    return study == "poison" and float(params["learning_rate"]) > POISON_ABOVE


def run_trial(
    plan: TrialPlan,
    *,
    report: Callable[[int, Mapping[str, float], float], Verdict],
    released: Callable[[], Verdict | None],
    started: Callable[[Mapping[str, Any]], None],
    recall: Callable[[int, Mapping[str, float]], None],
    **_: object,
) -> TrialResult:
    """Report every epoch's quality, keep a checkpoint of each, go on from the newest one."""
    begin = time.perf_counter()
    folder = Path(plan.checkpoint_dir)
    done = max((_epochs_in(Path(earlier)) for earlier in plan.resume_from), default=0)
    started({"trainable_params": 1, "device": "toy"})
    for epoch in range(1, done):
        recall(epoch, {plan.spec.objective.metric: quality(plan.params, epoch)})
    verdict = Verdict.GO_ON
    for epoch in range(max(done, 1), plan.spec.training.epochs + 1):
        _misbehave(plan, epoch, released=released)
        if epoch > done:
            time.sleep(random.uniform(0.5, 1.5) * EPOCH_SECONDS)
            _save(folder, epoch)
        verdict = released() or report(
            epoch, {plan.spec.objective.metric: quality(plan.params, epoch)}, time.perf_counter() - begin
        )
        if verdict is not Verdict.GO_ON:
            break
    if verdict is Verdict.PRUNE:
        shutil.rmtree(folder, ignore_errors=True)
    return TrialResult(
        ended_by="epochs" if verdict is Verdict.GO_ON else verdict.value,
        epochs=epoch,
        best_epoch=epoch,
        metrics={plan.spec.objective.metric: quality(plan.params, epoch)},
        trainable_params=1,
        total_params=1,
        peak_memory=1,
        seconds=time.perf_counter() - begin,
        device="toy",
        checkpoint=str(folder / "state.json") if verdict is Verdict.GO_ON else "",
    )


def _misbehave(plan: TrialPlan, epoch: int, *, released: Callable[[], Verdict | None]) -> None:
    """What the study's name asks for, in the second epoch; but for poison only of the trials' first attempts."""
    if epoch != 2:
        return
    if is_poison(plan.spec.name, plan.number, plan.params):
        os.abort()
    if plan.resume_from:
        return
    if plan.spec.name == "deaf":  # it does not hear that it should stop
        time.sleep(10_000)
    if plan.spec.name == "hangs":
        time.sleep(10_000)
    if plan.spec.name == "crawls":  # slow, and says so between its batches
        for _ in range(60):
            time.sleep(0.1)
            released()


def _epochs_in(folder: Path) -> int:
    try:
        return int(json.loads((folder / "state.json").read_text())["epochs"])
    except (OSError, ValueError):
        return 0


def _save(folder: Path, epoch: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".state-{os.getpid()}"
    temporary.write_text(json.dumps({"epochs": epoch}))
    temporary.rename(folder / "state.json")


if __name__ == "__main__":
    options = read_options()
    Runner(read=options.read, write=options.write, cache=options.cache, train=run_trial).serve()
