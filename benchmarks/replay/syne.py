"""Syne Tune's searches, which need other versions of their libraries than ours: they run in an environment of their own.

python -m venv syne && syne/bin/pip install "syne-tune[gpsearchers]==0.13.0" statsmodels
python benchmarks/search_quality.py --syne syne/bin/python
"""

from __future__ import annotations

import json
import subprocess
import weakref
from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.replay.simulator import Job
from tuner.store.records import Outcome
from tuner.study.domains import Range
from tuner.study.plan import Verdict

_CHILD = Path(__file__).with_name("syne_child.py")
_VERDICTS = {"CONTINUE": Verdict.GO_ON, "PAUSE": Verdict.RELEASE, "STOP": Verdict.PRUNE}
_VERSION = "import importlib.metadata as m; import syne_tune.optimizer.baselines; print(m.version('syne-tune'))"


@cache
def syne_version(python: Path | None) -> str:
    """The version in an environment; empty if there is none.

    Args:
        python: The environment's interpreter.
    """
    if python is None or not python.exists():
        return ""
    asked = subprocess.run([str(python), "-c", _VERSION], capture_output=True, text=True, check=False)
    return asked.stdout.split()[-1] if asked.returncode == 0 else ""


class SyneSearch:
    """A scheduler in a process of its own."""

    def __init__(self, python: Path, *, method: str, knobs: Mapping[str, Range], epochs: int, seed: int) -> None:
        """Start the process.

        Args:
            python: Interpreter of the environment that has Syne Tune.
            method: Class of ``syne_tune.optimizer.baselines``.
            knobs: What is searched.
            epochs: Of a full training.
            seed: Of the scheduler.
        """
        self._epochs, self._running = epochs, set[int]()
        self._child = subprocess.Popen(
            [str(python), str(_CHILD)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={"OMP_NUM_THREADS": "1", "PATH": ""},
        )
        weakref.finalize(self, _close, self._child)
        self._say(
            op="start",
            method=method,
            knobs={name: asdict(knob) for name, knob in knobs.items()},
            epochs=epochs,
            seed=seed,
        )

    def ask(self) -> Job | None:
        """A new trial, or one that goes on from its checkpoint."""
        answer = self._say(op="ask")
        return None if answer is None else Job(**answer)

    def report(self, trial: int, *, epoch: int, score: float) -> Verdict:
        """What the scheduler says; it hears of the last epoch when the trial ends."""
        if epoch == self._epochs:
            return Verdict.GO_ON
        return _VERDICTS[self._say(op="report", trial=trial, epoch=epoch, score=score)]

    def end(self, trial: int, *, outcome: Outcome, score: float | None) -> None:
        """A trial came to its last epoch, diverged, or was stopped, which the scheduler knows."""
        self._say(op="end", trial=trial, outcome=outcome.value, epoch=self._epochs, score=score)

    def _say(self, **message: Any) -> Any:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(json.dumps(message) + "\n")
        self._child.stdin.flush()
        line = self._child.stdout.readline()
        if not line:
            raise RuntimeError(f"Syne Tune's process ended with {self._child.wait()} at {message['op']}")
        return json.loads(line)


def _close(child: subprocess.Popen[str]) -> None:
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()
    child.wait()
