"""A runner that finds no room in the first attempts of some trials, each in another way."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from tuner.errors import PlaceError
from tuner.study.plan import TrialPlan, TrialResult, Verdict
from tuner.worker.runner import Runner, read_options

COMPLETE, CHECKPOINT, CACHE, COPIES, STORE = range(5)


def run_trial(
    plan: TrialPlan, *, report: Callable[[int, Mapping[str, float], float], Verdict], **_: object
) -> TrialResult:
    """Do what the trial's number asks for."""
    place = Path(plan.checkpoint_dir)
    if not plan.resume_from:
        _run_out(plan.number, place)
    (place / "final").mkdir(parents=True)
    metrics = {plan.spec.lead.metric: 0.5}
    report(1, metrics, 0.1)
    return TrialResult(
        ended_by="epochs",
        epochs=1,
        best_epoch=1,
        metrics=metrics,
        trainable_params=1,
        total_params=1,
        peak_memory=1,
        seconds=0.1,
        device="toy",
        checkpoint=str(place / "final"),
    )


def _run_out(number: int, place: Path) -> None:
    match number:
        case n if n == CHECKPOINT:
            raise PlaceError(
                f"disk full: no room for a checkpoint of 3.0 MiB in {place}", place=str(place), needed=3 << 20
            )
        case n if n == CACHE:
            raise OSError(errno.ENOSPC, "No space left on device", str(place.parent / "cache" / "tokens"))
        case n if n == COPIES:
            raise shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")])
        case n if n == STORE:
            raise PlaceError("s3://bucket cannot be written", why="it does not answer", place=str(place))


if __name__ == "__main__":
    options = read_options()
    Runner(read=options.read, write=options.write, cache=options.cache, train=run_trial).serve()
