"""Recipes for a task that were learnt from searches on other tasks, through the code that a new study learns with.

The other tasks are not known in full: each was searched once, by ours without recipes, with the budget of a usual study, and what that
left behind is all there is to learn from, as in a database of past studies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache

from benchmarks.replay.forms import Question
from benchmarks.replay.judged import JudgedSearch
from benchmarks.replay.simulator import Job, replay
from benchmarks.replay.tables import NearestRow, Task
from tuner.search.past import learn_from
from tuner.store.past import PastStudy, PastTrial
from tuner.store.records import Outcome
from tuner.study.domains import Value
from tuner.study.spec import SearchSpec, StudySpec

TRAININGS = 20
"""Budget of a past study, in full trainings."""

_WORKERS = 4

Ask = Callable[[Task], Question]
"""How a task is put to a search."""


class RememberedSearch(JudgedSearch):
    """Ours, which keeps what a database would keep of its trials."""

    def __init__(self, question: Question, *, epochs: int, search: SearchSpec) -> None:
        """See :class:`JudgedSearch`."""
        super().__init__(question, epochs=epochs, search=search)
        self._asked = question
        self._jobs: list[Job] = []
        self.trials: list[PastTrial] = []

    def ask(self) -> Job:
        """A new trial, with its values proposed."""
        job = super().ask()
        self._jobs.append(job)
        return job

    def end(self, trial: int, *, outcome: Outcome, score: float | None) -> None:
        """The sampler has its word, then the end is stored."""
        super().end(trial, outcome=outcome, score=score)
        proposal = self._asked.proposal(self._jobs[trial].values)
        strategy = str(proposal.pop("strategy"))
        params = self._asked.space.absolute(strategy, proposal)
        value = score if outcome is Outcome.COMPLETE else None
        self.trials.append(
            PastTrial(number=trial, strategy=strategy, params=params, outcome=outcome, value=value, confirmed=None)
        )


def learn_recipes(task: Task, *, others: Sequence[Task], ask: Ask, seed: int, size: int) -> list[dict[str, Value]]:
    """Configurations of the table that a new study of a task would try first.

    Args:
        task: What is searched next; nothing of it is looked at but its knobs.
        others: What was searched in the past.
        ask: How they are put to a search.
        seed: Of the past searches.
        size: Most recipes.
    """
    question = ask(task)
    past = [_searched(other.name, seed, _Kept(other, ask)) for other in others]
    # By name: one or two of other data would teach nothing, and it is the question what they are worth.
    named = SearchSpec.model_validate({"learn_from": [study.name for study in past] or "none"})
    spec = _spec(task.name, question).model_copy(update={"search": named})
    learnt = learn_from(past, spec=spec, space=question.space, size=size)
    return [question.recorded(one.strategy, question.space.absolute(one.strategy, one.values)) for one in learnt]


class _Kept:
    """A task, told apart by its name: each is searched once for each seed."""

    def __init__(self, task: Task, ask: Ask) -> None:
        self.task, self.ask = task, ask

    def __hash__(self) -> int:
        return hash(self.task.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Kept) and other.task is self.task


@cache
def _searched(name: str, seed: int, kept: _Kept) -> PastStudy:
    task, question = kept.task, kept.ask(kept.task)
    search = RememberedSearch(question, epochs=task.epochs, search=SearchSpec(seed=seed))
    seconds = TRAININGS * task.full_training / _WORKERS
    replay(search, NearestRow(task), workers=_WORKERS, seconds=seconds)
    trials = tuple(sorted(search.trials, key=lambda trial: trial.number))
    return PastStudy(name=name, spec=_spec(name, question), space=question.space, maximize=True, trials=trials)


def _spec(name: str, question: Question) -> StudySpec:
    asked: Mapping[str, object] = {
        "name": "new",
        "task": "recorded",
        "model": "recorded",
        "data": {"train": name},
        "objective": {"metric": "score"},
        "strategies": list(question.space.names),
    }
    return StudySpec.model_validate(asked)
