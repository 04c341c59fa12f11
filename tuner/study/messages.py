"""Mistakes of a study file in plain words: what each key may be, read off the same models that validate it."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import ErrorDetails

from tuner.errors import Problem
from tuner.study.document import KeyProblem
from tuner.study.hyperparameters import SHARED_HYPERPARAMETERS
from tuner.study.names import did_you_mean, nearest, printable, synonyms
from tuner.study.spec import StudySpec

_TAGS = ("name", "list")  # of what is no section in the unions of :mod:`tuner.study.spec`
_HOMES = ("data", "training", "space", "budget", "objective", "search", "confirm", "distill")
"""Sections in the order in which a key is looked for that stands in the wrong one: epochs is rather training's than budget's."""
_SHOWN = 60  # characters of a wrong value that are repeated

Schema = Mapping[str, Any]


def shown(value: Any) -> str:
    """A value as a message repeats it: text in quotes, control characters escaped, long ones cut."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "a block of keys"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        text = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}…"
        return f'text "{printable(text)}"'
    return str(value)[:_SHOWN]


def quoted(text: str) -> str:
    """A name as a message repeats it: in quotes, control characters escaped, cut if it is long."""
    return shown(text).removeprefix("text ")


def label_of(key: str) -> str:
    """A dotted key as a message names it: a list's item by its list, since the line shows which one it is."""
    return ".".join(part for part in key.split(".") if not part.isdigit()) or key


def spec_problems(errors: Sequence[ErrorDetails]) -> list[Problem]:
    """One problem for each key that pydantic found wrong.

    Args:
        errors: ``ValidationError.errors()`` of a :class:`StudySpec`.
    """
    problems: dict[str, Problem] = {}
    missing: list[str] = []
    for error in errors:
        if error["type"] == "too_short" and error["input"]:
            continue  # the list is long enough, but pydantic counts its valid items only, and their mistakes are told
        path, schema = _walk(error["loc"])
        key = ".".join(str(part) for part in path)
        if error["type"] == "missing":
            missing.append(key)
        if key not in problems:
            problems[key] = _problem(error, path, schema)
    for key in missing:
        section, _, name = key.rpartition(".")
        misspelt = [other for other in problems if other.rpartition(".")[0] == section and other != key]
        if any(problems[other].message.endswith(f'did you mean "{name}"?') for other in misspelt):
            del problems[key]  # one mistake, one line: the misspelt key is told already
    return list(problems.values())


def _problem(error: ErrorDetails, path: Sequence[str | int], schema: Schema) -> Problem:
    key = ".".join(str(part) for part in path)
    label = label_of(key)
    kind = error["type"]
    if kind == "extra_forbidden":
        around = _branches(_walk(path[:-1])[1])
        known = [name for branch in around for name in branch.get("properties", {})]
        name = str(path[-1])
        hint = "" if nearest(name, known) in synonyms(name) else home_of(name)
        return KeyProblem(key=key, message=f"unknown key {quoted(name)}{hint or did_you_mean(name, known)}")
    if kind == "missing" and len(path) == len(error["loc"]):
        return KeyProblem(key=key, message=f"{label} is missing: {schema.get('description', _expected(schema))}")
    if kind == "value_error":
        return Problem(key=key, message=f"{label}: {error['ctx']['error']}")
    value = error["input"]
    options = [option for branch in _branches(schema) for option in branch.get("enum", ())]
    if kind == "string_pattern_mismatch" and key == "name":
        message = f"name may use A-Z a-z 0-9 . _ - (1 to 100, a letter or digit first), got {shown(value)}"
    elif isinstance(value, str) and options:
        message = f"{label}: unknown value {quoted(value)}{did_you_mean(value, options)}"
        if "did you mean" in message:
            message += f" (one of {', '.join(options)})"
    elif kind == "too_long":
        message = f"{label} has {error['ctx']['actual_length']} items; {error['ctx']['max_length']} at most"
    elif kind == "too_short" and not value:
        message = f"{label} is empty; give at least one"
    elif value is None:
        message = f"{label} has no value; it must be {_expected(schema)}"
    else:
        item = ": an item" if key.rpartition(".")[2].isdigit() else ""
        message = f"{label}{item} must be {_expected(schema)}, got {shown(value)}{_quoting(schema, value)}"
    return Problem(key=key, message=message)


def home_of(name: str) -> str:
    """The end of a message about a key that belongs to another section; empty if none has it.

    Args:
        name: The key, or what people call it elsewhere.
    """
    sections = {
        section: [key for branch in _branches(schema) for key in branch.get("properties", {})]
        for section, schema in _root()["properties"].items()
    }
    sections["space"] = ["learning_rate", *(knob.name for knob in SHARED_HYPERPARAMETERS)]
    for meant in (name, *synonyms(name)):
        for section in _HOMES:
            if meant in sections[section]:
                return f"; it belongs to another section, write {section}: {{{meant}: ...}}"
    return ""


def _quoting(schema: Schema, value: Any) -> str:
    """The usual reason why text became something else."""
    types = set(_types(schema))
    if types & {"number", "integer"}:
        return "; remove the quotes" if isinstance(value, str) and looks_like_number(value) else ""
    return "; put it in quotes" if "string" in types and isinstance(value, bool | int | float) else ""


def looks_like_number(text: str) -> bool:
    """Whether text would be a number without its quotes."""
    try:
        float(text)
    except ValueError:
        return False
    return True


@functools.cache
def _root() -> dict[str, Any]:
    return StudySpec.model_json_schema()


def _resolve(schema: Schema) -> Schema:
    """The schema behind a reference."""
    if "$ref" in schema:
        target: Schema = _root()["$defs"][schema["$ref"].rpartition("/")[2]]
        return target
    return schema


def _walk(location: Sequence[str | int]) -> tuple[tuple[str | int, ...], Schema]:
    """As far as a location goes through the study file; what pydantic adds (branches of a union) is left out."""
    path: list[str | int] = []
    schema: Schema = _root()
    for index, part in enumerate(location):
        inside = [found for branch in _branches(schema) if (found := _step(branch, part)) is not None]
        if inside:
            schema = inside[0]
        elif (chosen := _chosen(schema, part)) is not None:
            schema = chosen
            continue
        elif index == len(location) - 1 and any(
            branch.get("additionalProperties") is False for branch in _branches(schema)
        ):
            schema = {}
        else:
            break
        path.append(part)
    return tuple(path), schema


def _step(schema: Schema, part: str | int) -> Schema | None:
    """The schema of a section's key or a list's item; None if there is no such thing."""
    if isinstance(part, str):
        found: Schema | None = schema.get("properties", {}).get(part)
        return found
    return schema["items"] if schema.get("type") == "array" and "items" in schema else None


def _chosen(schema: Schema, part: str | int) -> Schema | None:
    """The branch of a union that pydantic names in a location: a section by its class, or else the tag of the rest."""
    for branch in schema.get("oneOf", ()):
        name = branch.get("$ref", "").rpartition("/")[2]
        if part == name or (not name and part in _TAGS):
            return _resolve(branch)
    return None


def _types(schema: Schema) -> list[str]:
    return [branch["type"] for branch in _branches(schema) if "type" in branch]


def _branches(schema: Schema) -> list[Schema]:
    """What a value may be: one schema, or several."""
    inner = _resolve(schema)
    return [_resolve(branch) for branch in inner.get("anyOf", inner.get("oneOf", [inner]))]


def _expected(schema: Schema) -> str:
    """What a value may be, in words."""
    inner = _resolve(schema)
    if "anyOf" in inner or "oneOf" in inner:
        return " or ".join(_expected(branch) for branch in _branches(inner) if branch.get("type") != "null")
    if "enum" in inner:
        return f"one of {', '.join(inner['enum'])}"
    if "const" in inner:
        return str(inner["const"])
    match inner.get("type"):
        case "string":
            return {"path": "a file"}.get(inner.get("format", ""), "text")
        case "integer":
            return f"a whole number{_bounds(inner)}"
        case "number":
            return f"a number{_bounds(inner)}"
        case "boolean":
            return "true or false"
        case "array" if "prefixItems" in inner:
            return f"a list of {len(inner['prefixItems'])} texts"
        case "array" if "properties" in _resolve(inner.get("items", {})):
            return "a list of such blocks"
        case "array" if inner.get("items", {}).get("format") == "constraint":
            return 'a list, such as ["seconds <= 600"]'
        case "array":
            return "a list, such as [head, lora]"
        case "object" if keys := inner.get("properties"):
            return f"a block with the {'key' if len(keys) == 1 else 'keys'} {', '.join(keys)}"
        case "object":
            return "a block of keys"
    return "something else"


def _bounds(schema: Schema) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    if below is not None and isinstance(below, int) and schema["type"] == "integer":
        high = below - 1
    if low is not None and high is not None:
        return f" from {low:,} to {high:,}"
    if above is not None and below is not None:
        return f" between {above:g} and {below:g}"
    if low is not None:
        return f" of at least {low:,}"
    if above is not None:
        return f" above {above:g}"
    return ""
