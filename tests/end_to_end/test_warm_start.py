"""A second study on similar rows starts with what won in the first: real trainings in one database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.tiny import write_rows, write_study
from tuner import api
from tuner.cli.learnt import learnt_words, origin_words, recipe_words
from tuner.cli.views import study_lines
from tuner.store.records import Outcome

pytestmark = pytest.mark.slow


def test_a_second_study_starts_with_the_winner_of_the_first(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'tuner.db'}"
    asked: dict[str, Any] = {"strategies": ["head", "full"], "training": {"epochs": 2, "max_length": 32}}
    asked["space"] = {"full": {"learning_rate": {"low": 2e-3, "high": 2e-2, "log": True}}}
    asked["confirm"] = {"finalists": 1, "seeds": 1}
    first = api.create_study(write_study(tmp_path, "first", **asked, budget={"trials": 4}), storage=storage)
    assert learnt_words(first) == ""
    api.run_worker(studies=["first"], storage=storage, devices="cpu")
    winner = api.best("first", storage=storage)

    write_rows(tmp_path / "others.csv", count=200, seed=3)
    data = {"train": "others.csv", "test": "test.csv", "validation": 0.25}
    asked["search"] = {"learn_from": ["first"]}  # one study of other rows teaches only by name
    file = write_study(tmp_path, "second", **asked, budget={"trials": 4}, data=data)
    second = api.create_study(file, storage=storage)
    source = f"first/{winner.number}"
    assert learnt_words(second) == "learnt 1 recipe from past studies, tried first: first (1)"
    assert recipe_words(second) == [f"{winner.strategy} of {source}"]
    assert any(f"learnt      {winner.strategy} of {source}" in line for line in study_lines(load(storage)))
    api.run_worker(studies=["second"], storage=storage, devices="cpu", max_trials=1)

    trial = load(storage).trials[0]
    assert trial.outcome is Outcome.COMPLETE
    assert (trial.strategy, trial.learnt_from) == (winner.strategy, source)
    assert origin_words(trial).endswith(f"learnt from {source})")
    assert dict(trial.params) == pytest.approx(dict(winner.params))
    assert api.create_study(file, storage=storage).space == second.space


def load(storage: str) -> Any:
    return api.load_study("second", storage=storage)
