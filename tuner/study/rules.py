"""What a study file must obey beyond the types of its fields: names that exist, and values that fit each other.

The rules read the raw data, so that they speak even where another part of the file is wrong; a value of the wrong type
is passed over, since its own message says so already.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.errors import DataError, Problem
from tuner.study.aims import aim_problems
from tuner.study.build import resolve_space
from tuner.study.catalogue import Catalogue, TaskInfo
from tuner.study.lineup import read_lineup
from tuner.study.messages import quoted, shown
from tuner.study.names import PRUNERS, SAMPLERS, count_noun, did_you_mean
from tuner.study.ranges import Findings
from tuner.study.sources import is_hub, is_hub_name, is_package, parse_hub, split_package
from tuner.study.spec import LIMITS, BudgetSpec, TrainingSpec
from tuner.study.table import FORMATS
from tuner.study.teacher import named_trial

_ANY_SIZE = 1e8  # parameters; where only mistakes are looked for, the size of the model changes nothing
_PERCENT = re.compile(r"\s*([0-9]{1,2}(?:\.[0-9]{1,6})?)\s*%\s*")
_PATH_STARTS = ("/", "./", "../", "~")


def rule_problems(data: Mapping[str, Any], *, catalogue: Catalogue, base: Path) -> list[Problem]:
    """Every broken rule.

    Args:
        data: The study file's data, of any shape.
        catalogue: Tasks and strategies that exist.
        base: Folder to which relative paths are relative.
    """
    findings = Findings()
    task = _task(data, catalogue=catalogue, findings=findings)
    aim_problems(data, task=task, catalogue=catalogue, findings=findings)
    _data(_section(data, "data"), findings=findings)
    _model(data, key="model", base=base, findings=findings)
    _model(_section(data, "distill"), key="teacher", base=base, findings=findings)
    strategies = read_lineup(data.get("strategies"), catalogue=catalogue, findings=findings)
    if strategies:
        resolved = resolve_space(
            _section(data, "space"),
            strategies=strategies,
            catalogue=catalogue,
            parameters=_ANY_SIZE,
            distill=data["distill"] if isinstance(data.get("distill"), Mapping) else None,
        )
        findings.problems.extend(resolved.problems)
    _folds(data, findings=findings)
    _search(data, findings=findings)
    _budget(data, findings=findings)
    return findings.problems


def is_path(model: str, *, base: Path) -> bool:
    """Whether ``model`` names a folder on this machine rather than a model on the hub."""
    if is_package(model) or "\0" in model:
        return False
    return model.startswith(_PATH_STARTS) or (base / model).is_dir()


def _section(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = data.get(name)
    return section if isinstance(section, Mapping) else {}


def _task(data: Mapping[str, Any], *, catalogue: Catalogue, findings: Findings) -> TaskInfo | None:
    name = data.get("task")
    if not isinstance(name, str):
        return None
    if name not in catalogue.tasks:
        findings.refuse("task", f"unknown task {quoted(name)}{did_you_mean(name, catalogue.tasks)}")
    return catalogue.tasks.get(name)


def _data(data: Mapping[str, Any], *, findings: Findings) -> None:
    sources: dict[str, str] = {}
    for name in ("train", "validation", "test"):
        source = data.get(name)
        if not isinstance(source, str):
            continue
        key = f"data.{name}"
        _source(source, key=key, findings=findings)
        if source in sources:
            findings.refuse(key, f"is the same as {sources[source]}; the rows must be others")
        sources.setdefault(source, key)
    text, label = data.get("text", "text"), data.get("label", "label")
    columns = [text] if isinstance(text, str) else list(text) if isinstance(text, list | tuple) else []
    for column in columns:
        if column == label:
            findings.refuse("data.label", f"{quoted(str(label))} is also the column of the text")
    if len(columns) == 2 and columns[0] == columns[1]:
        findings.refuse("data.text", "a sentence pair needs two different columns")


def _folds(data: Mapping[str, Any], *, findings: Findings) -> None:
    held_back = _section(data, "confirm").get("held_back", "auto")
    if held_back not in ("auto", 0) and isinstance(_section(data, "data").get("validation"), Mapping):
        findings.refuse(
            "confirm.held_back",
            f"{shown(held_back)} with data.validation in folds: the search sees one fold, and all others are held back; remove the line",
        )


def _source(source: str, *, key: str, findings: Findings) -> None:
    try:
        if is_hub(source):
            parse_hub(source)
            return
        if is_package(source):
            split_package(source)
    except DataError as error:
        findings.refuse(key, error.message)
        return
    if key == "data.validation" and (percent := _PERCENT.fullmatch(source)):
        findings.refuse(key, f"{quoted(source)} is no share of the rows; write {float(percent[1]) / 100:g}")
        return
    ending = Path(source).suffix.lower()
    if not source.strip() or "\0" in source:
        findings.refuse(key, f"must be a file, got {shown(source)}")
    elif ending not in FORMATS:
        what = f"files ending in {quoted(ending)} cannot be read" if ending else f"{quoted(source)} has no ending"
        findings.refuse(key, f"{what}; known: {', '.join(FORMATS)}, package://..., hub://...")


def _model(data: Mapping[str, Any], *, key: str, base: Path, findings: Findings) -> None:
    """The study's model or its teacher: a folder, a package's, or one on the hub."""
    model, revision = data.get(key), data.get("revision")
    if not isinstance(model, str):
        return
    section = "" if key == "model" else "distill."
    local = is_package(model) or is_path(model, base=base)
    is_trial = key == "teacher" and not local and named_trial(model) is not None
    if is_package(model):
        try:
            split_package(model)
        except DataError as error:
            findings.refuse(f"{section}{key}", error.message)
    elif not local and not is_hub_name(model):
        trial = ", nor STUDY/NUMBER" if key == "teacher" else ""
        findings.refuse(
            f"{section}{key}",
            f"{quoted(model)} is neither a folder here, nor OWNER/NAME on the hub, nor package://...{trial}",
        )
    if (local or is_trial) and isinstance(revision, str):
        findings.refuse(f"{section}revision", "only a model on the hub has revisions; remove the line")


def _search(data: Mapping[str, Any], *, findings: Findings) -> None:
    search = _section(data, "search")
    for kind, known in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
        choice = search.get(kind)
        short = isinstance(choice, str)
        name = choice if short else choice.get("name") if isinstance(choice, Mapping) else None
        if isinstance(name, str) and name not in known:
            key = f"search.{kind}" if short else f"search.{kind}.name"
            findings.refuse(key, f"unknown {kind} {quoted(name)}{did_you_mean(name, known)}")
    if _section(search, "stop_when") and isinstance(data.get("objective"), list) and len(data["objective"]) > 1:
        findings.refuse("search.stop_when", "looks at the gain of one objective, and there are several; leave it out")
    options = _section(_section(search, "pruner"), "options")
    epochs = _epochs(data)
    for option in ("n_warmup_steps", "min_resource"):
        warmup = options.get(option)
        if isinstance(warmup, int) and epochs is not None and warmup >= epochs:
            key = f"search.pruner.options.{option}"
            findings.refuse(key, f"{warmup} is not below training.epochs {epochs}: nothing can be pruned")


def _epochs(data: Mapping[str, Any]) -> int | None:
    epochs = _section(data, "training").get("epochs", TrainingSpec().epochs)
    return epochs if isinstance(epochs, int) and not isinstance(epochs, bool) else None


def _budget(data: Mapping[str, Any], *, findings: Findings) -> None:
    if "budget" not in data:
        return
    budget = data["budget"]
    is_known = isinstance(budget, Mapping) and set(budget) <= set(
        BudgetSpec.model_fields
    )  # else the typo is told already
    if is_known and all(budget.get(limit) is None for limit in LIMITS):
        findings.refuse("budget", f"give at least one of {', '.join(LIMITS[:-1])} and {LIMITS[-1]}")
    if isinstance(budget, Mapping) and budget.get("money") is not None and budget.get("price_per_hour") is None:
        findings.refuse("budget.money", "needs price_per_hour: what an hour of one slot costs")
    limit, epochs = _section(data, "budget").get("epochs"), _epochs(data)
    if isinstance(limit, int) and epochs is not None and 1 <= limit < epochs:
        findings.refuse("budget.epochs", f"{limit} is less than the {count_noun(epochs, 'epoch')} of one trial")
