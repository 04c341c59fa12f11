"""Several objectives and constraints: what is read, and what people write by mistake with the one line they get."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.study.samples import CATALOGUE, STUDY, changed
from tuner.errors import StudyFileError
from tuner.study.file import parse_study, validate_study
from tuner.study.schema import study_schema
from tuner.study.spec import StudySpec


def with_objective(text: str) -> str:
    """The study with another objective; its first item stands at column 13 of line 9."""
    return changed("{metric: macro_f1}", text)


def with_constraint(*lines: str) -> str:
    """The study with constraints, the first at line 14, column 5."""
    return STUDY + "constraints:\n" + "".join(f"  - {line}\n" for line in lines)


ONE_LINE = {
    "a cost alone": (
        with_objective("{metric: seconds}"),
        "study.yaml:9:21: objective.metric: seconds is a cost, and the first objective must be a metric: it decides which epoch of a "
        "trial counts; write [{metric: macro_f1}, {metric: seconds}]",
    ),
    "a cost first": (
        with_objective("[{metric: trainable_params}, {metric: macro_f1}]"),
        "study.yaml:9:22: objective.metric: trainable_params is a cost, and the first objective must be a metric: it decides which "
        "epoch of a trial counts; write [{metric: macro_f1}, {metric: trainable_params}]",
    ),
    "a cost misspelt": (
        with_objective("[{metric: macro_f1}, {metric: trainable_parameters}]"),
        'study.yaml:9:42: objective.metric: text-classification has no metric "trainable_parameters"; '
        'did you mean "trainable_params"?',
    ),
    "more of a cost": (
        with_objective("[{metric: macro_f1}, {metric: seconds, goal: maximize}]"),
        "study.yaml:9:57: objective.goal: seconds is better the lower it is; write minimize or remove the line",
    ),
    "twice the same": (
        with_objective("[{metric: macro_f1}, {metric: macro_f1}]"),
        'study.yaml:9:42: objective.metric: "macro_f1" is an objective already',
    ),
    "none": (with_objective("[]"), "study.yaml:9:12: objective is empty; give at least one"),
    "five": (
        with_objective(
            f"[{', '.join(f'{{metric: {name}}}' for name in ('auc', 'loss', 'recall', 'seconds', 'accuracy'))}]"
        ),
        "study.yaml:9:12: objective has 5 items; 4 at most",
    ),
    "an unknown key": (
        with_objective("[{metric: macro_f1}, {metrics: seconds}]"),
        'study.yaml:9:34: unknown key "metrics"; did you mean "metric"?',
    ),
    "a pruner of one number": (
        with_objective("[{metric: macro_f1}, {metric: seconds}]") + "search: {pruner: median}\n",
        "study.yaml:13:18: search.pruner: median compares one number; with several objectives use auto (by Pareto rank) or none",
    ),
    "options of the pruner": (
        with_objective("[{metric: macro_f1}, {metric: seconds}]") + "search: {pruner: {options: {min_resource: 2}}}\n",
        "study.yaml:13:28: search.pruner.options: with several objectives auto has no options; remove them",
    ),
    "a sampler of one number": (
        with_objective("[{metric: macro_f1}, {metric: seconds}]") + "search: {sampler: {name: cmaes}}\n",
        "study.yaml:13:26: search.sampler.name: cmaes knows one objective only; with several use auto, tpe, nsgaii, nsgaiii or gp",
    ),
    # Constraints
    "no list": (
        STUDY + "constraints: seconds <= 600\n",
        'study.yaml:13:14: constraints must be a list, such as ["seconds <= 600"], got text "seconds <= 600"',
    ),
    "no text": (with_constraint("5"), "study.yaml:14:5: constraints: an item must be text, got 5; put it in quotes"),
    "no constraint": (
        with_constraint("fast"),
        'study.yaml:14:5: constraints: "fast" is no constraint; write it like "peak_memory <= 10 GB" or "accuracy >= 0.9"',
    ),
    "a strict sign": (
        with_constraint("seconds < 600"),
        'study.yaml:14:5: constraints: "<" is no sign of a constraint; write <= (at most) or >= (at least)',
    ),
    "an equal sign": (
        with_constraint("seconds = 600"),
        'study.yaml:14:5: constraints: "=" is no sign of a constraint; write <= (at most) or >= (at least)',
    ),
    "no number": (
        with_constraint("seconds <= 6oo"),
        'study.yaml:14:5: constraints: seconds has no unit "oo"; use one of s, min, h, or none',
    ),
    "two numbers": (
        with_constraint("seconds <= 1,000"),
        'study.yaml:14:5: constraints: "1,000" is no number; write it like "peak_memory <= 10 GB" or "accuracy >= 0.9"',
    ),
    "a number without end": (
        with_constraint("seconds <= 1e999"),
        "study.yaml:14:5: constraints: 1e999 is too large a number",
    ),
    "a name misspelt": (
        with_constraint("seconds <= 600", "peak_memry <= 10 GB"),
        'study.yaml:15:5: constraints: nothing is called "peak_memry"; did you mean "peak_memory"?',
    ),
    "a unit misspelt": (
        with_constraint("peak_memory <= 10 Gb"),
        'study.yaml:14:5: constraints: unknown unit "Gb"; did you mean "GB"?',
    ),
    "a unit of another": (
        with_constraint("trainable_params <= 10 GB"),
        'study.yaml:14:5: constraints: trainable_params has no unit "GB"; use one of k, M, G, or none',
    ),
    "a unit of a metric": (
        with_constraint("accuracy >= 0.9 s"),
        'study.yaml:14:5: constraints: accuracy has no unit "s"; use %, or none',
    ),
    "the wrong way": (
        with_constraint("accuracy <= 0.9"),
        "study.yaml:14:5: constraints: accuracy is better the higher it is, so it can be bounded by >= only",
    ),
    "at least a cost": (
        with_constraint("seconds >= 10"),
        "study.yaml:14:5: constraints: seconds is better the lower it is, so it can be bounded by <= only",
    ),
    "percent as a share": (
        with_constraint("accuracy >= 90"),
        "study.yaml:14:5: constraints: accuracy is 1 at most; 90 % is 0.9",
    ),
    "nothing left": (
        with_constraint("seconds <= 0"),
        "study.yaml:14:5: constraints: seconds is never 0 or less: nothing could keep it",
    ),
    "two bounds": (
        with_constraint("seconds <= 600", "seconds <= 5 min"),
        "study.yaml:15:5: constraints: seconds has a bound already; keep one",
    ),
    "no constraints": (STUDY + "constraints: []\n", "study.yaml:13:14: constraints is empty; give at least one"),
}


def parse(text: str, folder: Path) -> StudySpec:
    return parse_study(text, source="study.yaml", base=folder, catalogue=CATALOGUE)


@pytest.mark.parametrize("mistake", ONE_LINE)
def test_one_mistake_one_clear_line(mistake: str, tmp_path: Path) -> None:
    text, line = ONE_LINE[mistake]
    with pytest.raises(StudyFileError) as caught:
        parse(text, tmp_path)
    assert caught.value.message == line


def test_each_mistake_has_its_own_line(tmp_path: Path) -> None:
    text = with_objective("[macro_f1, {metric: secnds}]") + "constraints: [fast, accuracy >= 2]\n"
    with pytest.raises(StudyFileError) as caught:
        parse(text, tmp_path)
    assert [(problem.line, problem.column) for problem in caught.value.problems] == [
        (9, 13),
        (9, 32),
        (13, 15),
        (13, 21),
    ]


def test_several_objectives_have_their_goals(tmp_path: Path) -> None:
    spec = parse(with_objective("[{metric: accuracy}, {metric: loss}, {metric: trainable_params}]"), tmp_path)
    assert [(one.metric, one.goal) for one in spec.objectives] == [
        ("accuracy", "maximize"),
        ("loss", "minimize"),
        ("trainable_params", "minimize"),
    ]
    assert spec.lead.metric == "accuracy"
    assert spec.has_front
    assert StudySpec.model_validate(json.loads(json.dumps(spec.model_dump(mode="json")))) == spec


def test_one_objective_is_what_it_was(tmp_path: Path) -> None:
    plain, listed = parse(STUDY, tmp_path), parse(with_objective("[{metric: macro_f1}]"), tmp_path)
    assert not plain.has_front and not listed.has_front
    assert plain.model_dump(mode="json")["objective"] == {"metric": "macro_f1", "goal": None}
    assert plain.model_dump(mode="json")["constraints"] is None
    assert plain.lead == listed.lead


def test_the_schema_takes_both_forms(tmp_path: Path) -> None:
    schema = jsonschema.Draft202012Validator(study_schema(CATALOGUE))
    text = with_objective("[{metric: macro_f1}, {metric: peak_memory}]") + "constraints: [seconds <= 600]\n"
    for good in (STUDY, text):
        schema.validate(yaml.safe_load(good))
        assert parse(good, tmp_path)
    assert not schema.is_valid(yaml.safe_load(with_objective("[{metric: macro_f1}, {metric: rouge}]")))
    data = yaml.safe_load(text)
    assert validate_study(data, catalogue=CATALOGUE, base=tmp_path).constraints == ("seconds <= 600",)
