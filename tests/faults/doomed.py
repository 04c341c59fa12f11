"""Processes that train or save and die just there: one that has loaded everything forks a child for each line it is told.

Told ``{"task": …, "die_at": …, …}`` on its standard input, it waits for the child and answers with its exit status and what it had
done. With ``die_at`` 0 nobody dies.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from tests.source_tree import ROOT

_EVENTS = frozenset(
    {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.listdir", "os.scandir", "open", "shutil.rmtree"}
)
_STEPS = 5  # into an epoch


def die() -> NoReturn:
    """As the kernel would have it."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


class Countdown:
    """Counts what a process does to the files below a folder, and ends the process before one of these steps."""

    def __init__(self, folder: str, *, die_at: int) -> None:
        self.done = 0
        self._folder = folder
        self._die_at = die_at
        self._is_on = True
        sys.addaudithook(self._hook)
        synced = os.fsync

        def fsync(descriptor: int) -> None:
            self.step()
            synced(descriptor)

        os.fsync = fsync  # type: ignore[assignment]

    def step(self) -> None:
        if self._is_on:
            self.done += 1
            if self.done == self._die_at:
                die()

    def stop(self) -> None:
        self._is_on = False

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._is_on and event in _EVENTS and arguments and str(arguments[0]).startswith(self._folder):
            self.step()


def _state(epoch: int, best: int) -> dict[str, Any]:
    return {"identity": "run", "best_epoch": best, "history": {"epochs": [{}] * epoch}, "scaler": {}}


def write(told: Mapping[str, Any]) -> int:
    """Save, finish or adopt; the number of steps it took."""
    import torch

    from tuner.training.checkpoint import Checkpoints

    checkpoints = Checkpoints(Path(told["folder"]))
    epoch, best = told["epoch"], told["best"]
    weights = {"w": torch.full((told["size"],), float(epoch))}
    countdown = Countdown(told["folder"], die_at=told["die_at"])
    match told["task"]:
        case "save":
            checkpoints.save(state=_state(epoch, best), weights=weights, optimizer={"m": weights["w"] * 2}, best=best)
        case "finish":
            checkpoints.finish(state=_state(epoch, best), weights=weights)
        case "adopt":
            checkpoints.adopt_newest(told["earlier"], identity="run")
    countdown.stop()
    return countdown.done


def train(told: Mapping[str, Any]) -> int:
    """Train a plan and write down what it reports, each line on the disk at once; die at an epoch's report or in an epoch."""
    from tuner.study.plan import TrialPlan, Verdict
    from tuner.training.run import run_trial

    plan = TrialPlan.from_json(told["plan"])
    begun = asked = 0

    def begin(epoch: int) -> None:
        nonlocal begun, asked
        begun, asked = epoch, 0

    def report(epoch: int, metrics: Mapping[str, float], _: float) -> Verdict:
        with Path(told["curve"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps([epoch, dict(metrics)]) + "\n")
        if epoch == told["die_at"] and told["where"] == "report":
            die()
        begin(epoch + 1)
        return Verdict.GO_ON

    def released() -> None:
        nonlocal asked
        asked += 1
        if (begun, asked) == (told["die_at"], _STEPS) and told["where"] == "epoch":
            die()

    result = run_trial(plan, report=report, started=lambda _: begin(1), released=released)
    Path(told["curve"]).with_suffix(".result").write_text(json.dumps(result.to_json()), encoding="utf-8")
    return result.epochs


TASKS: Mapping[str, Callable[[Mapping[str, Any]], int]] = {
    "save": write,
    "finish": write,
    "adopt": write,
    "train": train,
}


class Doomed:
    """Somebody to fork children from."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.doomed"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, task: str, *, die_at: int = 0, **told: Any) -> tuple[int, int]:
        """Do it in a child; the status of its end (negative: killed) and the steps or epochs that it did, 0 if it died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"task": task, "die_at": die_at, **told}) + "\n")
        self._process.stdin.flush()
        status, done = json.loads(self._process.stdout.readline())
        return status, done

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=30)


@contextmanager
def doomed() -> Iterator[Doomed]:
    """Somebody to fork children from, gone afterwards."""
    parent = Doomed()
    try:
        yield parent
    finally:
        parent.close()


def _fork(told: Mapping[str, Any]) -> tuple[int, int]:
    read, written = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.write(written, str(TASKS[told["task"]](told)).encode())
            status = 0
        finally:
            os._exit(status)
    os.close(written)
    _, status = os.waitpid(pid, 0)
    with os.fdopen(read) as pipe:
        done = pipe.read()
    return os.waitstatus_to_exitcode(status), int(done or 0)


def main() -> None:
    """Fork for every line."""
    import torch

    import tuner.training.run  # noqa: F401 - so that no child need load it

    torch.set_num_threads(1)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_fork(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
