"""How often does the forecast of a study that runs hold the truth, and how wide is it? Looks at replayed searches.

    python benchmarks/outlooks.py
    python benchmarks/outlooks.py --first-seed 10 --json figures.json

Our own search runs against recorded learning curves, as in ``search_quality.py``, until its trials are used up. A study as the store
would have had it is then cut at moments spread evenly over its time, and what is foreseen from it is compared with what came. Half of the
replays are as recorded; in the others each worker's first trial loads for half a training longer, and neighbours make the box up to twice as slow.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a script, the repository is not on the path

from benchmarks.replay.judged import JudgedSearch
from benchmarks.replay.methods import RECIPES, Setting
from benchmarks.replay.own import load_table
from benchmarks.replay.simulator import Job, replay
from benchmarks.replay.tables import Curve, Task
from tuner.report.outlook import foresee_end
from tuner.store.records import (
    AttemptRecord,
    BudgetUse,
    EpochRecord,
    Outcome,
    StudyRecord,
    StudySnapshot,
    StudyState,
    TrialRecord,
)
from tuner.study.domains import Value
from tuner.study.outlook import Outlook, Span
from tuner.study.plan import Verdict
from tuner.study.space import SearchSpace
from tuner.study.spec import StudySpec

TABLES = ("strategies", "lcbench")
LOOKS = 20
"""Moments at which a study is looked at."""

PARTS = ((0.15, "the first 15 %"), (0.4, "until 40 %"), (1.0, "the rest"))
"""Of a study's time, up to where, in words."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A study that is replayed.

    Attributes:
        workers: Slots.
        trials: The budget.
        pruner: Whether losers are stopped.
        is_rough: Whether first trials load longer and the box has neighbours.
    """

    workers: int
    trials: int
    pruner: str
    is_rough: bool


CASES = (
    Case(workers=1, trials=16, pruner="auto", is_rough=False),
    Case(workers=1, trials=40, pruner="auto", is_rough=True),
    Case(workers=4, trials=40, pruner="auto", is_rough=False),
    Case(workers=4, trials=40, pruner="auto", is_rough=True),
    Case(workers=2, trials=30, pruner="none", is_rough=True),
)


class Recorded:
    """A search that notes when each trial began, reported and ended, and lets each training take its time."""

    def __init__(self, search: JudgedSearch, *, task: Task, case: Case, seed: int) -> None:
        """Wrap a fresh search."""
        self._search, self._task, self._case = search, task, case
        self._random = np.random.default_rng(seed)
        self._slowness = 0.0
        self.now = 0.0
        self.jobs: list[Job] = []
        self.starts: list[float] = []
        self.curves: list[Curve] = []
        self.ends: dict[int, tuple[float, int, Outcome]] = {}

    def ask(self) -> Job | None:
        """The next trial, while there are any."""
        if len(self.jobs) == self._case.trials:
            return None
        self.jobs.append(self._search.ask())
        self.starts.append(self.now)
        return self.jobs[-1]

    def curve(self, values: Mapping[str, Value]) -> Curve:
        """The nearest recorded curve, as long as it takes here and now."""
        row = int(((self._task.units - self._task.unit(values)) ** 2).sum(axis=1).argmin())
        seconds = self._task.seconds[row]
        if self._case.is_rough:
            self._slowness = 0.7 * self._slowness + 0.25 * self._random.standard_normal()
            loading = 0.5 * self._task.full_training if len(self.jobs) <= self._case.workers else 0.0
            seconds = loading + seconds * np.exp(self._slowness)
        found = Curve(scores=self._task.scores[row], test=self._task.test[row], seconds=seconds, row=row)
        self.curves.append(found)
        return found

    def report(self, trial: int, *, epoch: int, score: float) -> Verdict:
        """Hear a score and pass it on."""
        self.now = self.starts[trial] + float(self.curves[trial].seconds[epoch - 1])
        self.ends[trial] = (self.now, epoch, Outcome.RUNNING)
        return self._search.report(trial, epoch=epoch, score=score)

    def end(self, trial: int, *, outcome: Outcome, score: float | None) -> None:
        """Hear an end and pass it on."""
        epochs = self.ends[trial][1] if trial in self.ends else 0
        if outcome is Outcome.DIVERGED:
            self.now = self.starts[trial] + float(self.curves[trial].seconds[epochs])
        self.ends[trial] = (self.now, epochs, outcome)
        self._search.end(trial, outcome=outcome, score=score)

    def trials_at(self, instant: float, *, recipes: int) -> tuple[TrialRecord, ...]:
        """The trials as the store would have had them at an instant."""
        return tuple(
            self._trial(number, instant, is_recipe=number < recipes)
            for number, start in enumerate(self.starts)
            if start < instant
        )

    def _trial(self, number: int, instant: float, *, is_recipe: bool) -> TrialRecord:
        start, (end, epochs, outcome) = self.starts[number], self.ends[number]
        seconds = self.curves[number].seconds
        is_over = end <= instant
        attempt = AttemptRecord(
            attempt=1,
            worker="replayed",
            host="replayed",
            slot="cpu/0",
            outcome=outcome if is_over else Outcome.RUNNING,
            reason="",
            started_at=start,
            ended_at=end if is_over else None,
            seconds=min(end, instant) - start,
        )
        return TrialRecord(
            number=number,
            outcome=attempt.outcome,
            reason="",
            strategy=str(self.jobs[number].values.get("strategy", "recorded")),
            params={},
            is_recipe=is_recipe,
            value=None,
            best_epoch=None,
            epochs=tuple(
                EpochRecord(epoch=epoch, metrics={}, seconds=float(seconds[epoch - 1]), attempt=1)
                for epoch in range(1, epochs + 1)
                if start + float(seconds[epoch - 1]) <= instant
            ),
            attempts=(attempt,),
            seconds=attempt.seconds,
            trainable_params=None,
            peak_memory=None,
            confusion=None,
            checkpoint="",
            notes=(),
            started_at=start,
            ended_at=attempt.ended_at,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What was foreseen at a moment, beside what came.

    Attributes:
        part: Which part of the study's time it was in.
        device: Foreseen device hours, in units of what came.
        hours: By the clock, the same.
    """

    part: str
    device: Span
    hours: Span

    @property
    def holds(self) -> bool:
        """Whether both hold the truth, up to the 2 % to which a budget holds."""
        return all(span.low <= 1.0 <= 1.02 * span.high for span in (self.device, self.hours))


def looks_at(task: Task, *, others: Sequence[Task], case: Case, seed: int) -> list[Look]:
    """Replay one study and look at it."""
    setting = Setting(task=task, others=others, seed=seed, trainings=case.trials, workers=case.workers)
    question = setting.question(relative=True)
    spec = _spec(question.space, task=task, case=case)
    recipes = setting.defaults() or setting.portfolio(RECIPES)
    search = JudgedSearch(
        question, epochs=task.epochs, search=spec.search.model_copy(update={"seed": seed}), recipes=recipes
    )
    recorded = Recorded(search, task=task, case=case, seed=seed)
    replay(recorded, recorded, workers=case.workers, seconds=float("inf"))
    device = sum(end - start for start, (end, *_) in zip(recorded.starts, _in_order(recorded), strict=True))
    found = []
    for share in (look / (LOOKS + 1) for look in range(1, LOOKS + 1)):
        instant = share * recorded.now
        trials = recorded.trials_at(instant, recipes=len(recipes))
        outlook = foresee_end(_snapshot(spec, space=question.space, trials=trials, instant=instant))
        if outlook is not None:
            found.append(_look(outlook, share=share, device=device, hours=recorded.now))
    return found


def _in_order(recorded: Recorded) -> list[tuple[float, int, Outcome]]:
    return [recorded.ends[number] for number in range(len(recorded.starts))]


def _look(outlook: Outlook, *, share: float, device: float, hours: float) -> Look:
    part = next(words for until, words in PARTS if share <= until)
    units = (3600.0 / device, 3600.0 / hours)
    return Look(
        part=part,
        device=outlook.device_hours.times(units[0], units[0]),
        hours=outlook.hours.times(units[1], units[1]),
    )


def _spec(space: SearchSpace, *, task: Task, case: Case) -> StudySpec:
    return StudySpec.model_validate(
        {
            "name": "replayed",
            "task": "text-classification",
            "model": "recorded",
            "data": {"train": "recorded.csv"},
            "objective": {"metric": "macro_f1", "goal": "maximize"},
            "strategies": list(space.names),
            "training": {"epochs": task.epochs},
            "budget": {"trials": case.trials},
            "confirm": {"finalists": 0},
            "search": {"pruner": case.pruner},
        }
    )


def _snapshot(spec: StudySpec, *, space: SearchSpace, trials: tuple[TrialRecord, ...], instant: float) -> StudySnapshot:
    used = BudgetUse(
        trials=len(trials),
        epochs=sum(len(one.epochs) for one in trials),
        gpu_seconds=sum(one.seconds for one in trials),
        confirm_seconds=0.0,
        began_at=0.0,
        wall_seconds=instant,
    )
    study = StudyRecord(
        study_id=1,
        uid="replayed",
        name=spec.name,
        spec=spec,
        space=space,
        metric=spec.lead.metric,
        maximize=True,
        state=StudyState.SEARCHING,
        state_reason="",
        created_at=0.0,
        finished_at=None,
        counts={},
        used=used,
    )
    return StudySnapshot(study=study, trials=trials, finalists=())


def rows(looks: Mapping[str, Sequence[Look]]) -> list[dict[str, object]]:
    """One row for each table and part of the time."""
    found: list[dict[str, object]] = []
    for name, several in looks.items():
        for _, part in PARTS:
            own = [look for look in several if look.part == part]
            if own:
                found.append(
                    {
                        "table": name,
                        "part": part,
                        "looks": len(own),
                        "holds": statistics.mean(look.holds for look in own),
                        "low_too_high": statistics.mean(look.device.low > 1.0 for look in own),
                        "high_too_low": statistics.mean(look.device.high * 1.02 < 1.0 for look in own),
                        "low": statistics.median(look.device.low for look in own),
                        "high": statistics.median(look.device.high for look in own),
                    }
                )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay, look, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=4, help="replays of each table's every task and case")
    parser.add_argument("--first-seed", type=int, default=0, help="seed of the first replay; each has the next one")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args(arguments)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    looks: dict[str, list[Look]] = {}
    for table in TABLES:
        tasks = load_table(Path(__file__).parent / "data" / table / "curves.npz")
        for task in tasks:
            for seed in range(options.first_seed, options.first_seed + options.seeds):
                for case in CASES:
                    others = [other for other in tasks if other is not task]
                    looks.setdefault(table, []).extend(looks_at(task, others=others, case=case, seed=seed))
    found = rows(looks)
    print(
        "     table  part of the time   looks  hold  low end too high  high end too low  median ends (what came is 1)"
    )
    for row in found:
        ends = f"{row['low']:.2f} to {row['high']:.2f}"
        print(
            f"{row['table']:>10}  {row['part']:<17}  {row['looks']:>5}  {row['holds']:>4.0%}  "
            f"{row['low_too_high']:>16.0%}  {row['high_too_low']:>16.0%}  {ends:>12}",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
