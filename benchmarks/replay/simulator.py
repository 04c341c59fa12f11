"""Asynchronous workers on a simulated clock.

Every epoch is an event: its report, the decision whether the trial goes on, and its end happen at their simulated instant, in
order with those of the other workers. A search that is asked at an instant knows what was reported before it and nothing else.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from benchmarks.replay.tables import Curve
from tuner.store.records import Outcome
from tuner.study.domains import Value
from tuner.study.plan import Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What a worker does next.

    Attributes:
        trial: The trial's number.
        values: Its configuration, in raw units.
        epochs_done: Epochs that it has behind it; it goes on from its checkpoint.
    """

    trial: int
    values: Mapping[str, Value]
    epochs_done: int = 0


class Search(Protocol):
    """What is replayed."""

    def ask(self) -> Job | None:
        """What to train next; None if there is nothing to do now."""

    def report(self, trial: int, *, epoch: int, score: float) -> Verdict:
        """Hear a trial's score after an epoch that is not its last: GO_ON, PRUNE, or RELEASE to pause it."""

    def end(self, trial: int, *, outcome: Outcome, score: float | None) -> None:
        """Hear that a trial ended: COMPLETE, PRUNED or DIVERGED; with the score that it ended with, if any."""


class Trainings(Protocol):
    """What a configuration's training shows."""

    def curve(self, values: Mapping[str, Value]) -> Curve:
        """The curve of a configuration."""


@dataclass(kw_only=True)
class Trace:
    """What a replay showed.

    Attributes:
        instants: Simulated seconds of each improvement, ascending.
        best: The best validation score so far, from that instant on.
        test: The test score of the same checkpoint.
        trials: Trials started.
        distinct: Distinct recorded configurations among them, where none is interpolated.
        completed: Trials trained to the end.
    """

    instants: list[float] = field(default_factory=list)
    best: list[float] = field(default_factory=list)
    test: list[float] = field(default_factory=list)
    trials: int = 0
    distinct: int = 0
    completed: int = 0

    def best_at(self, instant: float) -> float | None:
        """The best score that was known at an instant; None before the first."""
        return _last_until(self.instants, self.best, instant)

    def test_at(self, instant: float) -> float | None:
        """The test score of the best that was known at an instant; None before the first."""
        return _last_until(self.instants, self.test, instant)


def _last_until(instants: Sequence[float], values: Sequence[float], instant: float) -> float | None:
    known = int(np.searchsorted(np.asarray(instants), instant, side="right"))
    return values[known - 1] if known else None


@dataclass(kw_only=True)
class _Run:
    """A trial on a worker."""

    job: Job
    curve: Curve
    epoch: int


def replay(search: Search, trainings: Trainings, *, workers: int, seconds: float) -> Trace:
    """Run a search until the clock stands at ``seconds``.

    Args:
        search: Fresh.
        trainings: Answers what a training shows.
        workers: Simulated workers, all there from the start.
        seconds: Simulated wall-clock seconds; what would end later never ends.
    """
    trace, rows = Trace(), set()
    events: list[tuple[float, int, _Run]] = []
    order = itertools.count()  # ties are settled by who began first
    idle = workers
    now = 0.0
    while True:
        while idle and (job := search.ask()) is not None:
            curve = trainings.curve(job.values)
            rows.add(curve.row if curve.row >= 0 else -1 - job.trial)
            trace.trials += job.epochs_done == 0
            idle -= 1
            run = _Run(job=job, curve=curve, epoch=job.epochs_done + 1)
            heapq.heappush(events, (now + _duration(run), next(order), run))
        if not events or events[0][0] > seconds:
            trace.distinct = len(rows)
            return trace
        now, _, run = heapq.heappop(events)
        if _advance(search, run, trace, now=now):
            heapq.heappush(events, (now + _duration(run), next(order), run))
        else:
            idle += 1


def _duration(run: _Run) -> float:
    before = run.curve.seconds[run.epoch - 2] if run.epoch > 1 else 0.0
    return float(run.curve.seconds[run.epoch - 1] - before)


def _advance(search: Search, run: _Run, trace: Trace, *, now: float) -> bool:
    """Report the epoch that ends now; whether the run goes on, with its next epoch."""
    score, trial = float(run.curve.scores[run.epoch - 1]), run.job.trial
    if not np.isfinite(score):
        search.end(trial, outcome=Outcome.DIVERGED, score=None)
        return False
    if not trace.best or score > trace.best[-1]:
        trace.instants.append(now)
        trace.best.append(score)
        trace.test.append(float(run.curve.test[run.epoch - 1]))
    verdict = search.report(trial, epoch=run.epoch, score=score)
    if run.epoch == len(run.curve.scores):
        trace.completed += 1
        search.end(trial, outcome=Outcome.COMPLETE, score=score)
        return False
    if verdict is Verdict.PRUNE:
        search.end(trial, outcome=Outcome.PRUNED, score=score)
    run.epoch += 1
    return verdict is Verdict.GO_ON
