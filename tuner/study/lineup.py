"""Which strategies may compete: single ones, combinations, sequences, and what the search composes of several.

Like the other rules it reads raw data of any shape, and passes over what has the wrong type.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tuner.study.catalogue import Catalogue
from tuner.study.messages import quoted
from tuner.study.names import COMBINE, THEN, combinations, components, did_you_mean, joined, listed, stages
from tuner.study.ranges import Findings

MOST_STAGES = 2
COMPOSED = 2, 5
"""Fewest and most strategies of which the search composes; five make 31 combinations."""

_Identity = tuple[frozenset[str], ...]
"""What makes two names one: the components of each stage, in any order."""


def read_lineup(given: Any, *, catalogue: Catalogue, findings: Findings) -> list[str]:
    """The names of the strategies that can be used; what is wrong with the others is noted.

    Args:
        given: The value of ``strategies``, of any shape.
        catalogue: The strategies that exist.
        findings: Takes the mistakes.
    """
    lineup = _Lineup(catalogue=catalogue, findings=findings)
    if isinstance(given, Mapping):
        lineup.compose(given.get("compose"), key="strategies.compose")
    for index, item in enumerate(given if isinstance(given, list | tuple) else ()):
        if isinstance(item, Mapping):
            lineup.compose(item.get("compose"), key=f"strategies.{index}.compose")
        elif isinstance(item, str):
            lineup.add(joined(item), key=f"strategies.{index}")
    return list(lineup.seen.values())


class _Lineup:
    def __init__(self, *, catalogue: Catalogue, findings: Findings) -> None:
        self.seen: dict[_Identity, str] = {}
        self._composed: set[_Identity] = set()
        self._catalogue = catalogue
        self._findings = findings

    def add(self, name: str, *, key: str) -> None:
        """A name that stands in the list by itself."""
        if mistake := _mistake(name, self._catalogue):
            self._findings.refuse(key, mistake)
            return
        identity = _identity(name)
        first = self.seen.get(identity)
        if identity in self._composed:
            self._findings.refuse(key, f'"{name}" is composed already; remove it')
        elif first is not None:
            self._findings.refuse(
                key, f'"{name}" is given twice' if first == name else f'"{name}" is the same as "{first}"'
            )
        self.seen.setdefault(identity, name)

    def compose(self, parts: Any, *, key: str) -> None:
        """All combinations of some strategies."""
        if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
            return
        if not self._parts_are_right(parts, key=key):
            return
        for name in combinations(parts):
            identity = _identity(name)
            if identity in self.seen:
                self._findings.refuse(key, f'makes "{name}", which is given before; remove one of them')
            self.seen.setdefault(identity, name)
            self._composed.add(identity)

    def _parts_are_right(self, parts: Sequence[str], *, key: str) -> bool:
        before = len(self._findings.problems)
        fewest, most = COMPOSED
        if not fewest <= len(parts) <= most:
            makes = f", which make {2 ** len(parts) - 1:,} combinations" if len(parts) > most else ""
            self._findings.refuse(key, f"{fewest} to {most} strategies can be composed, got {len(parts)}{makes}")
        for index, part in enumerate(parts):
            mistake = _mistake(part, self._catalogue)
            if len(components(part)) > 1:
                mistake = f'"{part}" is more than one strategy; name each by itself'
            elif mistake is None and not self._catalogue.strategies[part].combinable:
                mistake = _not_combinable(part, self._catalogue)
            elif mistake is None and part in parts[:index]:
                mistake = f'"{part}" is given twice'
            if mistake is not None:
                self._findings.refuse(f"{key}.{index}", mistake)
        return len(self._findings.problems) == before


def _identity(name: str) -> _Identity:
    return tuple(frozenset(components(stage)) for stage in stages(name))


def _mistake(name: str, catalogue: Catalogue) -> str | None:
    """Why a name is none of a strategy, a combination or a sequence; None if it is one."""
    parts = components(name)
    for part in parts:
        if part not in catalogue.strategies:
            return f"unknown strategy {quoted(part)}{did_you_mean(part.strip(), catalogue.strategies)}"
    for stage in stages(name):
        inside = components(stage)
        for part in inside:
            if len(inside) > 1 and not catalogue.strategies[part].combinable:
                return _not_combinable(part, catalogue)
        if len(set(inside)) < len(inside):
            return f'"{stage}" names a component twice'
    return _sequence_mistake(name, catalogue) if len(stages(name)) > 1 else None


def _sequence_mistake(name: str, catalogue: Catalogue) -> str | None:
    if len(stages(name)) > MOST_STAGES:
        return f'"{name}" has {len(stages(name))} stages; a sequence has two, such as head{THEN}lora'
    first, second = (set(components(stage)) for stage in stages(name))
    if both := [part for part in components(name) if part in first and part in second]:
        return f'"{name}" names {both[0]} in both stages; the second would train what the first does'
    for part in components(name):
        if not catalogue.strategies[part].sequential:
            able = [other for other, info in catalogue.strategies.items() if info.sequential]
            return f'"{part}" cannot stand in a sequence; these can: {listed(able)}'
    return None


def _not_combinable(part: str, catalogue: Catalogue) -> str:
    able = [other for other, info in catalogue.strategies.items() if info.combinable]
    return f'"{part}" cannot be combined with others; combinable: {listed(able)}'


def strategy_pattern(catalogue: Catalogue) -> str:
    """A regular expression of the combinations and sequences, for editors; it cannot see a component named twice."""
    able = "|".join(re.escape(name) for name, info in catalogue.strategies.items() if info.combinable)
    inside = "|".join(re.escape(name) for name, info in catalogue.strategies.items() if info.sequential)
    combination = rf"({able})(\{COMBINE}({able}))+"
    stage = rf"({combination}|{inside})"
    return rf"^({combination}|{stage}{THEN}{stage})$"
