"""Bounds that a trial must keep to be the answer: ``peak_memory <= 10 GB``, ``accuracy >= 0.9``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuner.study.costs import COSTS
from tuner.study.names import did_you_mean

_FORM = re.compile(
    r"\s*(?P<name>[^\W\d]\w*)\s*(?P<sign>[<>=≤≥]+)\s*(?P<number>[-+]?[\d.,_]+([eE][-+]?\d+)?)\s*(?P<unit>%|[A-Za-z]\w*)?\s*"
)
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_EXAMPLE = 'write it like "peak_memory <= 10 GB" or "accuracy >= 0.9"'


class ConstraintError(ValueError):
    """What is wrong with the text of a constraint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Constraint:
    """One bound.

    Attributes:
        name: A metric of the task, or one of :data:`tuner.study.costs.COSTS`.
        is_upper: Whether the value may be at most the bound; else it must be at least.
        bound: In the metric's or the cost's own unit: bytes, seconds, parameters.
        text: As people write it.
    """

    name: str
    is_upper: bool
    bound: float
    text: str

    @property
    def is_cost(self) -> bool:
        """Whether it bounds a cost: what is above once stays above."""
        return self.name in COSTS

    def excess(self, value: float) -> float:
        """By what share of the bound a value breaks it: above 0 it does, at or below it does not.

        Shares add up over constraints, bytes and seconds do not. A value that is not finite breaks every bound.
        """
        if not math.isfinite(value):
            return 1.0
        over = value - self.bound if self.is_upper else self.bound - value
        return over / abs(self.bound) if self.bound else over

    def why(self, value: float) -> str:
        """That a value breaks it, in words: ``peak_memory 12.1 GB breaks peak_memory <= 10 GB``."""
        return f"{self.name} {show_fact(self.name, value)} breaks the constraint {self.text}"


def read_constraints(texts: Sequence[str] | None) -> tuple[Constraint, ...]:
    """The constraints of a study whose file was checked."""
    return tuple(parse_constraint(text) for text in texts or ())


def parse_constraint(text: str, *, goals: Mapping[str, str] | None = None) -> Constraint:
    """Read one constraint.

    Args:
        text: As it stands in the study file.
        goals: The goal of each metric of the task, ``maximize`` or ``minimize``; None: the name was checked before.

    Raises:
        ConstraintError: If it is no constraint, or can never be of use; the message says what to write.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise ConstraintError(f'"{text[:60]}" is no constraint; {_EXAMPLE}')
    name, sign, unit = found["name"], found["sign"], found["unit"] or ""
    known = None if goals is None else {**goals, **dict.fromkeys(COSTS, "minimize")}
    if known is not None and name not in known:
        raise ConstraintError(f'nothing is called "{name}"{did_you_mean(name, known)}')
    if sign not in ("<=", ">="):
        raise ConstraintError(f'"{sign}" is no sign of a constraint; write <= (at most) or >= (at least)')
    if _NUMBER.fullmatch(found["number"]) is None:
        raise ConstraintError(f'"{found["number"]}" is no number; {_EXAMPLE}')
    bound = float(found["number"]) * _worth(name, unit)
    if not math.isfinite(bound):
        raise ConstraintError(f"{found['number']} is too large a number")
    words = f"{found['number']}{'' if not unit else f' {unit}'}"
    constraint = Constraint(name=name, is_upper=sign == "<=", bound=bound, text=f"{name} {sign} {words}")
    if known is not None and (mistake := _useless(constraint, goal=known[name])):
        raise ConstraintError(mistake)
    return constraint


def _worth(name: str, unit: str) -> float:
    """What one of a unit is worth.

    Raises:
        ConstraintError: If the name has no such unit.
    """
    units = COSTS[name].units if name in COSTS else {"%": 0.01}
    if not unit:
        return 1.0
    if unit in units:
        return units[unit]
    folded = {known.casefold(): known for known in units}
    if unit.casefold() in folded:
        raise ConstraintError(f'unknown unit "{unit}"; did you mean "{folded[unit.casefold()]}"?')
    raise ConstraintError(
        f'{name} has no unit "{unit}"; {"use one of" if len(units) > 1 else "use"} {", ".join(units)}, or none'
    )


def _useless(constraint: Constraint, *, goal: str) -> str:
    """Why a bound excludes the good, everything or nothing; an empty string if it does not."""
    name, is_less_better = constraint.name, goal == "minimize"
    if constraint.is_upper is not is_less_better:
        sign = "<=" if is_less_better else ">="
        better = "lower" if is_less_better else "higher"
        return f"{name} is better the {better} it is, so it can be bounded by {sign} only"
    if name in COSTS and constraint.bound <= 0:
        return f"{name} is never {constraint.text.partition('= ')[2]} or less: nothing could keep it"
    if not is_less_better and constraint.bound > 1:
        share = f"; {constraint.bound:g} % is {constraint.bound / 100:g}" if constraint.bound <= 100 else ""
        return f"{name} is 1 at most{share}"
    return ""


def show_fact(name: str, value: float | None) -> str:
    """A metric or a cost for people, with its unit: ``0.9123``, ``12.1 GB``, ``95.0 s``, ``4,386,178``."""
    if value is None or not math.isfinite(value):
        return "–"
    if name == "peak_memory":
        size, units = value, ["B", "kB", "MB", "GB", "TB"]
        while size >= 999.5 and len(units) > 1:
            size, units = size / 1000, units[1:]
        return f"{size:.3g} {units[0]}"
    if name == "seconds":
        return f"{value:.1f} s" if value < 1000 else f"{value:,.0f} s"
    return f"{value:,.0f}" if name == "trainable_params" else f"{value:.4f}"
