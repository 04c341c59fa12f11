"""How a recorded task is put to a search: as one way to train, or as several strategies to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.replay.tables import Task
from tuner.study.domains import Range, Value
from tuner.study.hyperparameters import RELATIVE_LEARNING_RATE
from tuner.study.space import SearchSpace, StrategySpace

ONLY = "recorded"
"""The strategy of a table that knows one way to train."""

_RATE = "learning_rate"


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """A space to search, and what its proposals mean in the table.

    Attributes:
        space: As the study driver would see it.
        knobs: The table's.
        arm: The knob each of whose values is a strategy; empty if there is one way to train.
        shifts: Of each strategy, by how much its learning rates are larger than the table's.
    """

    space: SearchSpace
    knobs: Mapping[str, Range]
    arm: str = ""
    shifts: Mapping[str, float]

    def recorded(self, strategy: str, values: Mapping[str, Value]) -> dict[str, Value]:
        """A trial's absolute values as a configuration of the table."""
        found = dict(values)
        if self.arm:
            found[self.arm] = int(strategy.removeprefix(f"{self.arm}-"))
            found[_RATE] = self.knobs[_RATE].clip(float(found[_RATE]) / self.shifts[strategy])
        return found

    def proposal(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """A configuration of the table as what a trial proposes: its strategy, and the value of each searched name."""
        strategy = f"{self.arm}-{values[self.arm]}" if self.arm else ONLY
        block = self.space.block(strategy)
        rate = float(values.get(_RATE, 1.0)) * self.shifts[strategy]
        meant = {**values, f"{strategy}.{_RATE}": rate, RELATIVE_LEARNING_RATE: float(np.log10(rate / block.prior))}
        return {"strategy": strategy, **{name: domain.clip(meant[name]) for name, domain in block.domains.items()}}


def one_way(task: Task) -> Question:
    """The task as it was recorded."""
    block = StrategySpace(strategy=ONLY, prior=1.0, domains=task.knobs, recipe={}, is_tried_first=False)
    return Question(space=SearchSpace(strategies=(block,)), knobs=task.knobs, shifts={ONLY: 1.0})


def by_strategy(task: Task, *, arm: str, relative: bool = True) -> Question:
    """Each value of a whole-numbered knob as a strategy, whose learning rates are ten times those of the one before.

    Strategies of fine-tuning are like that: some are better than others, and the learning rates that suit them are decades apart.

    Args:
        task: With a learning rate.
        arm: The knob.
        relative: Whether the learning rate is searched in decades around the middle of the strategy's range, as studies do;
            else each strategy has a knob of its own for it.
    """
    values = range(int(task.knobs[arm].low), int(task.knobs[arm].high) + 1)
    rate = task.knobs[_RATE]
    middle, decades = float(np.sqrt(rate.low * rate.high)), float(np.log10(rate.high / rate.low)) / 2
    shared = {name: knob for name, knob in task.knobs.items() if name not in (arm, _RATE)}
    blocks, shifts = [], {}
    for place, value in enumerate(values):
        name, shift = f"{arm}-{value}", 10.0 ** (place - (len(values) - 1) / 2)
        own = {f"{name}.{_RATE}": Range(low=rate.low * shift, high=rate.high * shift, log=True)}
        domains = {RELATIVE_LEARNING_RATE: Range(low=-decades, high=decades)} if relative else own
        blocks.append(
            StrategySpace(
                strategy=name, prior=middle * shift, domains={**domains, **shared}, recipe={}, is_tried_first=False
            )
        )
        shifts[name] = shift
    return Question(space=SearchSpace(strategies=tuple(blocks)), knobs=task.knobs, arm=arm, shifts=shifts)
