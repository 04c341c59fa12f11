"""No text and no mapping makes the reader fail in another way than it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.study.samples import CATALOGUE, STUDY, changed
from tuner.errors import StudyFileError
from tuner.study.file import parse_study, validate_study
from tuner.study.names import did_you_mean

BASE = Path("/nowhere")
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])

words = st.sampled_from([
    "name", "task", "model", "data", "train", "text", "label", "space", "lora", "r", "low", "high", "log",
    "step", "budget", "trials", "search", "sampler", "options", "strategies", "objective", "metric", "learning_rate", "batch_size", "tpe",
])  # fmt: skip
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | words
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words | st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)


def told(error: StudyFileError) -> None:
    """One line for each mistake, of characters that a terminal shows as they are."""
    assert error.problems
    assert all(problem.message.isprintable() for problem in error.problems)
    assert len(error.message.splitlines()) == len(error.problems)


def outcome(text: str) -> str:
    try:
        return parse_study(text, source="fuzz.yaml", base=BASE, catalogue=CATALOGUE).name
    except StudyFileError as error:
        told(error)
        return "refused"


@QUICK
@given(st.text())
@example("\udcff")
@example("a: &a {b: *a}")
@example("? {a: 1}\n: b")
@example("%TAG ! x\n--- a")
@example("- " * 5000)
@example("a: 1e999999999999")
@example("\x85a: b")
@example("\ufffe")
def test_any_text_is_a_study_or_refused(text: str) -> None:
    assert outcome(text) == "refused"  # no text that is made up here names a task, a model and data


@QUICK
@given(st.integers(min_value=0, max_value=len(STUDY)), st.integers(min_value=0, max_value=30), st.text(max_size=10))
def test_damaged_study_is_a_study_or_refused(start: int, length: int, text: str) -> None:
    told_once, told_again = (outcome(STUDY[:start] + text + STUDY[start + length :]) for _ in range(2))
    assert told_once == told_again


@QUICK
@given(
    st.sampled_from(
        ["name", "task", "model", "data", "objective", "strategies", "space", "training", "search", "budget"]
    ),
    values,
)
def test_any_section_is_valid_or_refused(section: str, value: Any) -> None:
    study: dict[Any, Any] = {
        "name": "demo",
        "task": "text-classification",
        "model": "owner/model",
        "data": {"train": "train.csv"},
        "objective": {"metric": "loss"},
        "strategies": ["head", "lora"],
    }
    try:
        spec = validate_study({**study, section: value}, catalogue=CATALOGUE, base=BASE)
    except StudyFileError as error:
        told(error)
    else:
        assert spec.model_dump()[section] is not None


@QUICK
@given(st.dictionaries(words, values, max_size=5))
def test_any_mapping_is_refused(data: dict[str, Any]) -> None:
    """All that is drawn here is no name, so that a study that lacks one is never accepted."""
    with pytest.raises(StudyFileError) as caught:
        validate_study(
            {"space": data, "strategies": ["lora", "head"], **data, "name": None}, catalogue=CATALOGUE, base=BASE
        )
    told(caught.value)


@QUICK
@given(st.text(min_size=1, max_size=120))
@example("a" * 101)
@example("-a")
@example("a\n")
@example("a/b")
@example("../x")
@example("ä")
def test_names_are_safe_for_files_urls_and_pages(name: str) -> None:
    """A study's name becomes a file name, a URL and a heading."""
    escaped = "".join(f"\\U{ord(character):08x}" for character in name)
    accepted = outcome(changed("name: demo", f'name: "{escaped}"')) != "refused"
    safe = name.isascii() and all(character.isalnum() or character in "._-" for character in name)
    assert accepted == (safe and len(name) <= 100 and name[0].isalnum())


@QUICK
@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=10), max_size=20))
def test_suggestions_never_fail(word: str, known: list[str]) -> None:
    assert did_you_mean(word, known).startswith("; ") == bool(known)
