"""What a trial of one study means in another: its values in the other's ranges, its learning rate relative to the other's model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tuner.study.domains import Choice, Domain, Fixed, Range, Value
from tuner.study.hyperparameters import RELATIVE_LEARNING_RATE
from tuner.study.space import StrategySpace, absolute_name

_RATE, _OPTIMIZER = "learning_rate", "optimizer"
_DIGITS = 9  # of decades: what was 0 is 0 again


@dataclass(frozen=True, kw_only=True, slots=True)
class Transferred:
    """A trial's values for another study.

    Attributes:
        values: The value of each searched name, inside its domain.
        clipped: Those names, in absolute terms, whose value lay outside.
    """

    values: Mapping[str, Value]
    clipped: tuple[str, ...]


def transfer(params: Mapping[str, Value], *, source: StrategySpace, target: StrategySpace) -> Transferred | None:
    """A trial's values for another study's space of the same strategy.

    The learning rate keeps its distance from the strategy's own, in decades, which is what carries over from one size of model to
    another. A number outside the range is clipped; what the trial did not have is as in the recipe; what the study fixes stays.

    Args:
        params: The trial's, absolute.
        source: Where it was searched.
        target: Where it shall be tried.

    Returns:
        None if a word is not among the study's choices, or the optimizer is another: the learning rate was found with it.
    """
    optimizer = _of(target, _OPTIMIZER)
    ours = optimizer.value if isinstance(optimizer, Fixed) else params.get(_OPTIMIZER)
    if optimizer is not None and params.get(_OPTIMIZER, ours) != ours:
        return None
    values: dict[str, Value] = {}
    clipped: list[str] = []
    for name, domain in target.domains.items():
        if isinstance(domain, Fixed):
            continue
        known_as = absolute_name(name, target)
        meant = params.get(known_as)
        if known_as == _RATE and meant is not None:
            decades = round(math.log10(float(meant) / source.rate(params.get(_OPTIMIZER))), _DIGITS)
            meant = decades if name == RELATIVE_LEARNING_RATE else target.rate(ours) * 10.0**decades
        if meant is None:
            values[name] = target.recipe[name]
        elif not _fits(domain, meant):
            return None
        else:
            values[name] = domain.clip(meant)
            if _is_number(meant) and not math.isclose(float(values[name]), float(meant), rel_tol=1e-6, abs_tol=1e-9):
                clipped.append(known_as)
    return Transferred(values=values, clipped=tuple(clipped))


def _of(block: StrategySpace, name: str) -> Domain | None:
    return block.domains.get(f"{block.strategy}.{name}", block.domains.get(name))


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _fits(domain: Range | Choice, value: Value) -> bool:
    """Whether a value is in a domain, or a number that can be clipped into it."""
    if isinstance(domain, Choice) and any(type(option) is type(value) and option == value for option in domain.options):
        return True
    return _is_number(value) and (isinstance(domain, Range) or all(_is_number(option) for option in domain.options))


def unit_point(block: StrategySpace, values: Mapping[str, Value]) -> list[float]:
    """Values as a point whose coordinates go from 0 to 1, in the order of the domains; words have one coordinate each.

    Args:
        block: The space of their strategy.
        values: The value of each searched name.
    """
    point: list[float] = []
    for name, domain in block.domains.items():
        if isinstance(domain, Range):
            point.append(_share(domain, float(values[name])))
        elif isinstance(domain, Choice) and all(_is_number(option) for option in domain.options):
            order = sorted(float(option) for option in domain.options)
            point.append(order.index(float(values[name])) / max(len(order) - 1, 1))
        elif isinstance(domain, Choice):
            point += [float(option == values[name]) for option in domain.options]
    return point


def _share(domain: Range, value: float) -> float:
    if not domain.low < domain.high:
        return 0.0
    if domain.log:
        return math.log(value / domain.low) / math.log(domain.high / domain.low)
    return (value - domain.low) / (domain.high - domain.low)
