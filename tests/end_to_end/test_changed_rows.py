"""A training file or a model that changes while its study runs: no trial is compared with others that learnt from other rows or weights."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import tuner
from tests.tiny import write_rows, write_study
from tuner.errors import ConfigurationError
from tuner.store.records import Outcome

pytestmark = pytest.mark.slow


def test_a_study_is_not_served_where_its_rows_are_others(tmp_path: Path) -> None:
    study = write_study(
        tmp_path,
        strategies=["head", "bitfit"],
        training={"epochs": 2, "max_length": 32},
        budget={"trials": 3},
        confirm={"finalists": 0},
    )
    url = f"sqlite:///{tmp_path}/tuner.db"
    tuner.create_study(study, storage=url)

    def serve(**options: bool | int) -> None:
        tuner.run_worker(studies=["tiny"], storage=url, files=tmp_path / "files", devices="cpu", **options)  # type: ignore[arg-type]

    serve(max_trials=1)
    old = (tmp_path / "train.csv").read_text()
    write_rows(tmp_path / "train.csv", count=240, seed=9)
    with pytest.raises(
        ConfigurationError, match=r"are others here than those of trial 0 - digest \w+ there, \w+ here; put"
    ):
        serve()
    first, second = tuner.load_study("tiny", storage=url).trials
    assert (first.outcome, second.outcome) == (Outcome.COMPLETE, Outcome.WAITING)
    assert second.reason.startswith("waiting again: the rows of ")
    assert not second.epochs

    serve(max_trials=1, allow_skew=True)
    (tmp_path / "train.csv").write_text(old)
    serve()
    trials = tuner.load_study("tiny", storage=url).trials
    assert all(trial.outcome in (Outcome.COMPLETE, Outcome.PRUNED) for trial in trials)
    digests = [trial.attempts[-1].facts["data"] for trial in trials]
    assert digests[0] == digests[2] != digests[1]


def test_a_study_is_not_served_where_its_model_is_another_one(tmp_path: Path) -> None:
    study = write_study(
        tmp_path,
        strategies=["head"],
        training={"epochs": 1, "max_length": 32},
        budget={"trials": 2},
        confirm={"finalists": 0},
    )
    url = f"sqlite:///{tmp_path}/tuner.db"
    tuner.create_study(study, storage=url)

    def serve() -> None:
        tuner.run_worker(studies=["tiny"], storage=url, files=tmp_path / "files", devices="cpu", max_trials=1)

    serve()
    weights = tmp_path / "model" / "model.safetensors"
    tensors = load_file(weights)
    save_file({name: tensor + 1.0 for name, tensor in tensors.items()}, weights, metadata={"format": "pt"})
    with pytest.raises(
        ConfigurationError, match=r"^the pretrained weights of .*model are others here than those of trial 0 - "
    ):
        serve()
    first, second = tuner.load_study("tiny", storage=url).trials
    assert (first.outcome, second.outcome) == (Outcome.COMPLETE, Outcome.WAITING)
