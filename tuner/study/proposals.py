"""Values that a person proposes for one trial, checked against the study's space and turned into what a sampler would say."""

from __future__ import annotations

import math
from collections.abc import Mapping

from tuner.errors import UsageError
from tuner.study.domains import Choice, Domain, Fixed, Range, Value
from tuner.study.hyperparameters import RELATIVE_LEARNING_RATE
from tuner.study.messages import quoted
from tuner.study.names import did_you_mean, synonyms
from tuner.study.space import SearchSpace, StrategySpace, absolute_name

_EDGE = 1e-6  # relative: a range's end as people write it, with few digits, is inside


def choose_strategy(space: SearchSpace, asked: str | None) -> str:
    """The strategy of a proposed trial.

    Args:
        space: The study's space.
        asked: What the person named; None where there is only one anyway.

    Raises:
        UsageError: If the study does not have it, or has several and none is named.
    """
    if asked is None and len(space.names) == 1:
        return space.names[0]
    if asked is None:
        raise UsageError("no strategy is named", fix=f"say one of {', '.join(space.names)}")
    if asked not in space.names:
        raise UsageError(f"unknown strategy {quoted(asked)}{did_you_mean(asked, space.names)}")
    return asked


def as_proposal(block: StrategySpace, values: Mapping[str, Value]) -> dict[str, Value]:
    """What a sampler would have to say so that a trial gets these values.

    Args:
        block: The space of the trial's strategy.
        values: By name, in absolute units as :meth:`tuner.study.space.SearchSpace.absolute` gives them. What is left out is sampled.

    Returns:
        By the names of ``block.domains``; fixed ones are left out.

    Raises:
        UsageError: With every mistake, if a name is unknown or a value is not in its domain.
    """
    names = {absolute_name(name, block): name for name in block.domains}
    proposal: dict[str, Value] = {}
    mistakes = []
    for known_as, value in values.items():
        name = names.get(known_as)
        if name is None:
            # The strategy's own knob by its last word, too, as study files name it inside a block: r for lora.r.
            own = [full for full in names if full.rpartition(".")[2] in (known_as, *synonyms(known_as))]
            hint = f'; did you mean "{own[0]}"?' if own else did_you_mean(known_as, names)
            mistakes.append(f"unknown parameter {quoted(known_as)}{hint}")
            continue
        domain = block.domains[name]
        try:
            if name == RELATIVE_LEARNING_RATE:
                placed = _decades(domain, value, rate=block.rate(_optimizer(block, values)))
            else:
                placed = _placed(domain, value)
            if not isinstance(domain, Fixed):
                proposal[name] = placed
        except ValueError as error:
            mistakes.append(f"{known_as}={value} {error}")
    if mistakes:
        raise UsageError("; ".join(mistakes))
    return proposal


def _optimizer(block: StrategySpace, values: Mapping[str, Value]) -> Value | None:
    """The optimizer that the learning rate is for."""
    domain = block.domains.get("optimizer")
    if domain is None:
        return None
    if isinstance(domain, Fixed):
        return domain.value
    if "optimizer" in values:
        return values["optimizer"]
    assert isinstance(domain, Choice)
    if len({block.rate(option) for option in domain.options}) > 1:
        raise ValueError(f"needs the optimizer, too: set optimizer to one of {_listed(domain.options)}")
    return domain.options[0]


def _decades(domain: Domain, value: Value, *, rate: float) -> Value:
    """An absolute learning rate as decades from the strategy's own."""
    number = _number(value)
    if isinstance(domain, Range):
        low, high = rate * 10.0**domain.low, rate * 10.0**domain.high
        if not low * (1.0 - _EDGE) <= number <= high * (1.0 + _EDGE):
            raise ValueError(f"is outside [{low:.3g}, {high:.3g}]")
        return _placed(domain, min(max(math.log10(number / rate), domain.low), domain.high))
    options = domain.options if isinstance(domain, Choice) else (domain.value,)
    for option in options:
        if math.isclose(rate * 10.0 ** float(option), number, rel_tol=1e-3):
            return option
    raise ValueError(f"is none of {', '.join(f'{rate * 10.0 ** float(option):.3g}' for option in options)}")


def _placed(domain: Domain, value: Value) -> Value:
    """A value as the domain holds it.

    Raises:
        ValueError: If it is not in it; the message goes on after the value.
    """
    if isinstance(domain, Fixed):
        return _match((domain.value,), value, what=f"is not searched: it is {_listed((domain.value,))} in this study")
    if isinstance(domain, Choice):
        return _match(domain.options, value, what=f"is none of {_listed(domain.options)}")
    number = _number(value)
    if domain.kind == "int" and number != int(number):
        raise ValueError("must be a whole number")
    if not domain.low - abs(domain.low) * _EDGE <= number <= domain.high + abs(domain.high) * _EDGE:
        raise ValueError(f"is outside [{domain.low:g}, {domain.high:g}]")
    placed = domain.clip(number)
    if not math.isclose(float(placed), number, rel_tol=_EDGE, abs_tol=1e-12):
        raise ValueError(f"is not on the grid of {domain.low:g} to {domain.high:g} in steps of {domain.step:g}")
    return placed


def _match(options: tuple[Value, ...], value: Value, *, what: str) -> Value:
    for option in options:
        if type(option) is type(value) and option == value:
            return option
    for option in options:  # 16 for 16.0, and what a shell gives: text for everything
        numbers = not isinstance(option, bool | str) and not isinstance(value, bool | str)
        if (numbers and float(option) == float(value)) or str(option).lower() == str(value).lower():
            return option
    texts = [option for option in options if isinstance(option, str)]
    hint = did_you_mean(value, texts) if isinstance(value, str) and len(options) > 1 else ""
    raise ValueError(what + (hint if "did you mean" in hint else ""))


def _number(value: Value) -> float:
    try:
        if not isinstance(value, bool) and math.isfinite(number := float(value)):
            return number
    except ValueError:
        pass
    raise ValueError("must be a number")


def _listed(options: tuple[Value, ...]) -> str:
    return ", ".join(str(option).lower() if isinstance(option, bool) else str(option) for option in options)
