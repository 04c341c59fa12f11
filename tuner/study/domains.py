"""What a hyperparameter may be: a range, a choice, or one fixed value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Value = bool | int | float | str
"""A hyperparameter's value; JSON can hold it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """Numbers from ``low`` to ``high``, both included."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    kind: Literal["float", "int"] = "float"

    def clip(self, value: Value) -> Value:
        """The nearest value inside the range; on the grid when there is a ``step``."""
        number = min(max(float(value), self.low), self.high)
        if self.step is not None:
            number = self.low + round((number - self.low) / self.step) * self.step
            number = min(number, self.high)
        return round(number) if self.kind == "int" else number


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One of several values, without order."""

    options: tuple[Value, ...]

    def clip(self, value: Value) -> Value:
        """The value itself if it may be chosen; else the nearest number, else the first option."""
        if value in self.options:
            return value
        numbers = [option for option in self.options if isinstance(option, int | float)]
        if numbers and len(numbers) == len(self.options) and isinstance(value, int | float):
            return min(numbers, key=lambda option: abs(option - value))
        return self.options[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Fixed:
    """One value that is not searched."""

    value: Value

    def clip(self, value: Value) -> Value:
        """The fixed value, whatever is asked."""
        return self.value


Domain = Range | Choice | Fixed


@dataclass(frozen=True, kw_only=True, slots=True)
class Hyperparameter:
    """One knob of a strategy or of the training: what it may be and its known-good value.

    Attributes:
        name: Plain name for a shared knob (``weight_decay``), the component's name first for one of a
            strategy (``lora.r``).
        domain: Where it is searched when the study file says nothing.
        default: The recipe's value: tried first, and used where the knob is not searched.
        help: One line for people, with its unit.
        allowed: The widest domain that makes sense; a study file outside it is refused.
    """

    name: str
    domain: Domain
    default: Value
    help: str
    allowed: Domain | None = None


def domain_to_json(domain: Domain) -> dict[str, Any]:
    """A domain as a JSON object with its ``type``."""
    return {"type": type(domain).__name__.lower(), **asdict(domain)}


def domain_from_json(data: Mapping[str, Any]) -> Domain:
    """The inverse of :func:`domain_to_json`."""
    fields = {key: value for key, value in data.items() if key != "type"}
    if data["type"] == "choice":
        return Choice(options=tuple(fields["options"]))
    return Range(**fields) if data["type"] == "range" else Fixed(**fields)
