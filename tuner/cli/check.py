"""What ``tuner study check`` says: the study as it would run, for people and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tuner.cli.documents import domain_words
from tuner.errors import Problem
from tuner.study.domains import Fixed, Range, domain_to_json
from tuner.study.shared import RELATIVE_LEARNING_RATE
from tuner.study.space import SearchSpace, StrategySpace

if TYPE_CHECKING:
    from tuner.study.check import CheckReport
    from tuner.study.dataset import DataFacts
    from tuner.study.spec import StudySpec


def check_document(spec: StudySpec, found: CheckReport) -> dict[str, Any]:
    """A study that could be read, as JSON."""
    model, data = found.model, found.data
    return {
        "ok": not found.problems,
        "name": spec.name,
        "problems": problems_document(found.problems),
        "warnings": problems_document(found.warnings),
        "model": None
        if model is None
        else {"parameters": model.parameters, "architecture": model.architecture, "model_type": model.model_type},
        "data": None
        if data is None
        else {
            "train_rows": data.train_rows,
            "validation_rows": data.validation_rows,
            "test_rows": data.test_rows,
            "classes": dict(data.classes),
        },
        "space": [_block_document(block) for block in found.space.strategies],
        "forecast": asdict(found.forecast),
    }


def broken_document(problems: Sequence[Problem]) -> dict[str, Any]:
    """A study file that cannot be read, as JSON."""
    return {
        "ok": False,
        "name": None,
        "problems": problems_document(problems),
        "warnings": [],
        "model": None,
        "data": None,
        "space": [],
        "forecast": None,
    }


def problems_document(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    """Mistakes as JSON; line and column are null where they are not known."""
    return [
        {"key": item.key, "message": item.message, "line": item.line or None, "column": item.column or None}
        for item in problems
    ]


def _block_document(block: StrategySpace) -> dict[str, Any]:
    return {
        "strategy": block.strategy,
        "learning_rate_prior": block.prior,
        "domains": {name: domain_to_json(domain) for name, domain in block.domains.items()},
        "recipe": dict(block.recipe),
    }


def check_lines(spec: StudySpec, found: CheckReport) -> list[str]:
    """A study without mistakes, for people: model, data, space and cost."""
    model, data = found.model, found.data
    lines = [f"{spec.name}: nothing is wrong"]
    if model is not None:
        lines.append(f"  model       {model.source}")
        lines.append(f"              {model.architecture or model.model_type}, {model.parameters:,} parameters")
    if data is not None:
        lines += [f"  data        {_rows(data)}", f"              {_classes(data.classes)}"]
    lines += [
        f"  {'plan' if position == 0 else '':<10}  {text}" for position, text in enumerate(found.forecast.lines())
    ]
    lines += [
        f"  {'space' if position == 0 else '':<10}  {text}" for position, text in enumerate(space_lines(found.space))
    ]
    return lines


def _rows(data: DataFacts) -> str:
    words = f"{data.train_rows:,} rows to train on, {data.validation_rows:,} to judge by"
    words += f", {data.test_rows:,} to test the finalists" if data.test_rows else ", none to test"
    return words if data.complete else f"{words} (only the first rows were looked at)"


def _classes(classes: Mapping[str, int]) -> str:
    shown = [f"{name} {count:,}" for name, count in list(classes.items())[:4]]
    more = f", {len(classes) - 4} more" if len(classes) > 4 else ""
    return f"{len(classes)} classes: {', '.join(shown)}{more}"


def space_lines(space: SearchSpace) -> list[str]:
    """The search space: what all strategies share once, then each strategy's own."""
    blocks = space.strategies
    shared = [
        name
        for name, domain in blocks[0].domains.items()
        if all(block.domains.get(name) == domain for block in blocks) and name != RELATIVE_LEARNING_RATE
    ]
    lines = []
    fixed = []
    for name in shared:
        domain = blocks[0].domains[name]
        if isinstance(domain, Fixed):
            fixed.append(f"{name} {domain.value}")
        else:
            lines.append(f"{name}: {domain_words(domain)}")
    if fixed:
        lines.append(f"fixed: {', '.join(fixed)}")
    return lines + [line for block in blocks for line in _own_lines(block, shared)]


def _own_lines(block: StrategySpace, shared: Sequence[str]) -> list[str]:
    lines = []
    for name, domain in block.domains.items():
        if name in shared:
            continue
        if name == RELATIVE_LEARNING_RATE and isinstance(domain, Range):
            low, high = block.prior * 10**domain.low, block.prior * 10**domain.high
            lines.append(f"{block.strategy}: learning_rate {low:.2g} to {high:.2g} (log), default {block.prior:.2g}")
        else:
            lines.append(f"{block.strategy}: {name.removeprefix(f'{block.strategy}.')} {domain_words(domain)}")
    return lines
