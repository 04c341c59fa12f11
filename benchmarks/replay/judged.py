"""Our own search: the judgement that the study driver asks, over a record in memory instead of a database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import optuna

from benchmarks.replay.simulator import Job
from benchmarks.replay.tables import Task
from tuner.search.judgement import Judgement
from tuner.store.optuna_rows import STATE_OF_OUTCOME
from tuner.store.records import Outcome
from tuner.study.domains import Value
from tuner.study.plan import Verdict
from tuner.study.space import SearchSpace, StrategySpace
from tuner.study.spec import SearchSpec

_STRATEGY = "recorded"  # the tables know one way to train


class JudgedSearch:
    """What :class:`tuner.search.driver.StudyDriver` does at a claim, a report and an end, without leases."""

    def __init__(self, task: Task, *, search: SearchSpec, recipes: Sequence[Mapping[str, Value]] = ()) -> None:
        """Make the study, in memory.

        Args:
            task: Whose knobs are searched.
            search: As in a study file; its seed also names the study.
            recipes: Configurations that the first trials take.
        """
        block = StrategySpace(strategy=_STRATEGY, prior=1.0, domains=task.knobs, recipe={}, is_tried_first=False)
        self._study = optuna.create_study(study_name=f"replay-{search.seed}", direction="maximize")
        self._judgement = Judgement(
            self._study, space=SearchSpace(strategies=(block,)), search=search, epochs=task.epochs
        )
        self._recipes = [{"strategy": _STRATEGY, **values} for values in recipes]
        self._ids: list[int] = []

    def ask(self) -> Job:
        """A new trial, with its values proposed."""
        storage, number = self._study._storage, len(self._ids)  # noqa: SLF001 - rows are written past the study, as the store does
        trial_id = storage.create_new_trial(self._study._study_id)  # noqa: SLF001 - as above
        if number < len(self._recipes):
            storage.set_trial_system_attr(trial_id, "fixed_params", self._recipes[number])
        self._ids.append(trial_id)
        _, values = self._judgement.propose(trial_id, number=number)
        return Job(trial=number, values=values)

    def report(self, trial: int, *, epoch: int, score: float) -> Verdict:
        """The score is stored, and judged."""
        self._study._storage.set_trial_intermediate_value(self._ids[trial], epoch, score)  # noqa: SLF001 - as above
        loses = self._judgement.loses(self._ids[trial], is_recipe=trial < len(self._recipes))
        return Verdict.PRUNE if loses else Verdict.GO_ON

    def end(self, trial: int, *, outcome: Outcome, score: float | None) -> None:
        """The sampler has its word, then the end is stored."""
        state = STATE_OF_OUTCOME[outcome]
        self._judgement.end(self._ids[trial], number=trial, state=state, value=score)
        storage = self._study._storage  # noqa: SLF001 - as above
        if outcome is Outcome.DIVERGED:
            storage.set_trial_system_attr(self._ids[trial], "constraints:finite", 1.0)
        storage.set_trial_state_values(self._ids[trial], state, None if score is None else [score])
