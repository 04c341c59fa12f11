from __future__ import annotations

import pytest

from tuner.study.teacher import TrialName, named_trial


@pytest.mark.parametrize(
    ("teacher", "trial"),
    [
        ("demo/3", TrialName(study="demo", number=3)),
        ("my-study.v2/0", TrialName(study="my-study.v2", number=0)),
        ("owner/model", None),
        ("owner/model-3", None),
        ("bert-base-uncased", None),
        ("./demo/3", None),
        ("/demo/3", None),
        ("demo/-3", None),
        ("demo/3/4", None),
        ("demo/", None),
    ],
)
def test_trials_and_models_are_told_apart(teacher: str, trial: TrialName | None) -> None:
    assert named_trial(teacher) == trial
    assert trial is None or str(trial) == teacher
