"""Recorded learning curves as tasks that a search can be replayed against.

Two formats of ``.npz`` are read. *LCBench*: ``tasks``, ``metrics`` (with ``time_cum_s`` and the scores), ``hp_names``, ``configs``
(configurations x knobs, raw units) and ``task_<id>`` (configurations x epochs x metrics; more is better). *TaskSet*: ``tasks``, ``hp_names``,
``configs`` and, for each task T, ``T|valid`` and ``T|test`` (configurations x evaluations; losses, an evaluation costs one unit of time).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tuner.study.domains import Range, Value

Floats = npt.NDArray[np.float64]

WORST_LOSS = 2.0
"""Losses above count as this one: recorded ones go up to 1e18, and a regret relative to that would be 0 for everybody."""

_SCORE, _TEST = ("val_balanced_accuracy", "val_accuracy"), ("test_balanced_accuracy", "test_accuracy")


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """What a training would show.

    Attributes:
        scores: Validation score of each epoch, more is better; NaN from where it diverged.
        test: Test score of each epoch.
        seconds: Time from the start to the end of each epoch.
        row: Which recorded configuration it is of; -1 where it was interpolated.
    """

    scores: Floats
    test: Floats
    seconds: Floats
    row: int = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One task's recorded curves, one row for each configuration.

    Attributes:
        name: Of the task.
        knobs: Range of each hyperparameter, in the order of the columns of ``units``.
        units: Configurations x knobs, each knob on its own scale from 0 to 1.
        scores: Configurations x epochs, more is better; NaN where it diverged.
        test: As ``scores``, of the test rows.
        seconds: Configurations x epochs, from the start of the training.
    """

    name: str
    knobs: Mapping[str, Range]
    units: Floats
    scores: Floats
    test: Floats
    seconds: Floats

    @property
    def epochs(self) -> int:
        """Epochs of a full training."""
        return int(self.scores.shape[1])

    @property
    def full_training(self) -> float:
        """Seconds of one full training: of the median configuration."""
        return float(np.median(self.seconds[:, -1]))

    @property
    def worst(self) -> float:
        """The worst final score."""
        return float(np.nanmin(self.scores[:, -1]))

    @property
    def median(self) -> float:
        """The median final score; what diverged counts as the worst."""
        return float(np.median(np.nan_to_num(self.scores[:, -1], nan=self.worst)))

    @property
    def best(self) -> float:
        """The best score of any configuration at any epoch."""
        return float(np.nanmax(self.scores))

    def unit(self, values: Mapping[str, Value]) -> Floats:
        """A configuration as a point of the unit cube."""
        return np.array([to_unit(np.float64(values[name]), knob) for name, knob in self.knobs.items()])

    def values(self, row: int) -> dict[str, Value]:
        """The configuration of a row, in raw units."""
        return {name: from_unit(u, knob) for u, (name, knob) in zip(self.units[row], self.knobs.items(), strict=True)}


class NearestRow:
    """A configuration trains like the recorded one that is nearest: every figure is a recorded one."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self.best = task.best

    def anew(self) -> NearestRow:
        """For another search: this one, which remembers nothing."""
        return self

    def curve(self, values: Mapping[str, Value]) -> Curve:
        """The curve of a configuration."""
        row = int(((self._task.units - self._task.unit(values)) ** 2).sum(axis=1).argmin())
        task = self._task
        return Curve(scores=task.scores[row], test=task.test[row], seconds=task.seconds[row], row=row)


def to_unit(value: Any, knob: Range) -> Any:
    """A value, or an array of them, on its knob's scale from 0 to 1."""
    low, high = knob.low, knob.high
    return np.log(value / low) / np.log(high / low) if knob.log else (value - low) / (high - low)


def from_unit(unit: float, knob: Range) -> Value:
    """The inverse of :func:`to_unit`, clipped into the knob's range."""
    low, high = knob.low, knob.high
    return knob.clip(float(low * (high / low) ** unit if knob.log else low + unit * (high - low)))


def load_tasks(path: Path) -> list[Task]:
    """Read a table.

    Args:
        path: An ``.npz`` file in one of the two formats.

    Raises:
        ValueError: If it is in neither format.
    """
    with np.load(path, allow_pickle=False) as data:
        names = [str(name) for name in data["tasks"]]
        configs = np.asarray(data["configs"], dtype=np.float64)
        knobs = {str(name): _range(configs[:, column]) for column, name in enumerate(data["hp_names"])}
        units = np.stack([to_unit(configs[:, column], knob) for column, knob in enumerate(knobs.values())], axis=1)
        if "metrics" in data.files:
            curves = [_lcbench(data[f"task_{name}"], [str(m) for m in data["metrics"]]) for name in names]
        elif f"{names[0]}|valid" in data.files:
            curves = [_taskset(data[f"{name}|valid"], data[f"{name}|test"]) for name in names]
        else:
            raise ValueError(f"{path}: neither LCBench's format (metrics, task_ID) nor TaskSet's (TASK|valid)")
    return [
        Task(name=name, knobs=knobs, units=units, scores=scores, test=test, seconds=seconds)
        for name, (scores, test, seconds) in zip(names, curves, strict=True)
    ]


def _lcbench(cube: Any, metrics: list[str]) -> tuple[Floats, Floats, Floats]:
    values = np.asarray(cube, dtype=np.float64)
    column = {name: values[:, :, index] for index, name in enumerate(metrics)}
    scores, test = (next(column[name] for name in names if name in column) for names in (_SCORE, _TEST))
    # A surrogate predicted the times, each epoch by itself, so that a later one is sometimes a little earlier.
    return scores, test, np.maximum.accumulate(column["time_cum_s"], axis=1)


def _taskset(valid: Any, test: Any) -> tuple[Floats, Floats, Floats]:
    losses = np.asarray(valid, dtype=np.float64)
    # What was once lost stays lost, and a loss beyond any sense is as good as the limit.
    diverged = np.logical_or.accumulate(~np.isfinite(losses), axis=1)
    scores = np.where(diverged, np.nan, -np.minimum(np.nan_to_num(losses), WORST_LOSS))
    tested = -np.minimum(np.nan_to_num(np.asarray(test, dtype=np.float64), nan=WORST_LOSS), WORST_LOSS)
    seconds = np.broadcast_to(np.arange(1.0, losses.shape[1] + 1), losses.shape)
    return scores, tested, seconds


def _range(values: Floats) -> Range:
    """A knob's range, from values that were drawn evenly on an unknown scale."""
    low, high = float(values.min()), float(values.max())
    kind = "int" if np.array_equal(values, np.round(values)) else "float"
    scales = [Range(low=low, high=high, kind="int" if kind == "int" else "float", log=log) for log in (False, True)]
    if low <= 0.0:
        return scales[0]
    return min(scales, key=lambda knob: _unevenness(to_unit(values, knob)))


def _unevenness(units: Floats) -> float:
    """The largest distance of the values' distribution from the even one."""
    ordered = np.sort(units)
    return float(np.abs(ordered - np.linspace(0.0, 1.0, len(ordered))).max())
