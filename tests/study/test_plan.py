from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.study.samples import CATALOGUE
from tuner.study.file import validate_study
from tuner.study.plan import Confusion, TeacherPlan, TestScore, TrialPlan, TrialResult

SPEC = validate_study(
    {
        "name": "demo",
        "task": "text-classification",
        "model": "owner/model",
        "data": {"train": "/train.csv", "text": ["a", "b"]},
        "objective": {"metric": "loss"},
        "strategies": ["head", "lora+bitfit"],
        "space": {"lora": {"r": [4, 8]}},
        "search": {"sampler": "tpe"},
    },
    catalogue=CATALOGUE,
)
CONFUSION = Confusion(labels=("a", "b"), counts=((3, 1), (0, 4)))
TEACHERS = (
    None,
    TeacherPlan(model="owner/teacher", revision="0" * 40),
    TeacherPlan(
        trial={"spec": SPEC.model_dump(mode="json"), "strategy": "full", "params": {"dropout": 0.1}, "seed": 3},
        checkpoint="/files/demo/4/final",
    ),
)
TEST = TestScore(metrics={"loss": 0.5}, confusion=CONFUSION, predictions=(0, 1), truth=(0, 0))
WITH_ROWS = replace(TEST, by_row=(0.4, 0.6))


@pytest.mark.parametrize("teacher", TEACHERS)
def test_plan_survives_json(teacher: TeacherPlan | None) -> None:
    plan = TrialPlan(
        spec=SPEC,
        number=3,
        strategy="lora+bitfit",
        params={"learning_rate": 1e-3, "lora.r": 4},
        seed=7,
        checkpoint_dir="/c",
        resume_from=("/a", "/b"),
        teacher=teacher,
    )
    assert TrialPlan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


def test_plan_of_a_study_without_a_teacher_need_not_name_one() -> None:
    plan = TrialPlan(spec=SPEC, number=3, strategy="head", params={}, seed=7, checkpoint_dir="/c")
    data = plan.to_json()
    del data["teacher"]
    assert TrialPlan.from_json(data) == plan


def result_with(**changes: Any) -> TrialResult:
    known: dict[str, Any] = {
        "ended_by": "epochs",
        "epochs": 3,
        "best_epoch": 2,
        "metrics": {"loss": 0.25},
        "trainable_params": 10,
        "total_params": 100,
        "peak_memory": 1,
        "seconds": 2.5,
        "device": "cpu",
    }
    return TrialResult(**known | changes)


@pytest.mark.parametrize("test", [None, TEST, WITH_ROWS])
@pytest.mark.parametrize("confusion", [None, CONFUSION])
def test_result_survives_json(test: TestScore | None, confusion: Confusion | None) -> None:
    result = result_with(confusion=confusion, test=test, notes=("cut",))
    assert TrialResult.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_a_result_of_a_version_that_kept_no_parts_by_row_is_read() -> None:
    result = result_with(held_back=WITH_ROWS)
    data = json.loads(json.dumps(result.to_json()))
    del data["held_back"]["by_row"]
    assert TrialResult.from_json(data) == replace(result, held_back=TEST)
