"""One value of ``space`` as a domain: ``{low, high, log, step}``, a list, or a single value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tuner.errors import Problem
from tuner.study.document import KeyProblem
from tuner.study.domains import Choice, Domain, Fixed, Hyperparameter, Range, Value
from tuner.study.messages import label_of, looks_like_number, quoted, shown
from tuner.study.names import did_you_mean, nearest, printable

_RANGE_KEYS = ("low", "high", "log", "step")
_ROUNDING = 1e-6  # of a step: what float arithmetic may add or take when steps are counted


@dataclass(frozen=True, kw_only=True, slots=True)
class Findings:
    """What a check has found so far; it is handed down and filled."""

    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def take(self, other: Findings, *, keys: Mapping[str, str]) -> None:
        """Add what another check has found, under other keys.

        Args:
            other: Its findings.
            keys: Under which key each of its keys stands in this file.
        """
        for mine, theirs in ((self.problems, other.problems), (self.warnings, other.warnings)):
            for problem in theirs:
                key = keys.get(problem.key, problem.key)
                message = problem.message.removeprefix(f"{label_of(problem.key)}: ")
                mine.append(replace(problem, key=key, message=f"{label_of(key)}: {message}"))

    def refuse(self, key: str, message: str) -> None:
        """Note a mistake in a value."""
        self.problems.append(Problem(key=key, message=printable(f"{label_of(key)}: {message}")))

    def refuse_key(self, key: str, message: str) -> None:
        """Note a mistake in a key itself."""
        self.problems.append(KeyProblem(key=key, message=printable(message)))

    def warn(self, key: str, message: str) -> None:
        """Note what is odd but can be used."""
        self.warnings.append(Problem(key=key, message=printable(f"{label_of(key)}: {message}")))


def read_domain(raw: Any, *, key: str, knob: Hyperparameter, findings: Findings) -> Domain | None:
    """The domain that a study file gives a hyperparameter.

    Args:
        raw: The value in the file.
        key: Its dotted key, for messages.
        knob: The hyperparameter: its kind of value and what it may be at most.
        findings: Takes the mistakes and warnings.

    Returns:
        The domain, or None if there is a mistake in it.
    """
    before = len(findings.problems)
    domain: Domain | None
    if isinstance(raw, Mapping):
        domain = _range(raw, key=key, knob=knob, findings=findings)
    elif isinstance(raw, list | tuple):
        domain = _choice(raw, key=key, knob=knob, findings=findings)
    else:
        value = _value(raw, key=key, knob=knob, findings=findings)
        domain = None if value is None else Fixed(value=value)
    return domain if len(findings.problems) == before else None


def _kind(knob: Hyperparameter) -> str:
    """What a value of a hyperparameter is, told by its default."""
    if isinstance(knob.default, bool):
        return "true or false"
    return {int: "whole number", float: "number"}.get(type(knob.default), "text")


def _value(raw: Any, *, key: str, knob: Hyperparameter, findings: Findings) -> Value | None:
    """One value, of the hyperparameter's kind and inside what it may be."""
    kind = _kind(knob)
    if kind in ("whole number", "number"):
        number = _number(raw, key=key, whole=kind == "whole number", findings=findings)
        return number if number is not None and _allowed(number, key=key, knob=knob, findings=findings) else None
    if not isinstance(raw, bool if kind == "true or false" else str):
        findings.refuse(key, f"must be {kind}, got {shown(raw)}")
        return None
    value: Value = raw
    return value if _allowed(value, key=key, knob=knob, findings=findings) else None


def _number(raw: Any, *, key: str, whole: bool, findings: Findings) -> int | float | None:
    if raw is None:
        findings.refuse(key, "has no value")
        return None
    if isinstance(raw, bool) or not isinstance(raw, int | float):
        hint = "; remove the quotes" if isinstance(raw, str) and looks_like_number(raw) else ""
        findings.refuse(key, f"must be a number, got {shown(raw)}{hint}")
        return None
    try:
        number = float(raw)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        findings.refuse(key, f"must be finite, got {shown(raw)}")
        return None
    if not whole:
        return number
    if number != round(number):
        findings.refuse(key, f"whole number needed, got {raw}")
        return None
    return round(number)


def _allowed(value: Value, *, key: str, knob: Hyperparameter, findings: Findings) -> bool:
    """Whether a value lies in the widest domain that makes sense; if not, that is noted."""
    allowed = _limits(knob)
    if isinstance(allowed, Choice) and value not in allowed.options:
        known = [str(option) for option in allowed.options]
        findings.refuse(key, f"unknown value {_repeated(value)}{_meant(str(value), known)} (one of {', '.join(known)})")
        return False
    if isinstance(allowed, Fixed) and value != allowed.value:
        findings.refuse(key, f"can only be {allowed.value}, got {shown(value)}")
        return False
    if isinstance(allowed, Range) and isinstance(value, int | float) and not allowed.low <= value <= allowed.high:
        findings.refuse(
            key, f"{_figure(value)} is outside the allowed {_figure(allowed.low)} to {_figure(allowed.high)}"
        )
        return False
    return True


def _limits(knob: Hyperparameter) -> Domain | None:
    """What a value may be at most; where nothing else is said, words must be those that are searched."""
    is_words = isinstance(knob.domain, Choice) and not any(_is_number(option) for option in knob.domain.options)
    return knob.domain if knob.allowed is None and is_words else knob.allowed


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _meant(word: str, known: Sequence[str]) -> str:
    near = nearest(word, known)
    return f'; did you mean "{near}"?' if near is not None else ""


def _figure(value: float) -> str:
    """A number for people: whole ones in full, others short."""
    return f"{round(value):,}" if value == round(value) and abs(value) < 1e15 else f"{value:g}"


def _repeated(value: Value) -> str:
    return quoted(value) if isinstance(value, str) else shown(value)


def _choice(raw: Sequence[Any], *, key: str, knob: Hyperparameter, findings: Findings) -> Domain | None:
    if not raw:
        findings.refuse(key, "the list of choices is empty")
        return None
    texts = sum(isinstance(item, str) for item in raw)
    numbers = sum(isinstance(item, int | float) and not isinstance(item, bool) for item in raw)
    if texts and numbers:
        findings.refuse(key, "mixes text and numbers; quote all of them or none")
        return None
    options: list[Value] = []
    for index, item in enumerate(raw):
        value = _value(item, key=f"{key}.{index}", knob=knob, findings=findings)
        if value is not None and value in options:
            findings.refuse(f"{key}.{index}", f"{_repeated(value)} is given twice")
        if value is not None:
            options.append(value)
    if len(raw) == 1 and options:
        findings.warn(key, "has one value; it is fixed, not searched")
        return Fixed(value=options[0])
    return Choice(options=tuple(options))


def _range(raw: Mapping[str, Any], *, key: str, knob: Hyperparameter, findings: Findings) -> Domain | None:
    kind = _kind(knob)
    if kind not in ("whole number", "number") or isinstance(_limits(knob), Choice):
        findings.refuse(key, f"cannot be a range; give one value or a list{_options(knob)}")
        return None
    if not _range_keys(raw, key=key, findings=findings):
        return None
    whole = kind == "whole number"
    low = _number(raw["low"], key=f"{key}.low", whole=whole, findings=findings)
    high = _number(raw["high"], key=f"{key}.high", whole=whole, findings=findings)
    step = None if raw.get("step") is None else _number(raw["step"], key=f"{key}.step", whole=whole, findings=findings)
    log = raw.get("log", False)
    if not isinstance(log, bool):
        findings.refuse(f"{key}.log", f"must be true or false, got {shown(log)}")
    if low is None or high is None or not isinstance(log, bool):
        return None
    if low > high:
        findings.refuse(key, f"low {low:g} is above high {high:g}; swap them")
        return None
    if log and low <= 0:
        findings.refuse(f"{key}.low", f"a log scale needs low > 0, got {low:g}")
    else:
        _allowed(low, key=f"{key}.low", knob=knob, findings=findings)
    _allowed(high, key=f"{key}.high", knob=knob, findings=findings)
    if log and step is not None:
        findings.refuse(key, "step and log exclude each other; remove one")
    if step is not None and step <= 0:
        findings.refuse(f"{key}.step", f"must be above 0, got {step:g}")
        return None
    return _grid(
        Range(low=low, high=high, log=log, step=step, kind="int" if whole else "float"), key=key, findings=findings
    )


def _options(knob: Hyperparameter) -> str:
    if isinstance(limits := _limits(knob), Choice):
        return f" of {', '.join(str(option) for option in limits.options)}"
    return ""


def _range_keys(raw: Mapping[str, Any], *, key: str, findings: Findings) -> bool:
    before = len(findings.problems)
    for name in raw:
        if name in ("choices", "values", "options"):
            findings.refuse_key(f"{key}.{name}", f"{key}: write a plain list, such as {key.rpartition('.')[2]}: [1, 2]")
            return False
        if name not in _RANGE_KEYS:
            findings.refuse_key(f"{key}.{name}", f'unknown key "{name}"{did_you_mean(str(name), _RANGE_KEYS)}')
    missing = [name for name in ("low", "high") if name not in raw]
    if missing and len(findings.problems) == before:  # else the misspelt key is told already
        findings.refuse(key, f"a range needs low and high; {' and '.join(missing)} missing")
    return len(findings.problems) == before


def _grid(domain: Range, *, key: str, findings: Findings) -> Domain:
    """The range as it will be sampled: ended on its last step, fixed where nothing is left to search."""
    high = domain.high
    if domain.step is not None:
        steps = math.floor((domain.high - domain.low) / domain.step + _ROUNDING)
        reached = domain.low + steps * domain.step
        if domain.high - reached > _ROUNDING * domain.step:
            high = round(reached) if domain.kind == "int" else float(f"{reached:.15g}")
            message = (
                f"high {domain.high:g} is not reached with step {domain.step:g} from {domain.low:g}; used {high:g}"
            )
            findings.warn(key, message)
    if domain.low == high:
        findings.warn(key, "has one value; it is fixed, not searched")
        return Fixed(value=round(domain.low) if domain.kind == "int" else float(domain.low))
    if not domain.log and domain.step is None and domain.low > 0 and high / domain.low >= 1000:
        findings.warn(
            key, f"spans {math.log10(high / domain.low):.0f} powers of ten on a linear scale; log: true is usual"
        )
    return Range(low=domain.low, high=high, log=domain.log, step=domain.step, kind=domain.kind)
