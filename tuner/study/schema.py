"""The study file's JSON Schema, so that editors complete and check it while it is written."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tuner.study.build import LEARNING_RATE
from tuner.study.catalogue import Catalogue
from tuner.study.domains import Choice, Hyperparameter, Range
from tuner.study.names import PRUNERS, SAMPLERS
from tuner.study.shared import RELATIVE_LEARNING_RATE, SHARED_HYPERPARAMETERS
from tuner.study.spec import StudySpec

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_JSON_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}

Schema = dict[str, Any]


def study_schema(catalogue: Catalogue) -> Schema:
    """The schema (draft 2020-12) of a study file.

    What depends on two places at once (``low`` above ``high``, a metric of another task) is left to the check.

    Args:
        catalogue: Tasks and strategies that exist; their names become enumerations.
    """
    schema = StudySpec.model_json_schema()
    definitions, properties = schema["$defs"], schema["properties"]
    properties["task"]["enum"] = list(catalogue.tasks)
    metrics = dict.fromkeys(metric.name for task in catalogue.tasks.values() for metric in task.metrics)
    definitions["ObjectiveSpec"]["properties"]["metric"]["enum"] = list(metrics)
    properties["strategies"] |= {"items": _strategy(catalogue), "uniqueItems": True}
    properties["space"] = _space(catalogue) | {"description": properties["space"]["description"]}
    search = definitions["SearchSpec"]["properties"]
    search["sampler"] = _choice(SAMPLERS, search["sampler"])
    search["pruner"] = _choice(PRUNERS, search["pruner"])
    return {
        "$schema": DIALECT,
        "title": "tuner study file",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def _combinable(catalogue: Catalogue) -> str:
    """A pattern of two or more strategies that may be combined."""
    names = "|".join(re.escape(name) for name, info in catalogue.strategies.items() if info.combinable)
    return rf"^({names})(\+({names}))+$"


def _strategy(catalogue: Catalogue) -> Schema:
    known = [{"const": name, "description": info.summary} for name, info in catalogue.strategies.items()]
    combined = {"type": "string", "pattern": _combinable(catalogue), "description": "a combination"}
    return {"anyOf": [*known, combined]}


def _choice(names: Iterable[str], schema: Schema) -> Schema:
    named = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "name": {"enum": list(names)},
            "options": {"type": "object", "description": "arguments of the Optuna class"},
        },
    }
    return {"anyOf": [{"enum": list(names)}, named], "description": schema["description"], "default": "auto"}


def _space(catalogue: Catalogue) -> Schema:
    """Ranges of shared hyperparameters, and a block for every strategy with its own ones besides."""
    shared = {knob.name: _domain(knob) for knob in (LEARNING_RATE, *SHARED_HYPERPARAMETERS)}
    inside = {name: schema for name, schema in shared.items() if name != RELATIVE_LEARNING_RATE}
    blocks = {}
    for name, info in catalogue.strategies.items():
        own = {knob.name.removeprefix(f"{name}."): _domain(knob) for knob in info.hyperparameters}
        blocks[name] = {
            "type": "object",
            "description": info.summary,
            "properties": inside | own,
            "additionalProperties": False,
        }
    combined = {"type": "object", "properties": inside, "additionalProperties": False}
    return {
        "type": ["object", "null"],
        "properties": shared | blocks,
        "patternProperties": {_combinable(catalogue): combined},
        "additionalProperties": False,
    }


def _domain(knob: Hyperparameter) -> Schema:
    """One value, a list of values, or a range."""
    value: Schema = {"type": _JSON_TYPES[type(knob.default)]}
    forms: list[Schema] = [value, {"type": "array", "items": value, "minItems": 1, "uniqueItems": True}]
    if isinstance(knob.allowed, Choice):
        value["enum"] = list(knob.allowed.options)
    elif value["type"] in ("integer", "number"):
        if isinstance(knob.allowed, Range):
            value |= {"minimum": knob.allowed.low, "maximum": knob.allowed.high}
        step = {"type": value["type"], "exclusiveMinimum": 0}
        forms.append(
            {
                "type": "object",
                "properties": {"low": value, "high": value, "log": {"type": "boolean"}, "step": step},
                "required": ["low", "high"],
                "additionalProperties": False,
            }
        )
    return {"anyOf": forms, "description": f"{knob.help} (recipe: {knob.default})"}
