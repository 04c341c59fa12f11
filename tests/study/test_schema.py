from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from tests.study.samples import CATALOGUE, STUDY, changed, with_space
from tests.study.test_bad_inputs import ONE_LINE
from tuner.errors import StudyFileError
from tuner.study.document import read_document
from tuner.study.schema import DIALECT, study_schema

SCHEMA = study_schema(CATALOGUE)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

# What a schema cannot say: the YAML itself, and rules that look at two places or at the machine.
BEYOND_A_SCHEMA = {
    "duplicate key", "key is a number", "budget below one trial", "goal against the metric", "combination twice", "component twice",
    "warmup beyond the epochs", "ending", "share in percent", "test is train", "label is text", "hub address", "package address", "model",
    "revision of a folder", "range upside down", "log of zero", "step and log", "not a number", "endless bound",
    "endless hours", "endless number", "a pair of the same", "package of a model", "file without an ending", "empty file name", "address in the dark", "number beyond floats", "combination that is not asked for", "two kinds of learning rate", "no budget",
    "same stage twice", "component in both stages", "component twice in a stage", "sequence twice", "composed and given",
    "given and composed", "switch in a sequence's block", "sequence that is not asked for", "teacher that is no name",
    "revision of a trial",
}  # fmt: skip


def data(text: str) -> Any:
    return read_document(text, source="s").data


def test_schema_is_valid_and_names_its_dialect() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == DIALECT


@pytest.mark.parametrize(
    "text",
    [
        STUDY,
        changed("lora", "lora+bitfit"),
        changed("text: text", "text: [a, b]"),
        changed("validation: 0.2", "validation: v.csv\n  test: null"),
        STUDY + "search: {sampler: tpe, pruner: {name: median, options: {n_warmup_steps: 1}}}\n",
        with_space(
            "  dropout: 0.1\n  schedule: [linear, cosine]\n  learning_rate: {low: 1e-5, high: 1e-3, log: true}\n"
        ),
        with_space("  lora: {r: {low: 4, high: 16, step: 4}, batch_size: [4], learning_rate: 1e-3}\n"),
        with_space("  lora+bitfit: {learning_rate: 1e-3}\n"),
        changed("lora", "head>lora+bitfit")
        + "space: {switch: {at: [0.2, 0.4]}, head>lora+bitfit: {learning_rate: 1e-3}}\n",
        changed("[head, lora, full]", "{compose: [lora, bitfit]}"),
        changed("lora", "{compose: [lora, bitfit]}"),
        STUDY + "distill: {teacher: demo/3, temperature: [1, 2, 4], weight: {low: 0.1, high: 0.9}}\n",
    ],
)
def test_valid_studies_match(text: str) -> None:
    assert not list(VALIDATOR.iter_errors(data(text)))


@pytest.mark.parametrize("mistake", sorted(set(ONE_LINE) - BEYOND_A_SCHEMA))
def test_mistakes_do_not_match(mistake: str) -> None:
    try:
        wrong = data(ONE_LINE[mistake][0])
    except StudyFileError:
        return  # no YAML: an editor says so without a schema
    assert not VALIDATOR.is_valid(wrong)


def test_exceptions_are_named_rightly() -> None:
    assert set(ONE_LINE) >= BEYOND_A_SCHEMA


def test_editors_see_all_names_with_help() -> None:
    strategies = SCHEMA["properties"]["strategies"]["anyOf"][0]["items"]["anyOf"]
    assert [choice["const"] for choice in strategies if "const" in choice] == list(CATALOGUE.strategies)
    space = SCHEMA["properties"]["space"]["properties"]
    assert set(CATALOGUE.strategies) <= set(space)
    assert {"learning_rate", "batch_size", "weight_decay"} <= set(space)
    assert "r" in space["lora"]["properties"]
    assert all("description" in entry for entry in space.values())
    assert all("description" in entry for entry in SCHEMA["properties"].values())
