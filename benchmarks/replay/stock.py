"""What our search is compared with: random search, one-epoch screening, and Optuna as it comes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import Trial, TrialState

from benchmarks.replay.forms import Question
from benchmarks.replay.own import StrategyTask
from benchmarks.replay.simulator import Job
from benchmarks.replay.tables import Task, from_unit
from tuner.store.records import Outcome
from tuner.study.domains import Choice, Range, Value
from tuner.study.plan import Verdict


class OptunaSearch:
    """A sampler and a pruner as `Study.optimize` would use them."""

    def __init__(
        self,
        question: Question,
        *,
        sampler: BaseSampler,
        pruner: BasePruner,
        seed: int,
        first: Sequence[Mapping[str, Value]] = (),
    ) -> None:
        """Make the study, in memory.

        Args:
            question: What is searched.
            sampler: Seeded.
            pruner: Any of Optuna's.
            seed: Names the study, and Hyperband deals its brackets by the name.
            first: Configurations of the table to enqueue.
        """
        self._question = question
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study = optuna.create_study(
                study_name=f"replay-{seed}", direction="maximize", sampler=sampler, pruner=pruner
            )
        for values in first:
            self._study.enqueue_trial(question.proposal(values))
        self._trials: dict[int, Trial] = {}

    def ask(self) -> Job:
        """A new trial."""
        trial, space = self._study.ask(), self._question.space
        strategy = space.names[0]
        if len(space.names) > 1:
            strategy = trial.suggest_categorical("strategy", space.names)
        proposal = {
            name: _suggest(trial, name, knob)
            for name, knob in space.block(strategy).domains.items()
            if isinstance(knob, Range | Choice)
        }
        self._trials[trial.number] = trial
        values = self._question.recorded(strategy, space.absolute(strategy, proposal))
        return Job(trial=trial.number, values=values)

    def report(self, trial: int, *, epoch: int, score: float) -> Verdict:
        """`Trial.report` and `Trial.should_prune`."""
        self._trials[trial].report(score, epoch)
        return Verdict.PRUNE if self._trials[trial].should_prune() else Verdict.GO_ON

    def end(self, trial: int, *, outcome: Outcome, score: float | None) -> None:
        """`Study.tell`; what diverged fails, as an objective does that returns NaN."""
        if outcome is Outcome.DIVERGED:
            self._study.tell(trial, state=TrialState.FAIL)
        elif outcome is Outcome.PRUNED:
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, score)


def _suggest(trial: Trial, name: str, knob: Range | Choice) -> Value:
    if isinstance(knob, Choice):
        chosen: Value = trial.suggest_categorical(name, knob.options)
        return chosen
    if knob.kind == "int":
        return trial.suggest_int(name, int(knob.low), int(knob.high), log=knob.log)
    return trial.suggest_float(name, knob.low, knob.high, log=knob.log)


class Screening:
    """Random configurations for one epoch each, then the best of them to the end, in order (Egele 2023, arXiv 2307.15422)."""

    def __init__(self, task: Task, *, seed: int, count: int) -> None:
        """Nothing is drawn yet.

        Args:
            task: Whose knobs are searched.
            seed: Of the draws.
            count: Configurations to screen; half a budget of trainings is ``trainings * epochs / 2``.
        """
        self._task, self._count = task, count
        self._random = np.random.default_rng(seed)
        self._values: list[dict[str, Value]] = []
        self._screened: dict[int, float] = {}
        self._running = 0
        self._promoted: set[int] = set()

    def ask(self) -> Job | None:
        """The next to screen; then, when all are screened, the best that was not promoted yet."""
        if len(self._values) < self._count:
            self._running += 1
            self._values.append(draw(self._task, self._random))
            return Job(trial=len(self._values) - 1, values=self._values[-1])
        if self._running:
            return None
        rest = [trial for trial in self._screened if trial not in self._promoted]
        if not rest:
            return None
        best = max(rest, key=lambda trial: self._screened[trial])
        self._promoted.add(best)
        return Job(trial=best, values=self._values[best], epochs_done=1)

    def report(self, trial: int, *, epoch: int, score: float) -> Verdict:
        """Everything pauses after its first epoch."""
        if epoch > 1:
            return Verdict.GO_ON
        self._screened[trial] = score
        self._running -= 1
        return Verdict.RELEASE

    def end(self, trial: int, *, outcome: Outcome, score: float | None) -> None:
        """One less to wait for, if it ended in its first epoch."""
        if trial not in self._screened:
            self._running -= 1
            self._promoted.add(trial)


class Fixed:
    """A list of configurations, each trained to the end, and nothing else."""

    def __init__(self, values: Sequence[Mapping[str, Value]]) -> None:
        self._waiting = list(enumerate(values))[::-1]

    def ask(self) -> Job | None:
        """The next of the list."""
        if not self._waiting:
            return None
        number, values = self._waiting.pop()
        return Job(trial=number, values=values)

    def report(self, trial: int, *, epoch: int, score: float) -> Verdict:
        """Everything goes on."""
        return Verdict.GO_ON

    def end(self, trial: int, *, outcome: Outcome, score: float | None) -> None:
        """Nothing is learnt."""


def draw(task: Task, random: np.random.Generator) -> dict[str, Value]:
    """A random configuration."""
    if isinstance(task, StrategyTask):
        return task.draw(random)
    return {name: from_unit(float(random.random()), knob) for name, knob in task.knobs.items()}
