"""A runner whose training is a formula: everything around it (pipes, process, plan, checkpoints' folders) is the real one.

Run by a supervisor as ``python -m tests.faults.toy_training``. It starts in a fraction of a second, so that a test can kill
hundreds of them.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.study.plan import TrialPlan, TrialResult, Verdict
from tuner.training import sealed
from tuner.worker.runner import Runner, read_options

EPOCH_SECONDS = 0.15
DIES_BEFORE_RENAME = "TOY_DIES_BEFORE_RENAME"
"""Set in a worker's environment: it and its runner end when a checkpoint is written and not yet to be seen."""

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
    done = _adopt_newest(folder, plan.resume_from)
    started({"trainable_params": 1, "device": "toy"})
    for epoch in range(1, done):
        recall(epoch, {plan.spec.lead.metric: quality(plan.params, epoch)})
    verdict = Verdict.GO_ON
    for epoch in range(max(done, 1), plan.spec.training.epochs + 1):
        _misbehave(plan, epoch, released=released)
        if epoch > done:
            time.sleep(random.uniform(0.5, 1.5) * EPOCH_SECONDS)
            _save(folder, epoch)
        verdict = released() or report(
            epoch, {plan.spec.lead.metric: quality(plan.params, epoch)}, time.perf_counter() - begin
        )
        if verdict is not Verdict.GO_ON:
            break
    if verdict is Verdict.PRUNE:
        sealed.remove(folder)
    return TrialResult(
        ended_by="epochs" if verdict is Verdict.GO_ON else verdict.value,
        epochs=epoch,
        best_epoch=epoch,
        metrics={plan.spec.lead.metric: quality(plan.params, epoch)},
        trainable_params=1,
        total_params=1,
        peak_memory=1,
        seconds=time.perf_counter() - begin,
        device="toy",
        checkpoint=str(_path(folder, epoch)) if verdict is Verdict.GO_ON else "",
    )


def _misbehave(plan: TrialPlan, epoch: int, *, released: Callable[[], Verdict | None]) -> None:
    """What the study's name asks for; but for poison and deafness in the trials' first attempts only."""
    earlier = len(plan.resume_from)
    name, _, seconds = plan.spec.name.partition("-for-")
    if (
        name == "deaf" and epoch == earlier + 2
    ):  # it does not hear that it should stop; each attempt gets one epoch further
        time.sleep(float(seconds))
    if epoch != 2:
        return
    if is_poison(name, plan.number, plan.params):
        os.abort()
    if name == "hangs" and not earlier:
        time.sleep(10_000)
    if name == "crawls" and not earlier:  # slow, and says so between its batches
        for _ in range(60):
            time.sleep(0.1)
            released()


def _adopt_newest(folder: Path, earlier: Sequence[str]) -> int:
    """Copy the last whole checkpoint of earlier attempts; its epoch, 0 if there is none."""
    found = [path for attempt in earlier for path in Path(attempt).glob("epoch-*")]
    for path in sorted(found, key=lambda path: path.name, reverse=True):
        with contextlib.suppress(OSError, ValueError):
            sealed.check_seal(path)
            copy = sealed.temporary(folder / path.name)
            shutil.copytree(path, copy)
            sealed.publish(copy, folder / path.name)
            return int(path.name.removeprefix("epoch-"))
    return 0


def _path(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch:04d}"


def _save(folder: Path, epoch: int) -> None:
    """As :class:`tuner.training.checkpoint.Checkpoints` does it; the last two are kept."""
    path = _path(folder, epoch)
    writing = sealed.temporary(path)
    writing.mkdir()
    sealed.write_json(writing / "state.json", {"epochs": epoch, "weights": [random.random() for _ in range(1000)]})
    sealed.seal(writing)
    if DIES_BEFORE_RENAME in os.environ and epoch > 1:
        for pid in (os.getppid(), os.getpid()):
            os.kill(pid, signal.SIGKILL)
    sealed.publish(writing, path)
    for earlier in folder.iterdir():
        if earlier.name.startswith((sealed.WRITING, sealed.REMOVING)) or earlier.name < _path(folder, epoch - 1).name:
            sealed.remove(earlier)


if __name__ == "__main__":
    options = read_options()
    Runner(read=options.read, write=options.write, cache=options.cache, train=run_trial).serve()
