"""What ``tuner study check`` says: the study as it would run, for people and as JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from tuner.cli.costs import outlook_document, outlook_words
from tuner.cli.documents import domain_words
from tuner.cli.output import table
from tuner.errors import Problem
from tuner.report.formats import format_count, format_value
from tuner.study.build import LEARNING_RATE
from tuner.study.domains import Fixed, Range, domain_to_json
from tuner.study.hyperparameters import RELATIVE_LEARNING_RATE
from tuner.study.names import count_noun
from tuner.study.space import SearchSpace, StrategySpace

if TYPE_CHECKING:
    from tuner.study.check import CheckReport
    from tuner.study.dataset import DataFacts
    from tuner.study.outlook import Outlook
    from tuner.study.proof import StrategyProof
    from tuner.study.spec import StudySpec


def check_document(spec: StudySpec, found: CheckReport, cost: Outlook | str) -> dict[str, Any]:
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
            "held_back_rows": data.held_back_rows,
            "folds": data.folds,
            "test_rows": data.test_rows,
            "classes": dict(data.classes),
        },
        "space": [_block_document(block) for block in found.space.strategies],
        "strategies": [_proof_document(proof) for proof in found.proofs],
        "forecast": asdict(found.forecast),
        "cost": None if isinstance(cost, str) else outlook_document(cost),
    }


def _proof_document(proof: StrategyProof) -> dict[str, Any]:
    return {
        "strategy": proof.strategy,
        "works": proof.works,
        "trainable_params": proof.trainable,
        "total_params": proof.total,
        "memory_bytes": proof.memory,
        "checkpoint_bytes": proof.checkpoint,
        "refusals": [asdict(refusal) for refusal in proof.refusals],
        "unknown": proof.unknown,
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
        "strategies": [],
        "forecast": None,
        "cost": None,
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
        "is_tried_first": block.is_tried_first,
    }


def check_lines(
    spec: StudySpec, found: CheckReport, *, cost: Outlook | str = "", learns: str = "", width: int | None = None
) -> list[str]:
    """A study without mistakes, for people: model, data, cost, space, and each strategy on this model.

    Args:
        spec: The study.
        found: What the check found.
        cost: What it will cost, or why that is not known.
        learns: What past studies would teach it now.
        width: Columns of the terminal; None: nothing is cut.
    """
    model, data = found.model, found.data
    lines = [f"{spec.name}: nothing is wrong"]
    if model is not None:
        lines.append(f"  model       {model.source}")
        lines.append(f"              {model.architecture or model.model_type}, {model.parameters:,} parameters")
    if data is not None:
        lines += _section(
            "data", (_rows(data), _classes(data.classes, is_sampled=spec.data.train_rows is not None)), width=width
        )
    names = ", ".join(one.metric for one in spec.objectives)
    lines += _section("objective", (names + ": weighed against each other" * spec.has_front,), width=width)
    lines += _section("constraint", spec.constraints or (), width=width)
    lines += _section("plan", found.forecast.lines(), width=width)
    if stop := spec.search.stop_when:
        words = f"when the next {stop.trials} trials are expected to gain less than {stop.gain:g} {spec.lead.metric}"
        lines += _section("ends early", (words,), width=width)
    if learns:
        lines += _section("learns", (learns,), width=width)
    if cost:
        lines += _section("cost", (_cost_words(cost),), width=width)
    lines += _section("space", shared_lines(found.space), width=width)
    lines += ["", *strategy_lines(found, width=width)]
    if own := own_lines(found.space):
        longest = max(len(owner) for owner, _ in own)
        lines += ["", "  searched besides"]
        lines += [text for owner, words in own for text in _wrapped(owner, words, width, column=longest)]
    if any(proof.memory for proof in found.proofs):
        words = (
            f"memory: an estimate of the largest batch at {spec.training.max_length} tokens in fp32; bf16 takes less"
        )
        lines += ["", *textwrap.wrap(words, width or 1000, initial_indent="  ", subsequent_indent="  ")]
    if any(not isinstance(block.domains.get("optimizer"), Fixed | None) for block in found.space.strategies):
        words = "learning rate: with adamw; each other optimizer has its own multiple of it"
        lines += textwrap.wrap(words, width or 1000, initial_indent="  ", subsequent_indent="  ")
    return lines


def _cost_words(cost: Outlook | str) -> str:
    if isinstance(cost, str):
        return cost
    return f"{outlook_words(cost)} (by {cost.stands_on}; pruning makes the low end)"


def _section(name: str, texts: Sequence[str], *, width: int | None) -> list[str]:
    return [line for position, text in enumerate(texts) for line in _wrapped("" if position else name, text, width)]


def _wrapped(name: str, text: str, width: int | None, *, column: int = 10) -> list[str]:
    """A name and what is said of it, with the further lines below the first; a terminal would break within a word."""
    return textwrap.wrap(
        text,
        width or 1000,
        initial_indent=f"  {name:<{column}}  ",
        subsequent_indent=" " * (column + 4),
        break_long_words=False,
        break_on_hyphens=False,
    )


def _rows(data: DataFacts) -> str:
    words = f"{count_noun(data.train_rows, 'row')} to train on, {data.validation_rows:,} to judge by"
    if data.folds:
        words += f" (one of {data.folds} folds; the finalists are judged by the others)"
    if data.held_back_rows:
        words += f", {data.held_back_rows:,} held back from the search"
    words += f", {data.test_rows:,} to test the finalists" if data.test_rows else ", none to test"
    return words if data.complete else f"{words} (only the first rows were looked at)"


def _classes(classes: Mapping[str, int], *, is_sampled: bool) -> str:
    shown = [f"{name} {count:,}" for name, count in list(classes.items())[:4]]
    more = f", {len(classes) - 4} more" if len(classes) > 4 else ""
    counted = f" (in all {count_noun(sum(classes.values()), 'row')} of the file)" if is_sampled else ""
    return f"{count_noun(len(classes), 'class', 'classes')}: {', '.join(shown)}{more}{counted}"


def shared_lines(space: SearchSpace) -> list[str]:
    """What all strategies share: a line for each searched hyperparameter, one for those that are fixed, one for zeros."""
    first, *others = space.strategies
    lines: list[str] = []
    fixed: list[str] = []
    zero: list[str] = []
    for name, domain in first.domains.items():
        if name == RELATIVE_LEARNING_RATE or any(block.domains.get(name) != domain for block in others):
            continue
        if isinstance(domain, Fixed):
            (fixed if domain.value or isinstance(domain.value, bool) else zero).append(name)
        elif "." not in name:
            lines.append(f"{name}: {domain_words(domain)}")
    if fixed:
        lines.append(f"fixed: {', '.join(f'{name} {_fixed(first, name)}' for name in fixed)}")
    return [*lines, f"fixed at 0: {', '.join(zero)}"] if zero else lines


def _fixed(block: StrategySpace, name: str) -> str:
    domain = block.domains[name]
    return format_value(domain.value) if isinstance(domain, Fixed) else ""


def strategy_lines(found: CheckReport, *, width: int | None) -> list[str]:
    """One line for each strategy: where its learning rate is searched, and what it takes on this model."""
    proofs = {proof.strategy: proof for proof in found.proofs}
    headings = ["strategy", "learning rate"]
    headings += ["trained", "share", "memory", "checkpoint"] if proofs else []
    rows = []
    for block in found.space.strategies:
        row = [block.strategy, _rate_words(block)]
        if (proof := proofs.get(block.strategy)) is not None:
            row += [
                format_count(proof.trainable),
                _share(proof),
                _bytes(proof.memory),
                _bytes(proof.checkpoint),
            ]
        rows.append(row)
    for column in range(2, len(headings)):  # numbers with units: to the right, like plain ones
        size = max(len(row[column]) for row in (headings, *rows))
        for row in (headings, *rows):
            row[column] = row[column].rjust(size)
    return [f"  {text}" for text in table(headings, rows, width=None if width is None else width - 2)]


def own_lines(space: SearchSpace) -> list[tuple[str, str]]:
    """What only some strategies search, by the strategy that it belongs to; of combinations by the component."""
    shared = {line.partition(":")[0] for line in shared_lines(space)}
    found: dict[str, dict[str, str]] = {}
    for block in space.strategies:
        for name, domain in block.domains.items():
            owner, _, knob = name.rpartition(".")
            if isinstance(domain, Fixed) or name in shared or _is_rate(name):
                continue
            found.setdefault(owner or block.strategy, {})[knob] = domain_words(domain)
    return [(owner, ", ".join(f"{knob} {words}" for knob, words in knobs.items())) for owner, knobs in found.items()]


def _is_rate(name: str) -> bool:
    return name.rpartition(".")[2] in {RELATIVE_LEARNING_RATE, LEARNING_RATE.name}


def _rate_words(block: StrategySpace) -> str:
    """Where a strategy's learning rate is searched, in absolute units."""
    name = next(name for name in block.domains if _is_rate(name))
    domain = block.domains[name]
    optimizer = block.domains.get(f"{block.strategy}.optimizer", block.domains.get("optimizer"))
    factor = block.rate(optimizer.value) if isinstance(optimizer, Fixed) else block.rate(None)
    unit = factor if name == RELATIVE_LEARNING_RATE else None

    def words(value: float) -> str:
        rate = value if unit is None else unit * 10.0**value
        mantissa, exponent = f"{rate:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"

    if isinstance(domain, Fixed):
        return words(float(domain.value))
    if isinstance(domain, Range):
        return f"{words(domain.low)} to {words(domain.high)}"
    return " | ".join(words(float(option)) for option in domain.options)


def _share(proof: StrategyProof) -> str:
    if not proof.trainable or not proof.total:
        return "–"
    percent = 100 * proof.trainable / proof.total
    return f"{percent:.2f} %" if percent < 9.995 else f"{percent:.0f} %"


def _bytes(number: int | None) -> str:
    """Bytes with a unit, in three digits: ``17.5 MB``."""
    if number is None:
        return "–"
    size, units = float(number), ["B", "kB", "MB", "GB", "TB"]
    while size >= 999.5 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}"
