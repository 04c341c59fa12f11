"""The table of our own space: real trainings of every strategy, each with the hyperparameters of its own.

Only recorded configurations of the same strategy are ever shown, each search sees one once, so that every figure is a recorded one. Where the table has
several seeds, the first one is what a search sees and the others, of the same configuration, say how good it really is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.replay.forms import Question
from benchmarks.replay.tables import Curve, Floats, Task, from_unit, load_tasks, to_unit
from tuner.study.domains import Choice, Domain, Range, Value
from tuner.study.hyperparameters import RELATIVE_LEARNING_RATE
from tuner.study.proposals import as_proposal
from tuner.study.space import SearchSpace, StrategySpace, absolute_name

ARM = "strategy"
"""What tells the rows' strategies apart."""

_APART = 1e3  # further than any two configurations of one strategy


@dataclass(frozen=True, kw_only=True, slots=True)
class StrategyTask(Task):
    """A task whose configurations are of several strategies; they are proposals: the strategy, and what a sampler says.

    Attributes:
        space: What was drawn from.
        proposals: Of each row.
    """

    space: SearchSpace
    proposals: tuple[Mapping[str, Value], ...]

    def unit(self, values: Mapping[str, Value]) -> Floats:
        """A configuration as a point: strategies are far apart, what a strategy does not have is 0."""
        return _point(self.space, values)

    def values(self, row: int) -> dict[str, Value]:
        """The configuration of a row."""
        return dict(self.proposals[row])

    def draw(self, random: np.random.Generator) -> dict[str, Value]:
        """A random configuration of a random strategy."""
        block = self.space.strategies[int(random.integers(len(self.space.strategies)))]
        return {ARM: block.strategy, **{name: _drawn(domain, random) for name, domain in _searched(block).items()}}

    def recipes(self) -> list[dict[str, Value]]:
        """What each strategy comes with."""
        return [{ARM: block.strategy, **block.recipe} for block in self.space.strategies]


class NearestUntried:
    """A configuration trains like the nearest recorded one of its strategy that this search did not train before.

    With thirty rows of a strategy, what differs a little is often nearest to the same row. By that row a search that closes in on what
    is good would learn nothing more and pay each time, which is the table's doing: really its trainings would differ.
    """

    def __init__(self, task: Task) -> None:
        """Nothing was trained yet."""
        self._task = task
        self._tried = np.zeros(len(task.units), dtype=bool)

    def anew(self) -> NearestUntried:
        """For another search."""
        return NearestUntried(self._task)

    def curve(self, values: Mapping[str, Value]) -> Curve:
        """The curve of a configuration; of the very nearest again where the strategy has no other left."""
        distances = ((self._task.units - self._task.unit(values)) ** 2).sum(axis=1)
        untried = np.where(self._tried, np.inf, distances)
        same = distances < (_APART / 2) ** 2
        row = int((untried if np.isfinite(untried[same]).any() else distances).argmin())
        self._tried[row] = True
        task = self._task
        return Curve(scores=task.scores[row], test=task.test[row], seconds=task.seconds[row], row=row)


@dataclass(frozen=True, kw_only=True, slots=True)
class StudiedQuestion(Question):
    """The space as a study has it, or with an absolute learning rate for each strategy, as one would write it down for Optuna.

    Attributes:
        recorded_space: What the table's configurations are of.
    """

    recorded_space: SearchSpace

    def recorded(self, strategy: str, values: Mapping[str, Value]) -> dict[str, Value]:
        """A trial's absolute values as a configuration of the table."""
        block = self.recorded_space.block(strategy)
        names = {absolute_name(name, block) for name in _searched(block)}
        return {ARM: strategy, **as_proposal(block, {name: values[name] for name in names})}

    def proposal(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """A configuration of the table as what a trial proposes."""
        found = dict(values)
        block = self.space.block(str(values[ARM]))
        if RELATIVE_LEARNING_RATE not in block.domains:
            name = f"{block.strategy}.learning_rate"
            rate = block.prior * 10.0 ** float(found.pop(RELATIVE_LEARNING_RATE))
            found[name] = block.domains[name].clip(rate)
        return found


def as_studied(task: StrategyTask, *, relative: bool) -> StudiedQuestion:
    """The task as it is put to a search."""
    space = task.space
    if not relative:
        space = SearchSpace(strategies=tuple(_absolute(block) for block in space.strategies))
    return StudiedQuestion(space=space, knobs={}, arm=ARM, shifts={}, recorded_space=task.space)


def _absolute(block: StrategySpace) -> StrategySpace:
    domains = dict(block.domains)
    decades = domains.pop(RELATIVE_LEARNING_RATE)
    assert isinstance(decades, Range)
    rate = Range(low=block.prior * 10.0**decades.low, high=block.prior * 10.0**decades.high, log=True)
    domains = {f"{block.strategy}.learning_rate": rate, **domains}
    return StrategySpace(strategy=block.strategy, prior=block.prior, domains=domains, recipe={}, is_tried_first=False)


def load_table(path: Path) -> list[Task]:
    """The tasks of a table in any format.

    Raises:
        ValueError: If it is in none that is known.
    """
    with np.load(path, allow_pickle=False) as data:
        if "proposals" not in data.files:
            return load_tasks(path)
        space = SearchSpace.from_json(json.loads(str(data["space"])))
        proposals = tuple(json.loads(str(text)) for text in data["proposals"])
        metrics = [str(name) for name in data["metrics"]]
        cubes = {str(name): np.asarray(data[f"task_{name}"], dtype=np.float64) for name in data["tasks"]}
    points = np.stack([_point(space, proposal) for proposal in proposals])
    return [_task(name, cube, metrics, space=space, proposals=proposals, points=points) for name, cube in cubes.items()]


def _task(
    name: str,
    cube: Floats,
    metrics: list[str],
    *,
    space: SearchSpace,
    proposals: tuple[Mapping[str, Value], ...],
    points: Floats,
) -> StrategyTask:
    scores, seconds = cube[..., metrics.index("macro_f1")], cube[..., metrics.index("seconds")]
    others = scores[1:].mean(axis=0) if len(scores) > 1 else scores[0]
    pace = seconds / np.arange(1.0, seconds.shape[-1] + 1)  # what broke off would have gone on at its pace
    whole = np.where(
        np.isfinite(seconds), seconds, np.nanmax(pace, axis=-1, keepdims=True) * np.arange(1.0, seconds.shape[-1] + 1)
    )
    return StrategyTask(
        name=name,
        knobs={},
        units=points,
        scores=scores[0],
        test=others,
        seconds=whole[0],
        space=space,
        proposals=proposals,
    )


def _searched(block: StrategySpace) -> dict[str, Domain]:
    return {name: domain for name, domain in block.domains.items() if isinstance(domain, Range | Choice)}


def _point(space: SearchSpace, values: Mapping[str, Value]) -> Floats:
    names = list(dict.fromkeys(name for block in space.strategies for name in _searched(block)))
    block = space.block(str(values[ARM]))
    own = _searched(block)
    return np.array(
        [
            _APART * space.names.index(block.strategy),
            *(_place(own[name], values[name]) if name in own else 0.0 for name in names),
        ]
    )


def _place(domain: Domain, value: Value) -> float:
    """A value on a scale from 0 to 1; options that are numbers stand in their order."""
    if isinstance(domain, Range):
        return float(to_unit(np.float64(value), domain))
    assert isinstance(domain, Choice)
    options = list(domain.options)
    if all(isinstance(option, int | float) for option in options):
        options.sort(key=float)
    return options.index(value) / max(len(options) - 1, 1)


def _drawn(domain: Domain, random: np.random.Generator) -> Any:
    if isinstance(domain, Choice):
        return domain.options[int(random.integers(len(domain.options)))]
    assert isinstance(domain, Range)
    return from_unit(float(random.random()), domain)
