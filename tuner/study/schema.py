"""The study file's JSON Schema, so that editors complete and check it while it is written."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tuner.study.build import LEARNING_RATE
from tuner.study.catalogue import Catalogue
from tuner.study.costs import COSTS
from tuner.study.domains import Choice, Hyperparameter, Range
from tuner.study.hyperparameters import RELATIVE_LEARNING_RATE, SHARED_HYPERPARAMETERS
from tuner.study.lineup import COMPOSED, strategy_pattern
from tuner.study.names import PRUNERS, SAMPLERS
from tuner.study.spec import StudySpec
from tuner.study.switch import SWITCH, SWITCH_HYPERPARAMETERS
from tuner.study.teacher import DISTILL_HYPERPARAMETERS

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
    definitions["ObjectiveSpec"]["properties"]["metric"]["enum"] = [*metrics, *COSTS]
    properties["strategies"] = _strategies(catalogue, description=properties["strategies"]["description"])
    properties["space"] = _space(catalogue) | {"description": properties["space"]["description"]}
    for knob in DISTILL_HYPERPARAMETERS:
        definitions["DistillSpec"]["properties"][knob.name.rpartition(".")[2]] = _domain(knob)
    search = definitions["SearchSpec"]["properties"]
    search["sampler"] = _choice(SAMPLERS, search["sampler"])
    search["pruner"] = _choice(PRUNERS, search["pruner"])
    return {
        "$schema": DIALECT,
        "title": "tuner study file",
        **{key: value for key, value in schema.items() if key != "title"},
    }


def _strategies(catalogue: Catalogue, *, description: str) -> Schema:
    """A list of names and of sets that are composed, or one such set."""
    known = [{"const": name, "description": info.summary} for name, info in catalogue.strategies.items()]
    combined = {
        "type": "string",
        "pattern": strategy_pattern(catalogue),
        "description": "a combination such as lora+bitfit, or a sequence such as head>lora",
    }
    fewest, most = COMPOSED
    parts = {
        "type": "array",
        "items": {"enum": [name for name, info in catalogue.strategies.items() if info.combinable]},
        "minItems": fewest,
        "maxItems": most,
        "uniqueItems": True,
        "description": "they and all their combinations compete",
    }
    composed = {
        "type": "object",
        "properties": {"compose": parts},
        "required": ["compose"],
        "additionalProperties": False,
        "description": "the search composes the strategy",
    }
    listed = {
        "type": "array",
        "items": {"anyOf": [*known, combined, composed]},
        "minItems": 1,
        "uniqueItems": True,
    }
    return {"anyOf": [listed, composed], "description": description}


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
    switch = {
        "type": "object",
        "description": "when a sequence such as head>lora goes on to its second stage",
        "properties": {knob.name.rpartition(".")[2]: _domain(knob) for knob in SWITCH_HYPERPARAMETERS},
        "additionalProperties": False,
    }
    return {
        "type": ["object", "null"],
        "properties": shared | blocks | {SWITCH: switch},
        "patternProperties": {strategy_pattern(catalogue): combined},
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
