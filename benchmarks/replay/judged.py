"""Our own search: the judgement that the study driver asks, over a record in memory instead of a database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import optuna

from benchmarks.replay.forms import Question
from benchmarks.replay.simulator import Job
from benchmarks.replay.tables import from_unit
from tuner.search.judgement import Judgement
from tuner.store.optuna_rows import STATE_OF_OUTCOME
from tuner.store.records import Outcome
from tuner.study.domains import Range, Value
from tuner.study.plan import Verdict
from tuner.study.spec import SearchSpec


class JudgedSearch:
    """What :class:`tuner.search.driver.StudyDriver` does at a claim, a report and an end, without leases."""

    def __init__(
        self,
        question: Question,
        *,
        epochs: int,
        search: SearchSpec,
        recipes: Sequence[Mapping[str, Value]] = (),
        spares_recipes: bool = True,
        random_share: float = 0.0,
    ) -> None:
        """Make the study, in memory.

        Args:
            question: What is searched.
            epochs: Epochs of a trial that is not pruned.
            search: As in a study file; its seed also names the study.
            recipes: Configurations of the table that the first trials take.
            spares_recipes: Whether recipes are recipes to the judgement, too.
            random_share: Share of the other trials whose values are drawn, not proposed.
        """
        self._question = question
        self._study = optuna.create_study(study_name=f"replay-{search.seed}", direction="maximize")
        self._judgement = Judgement(self._study, space=question.space, search=search, epochs=epochs)
        self._recipes = [question.proposal(values) for values in recipes]
        self._spares_recipes = spares_recipes
        self._random_share, self._random = random_share, np.random.default_rng(search.seed)
        self._ids: list[int] = []

    def ask(self) -> Job:
        """A new trial, with its values proposed."""
        storage, number = self._study._storage, len(self._ids)  # noqa: SLF001 - rows are written past the study, as the store does
        trial_id = storage.create_new_trial(self._study._study_id)  # noqa: SLF001 - as above
        if (fixed := self._fixed(number)) is not None:
            storage.set_trial_system_attr(trial_id, "fixed_params", fixed)
        self._ids.append(trial_id)
        found = self._judgement.propose(trial_id, number=number)
        self._judgement.keep(trial_id, found)
        return Job(trial=number, values=self._question.recorded(found.strategy, found.params))

    def _fixed(self, number: int) -> dict[str, Value] | None:
        """What a trial takes whatever the sampler thinks; None if it is free."""
        if number < len(self._recipes):
            return self._recipes[number]
        if self._random_share and self._random.random() < self._random_share:
            return self._drawn()
        return None

    def _drawn(self) -> dict[str, Value]:
        block = self._question.space.strategies[int(self._random.integers(len(self._question.space.strategies)))]
        ranges = {name: knob for name, knob in block.domains.items() if isinstance(knob, Range)}
        drawn = {name: from_unit(float(self._random.random()), knob) for name, knob in ranges.items()}
        return {"strategy": block.strategy, **drawn}

    def report(self, trial: int, *, epoch: int, score: float) -> Verdict:
        """The score is stored, and judged."""
        self._study._storage.set_trial_intermediate_value(self._ids[trial], epoch, score)  # noqa: SLF001 - as above
        is_recipe = self._spares_recipes and trial < len(self._recipes)
        loses = self._judgement.loses(self._ids[trial], is_recipe=is_recipe)
        return Verdict.PRUNE if loses else Verdict.GO_ON

    def end(self, trial: int, *, outcome: Outcome, score: float | None) -> None:
        """The sampler has its word, then the end is stored."""
        state = STATE_OF_OUTCOME[outcome]
        self._judgement.end(self._ids[trial], number=trial, state=state, value=score)
        storage = self._study._storage  # noqa: SLF001 - as above
        if outcome is Outcome.DIVERGED:
            storage.set_trial_system_attr(self._ids[trial], "constraints:finite", 1.0)
        storage.set_trial_state_values(self._ids[trial], state, None if score is None else [score])
