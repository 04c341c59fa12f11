"""A real study with two objectives and a constraint, on the tiny model, from its file to its report."""

from __future__ import annotations

import json
from pathlib import Path

import optuna
import pytest
from typer.testing import CliRunner

import tuner
from tests.tiny import write_study
from tuner.cli.app import app
from tuner.store.records import Outcome, StudyState

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The database of a finished study: quality against parameters, and no more of these than a head and LoRA have."""
    folder = tmp_path_factory.mktemp("objectives")
    study = write_study(
        folder,
        objective=[{"metric": "macro_f1"}, {"metric": "trainable_params"}, {"metric": "seconds"}],
        constraints=["trainable_params <= 10 k", "seconds <= 10 min", "peak_memory <= 500 GB"],
        strategies=["head", "bitfit", "full"],
        training={"epochs": 2, "max_length": 32},
        budget={"trials": 4},
        confirm={"finalists": 1, "seeds": 1},
    )
    url = f"sqlite:///{folder}/tuner.db"
    tuner.create_study(study, storage=url)
    tuner.run_worker(studies=["tiny"], storage=url, files=folder / "files", devices="cpu", until_done=True)
    return url


def command(url: str, *words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--storage", url], prog_name="tuner")
    assert done.exit_code == 0, done.output
    return done.stdout


def test_what_breaks_a_constraint_ends_before_it_costs_anything(url: str) -> None:
    snapshot = tuner.load_study("tiny", storage=url)
    assert snapshot.study.state is StudyState.FINISHED
    large = [trial for trial in snapshot.trials if (trial.trainable_params or 0) > 10_000]
    assert "full" in {trial.strategy for trial in large}
    for trial in large:
        assert trial.outcome is Outcome.INFEASIBLE
        words = f"trainable_params {trial.trainable_params:,} breaks the constraint trainable_params <= 10 k"
        assert trial.reason == f"{words} - nothing was trained"
        assert trial.epochs == ()
    rest = [trial for trial in snapshot.trials if trial not in large]
    assert rest and {trial.outcome for trial in rest} <= {Outcome.COMPLETE, Outcome.PRUNED}
    assert all(trial.peak_memory and trial.peak_memory > 2**20 for trial in rest)
    assert {finalist.number for finalist in snapshot.finalists} <= {trial.number for trial in rest}


def test_optuna_has_the_front(url: str) -> None:
    storage = optuna.storages.RDBStorage(url)
    study = optuna.load_study(study_name="tiny", storage=storage)
    best = json.loads(command(url, "study", "best", "tiny", "--json"))
    assert study.metric_names == ["macro_f1", "trainable_params", "seconds"]
    assert {trial.number for trial in study.best_trials} == {member["number"] for member in best["front"]}
    for trial in study.trials:
        is_broken = any(excess > 0 for excess in trial.constraints.values())
        assert is_broken is (trial.user_attrs.get("tuner:outcome") == "infeasible")
        assert set(trial.constraints) <= {"trainable_params", "seconds", "peak_memory"}
    storage.remove_session()
    storage.engine.dispose()


def test_the_command_line_tells_the_front(url: str, tmp_path: Path) -> None:
    said = command(url, "study", "best", "tiny")
    assert "TRAINABLE_PARAMS" in said and "MACRO_F1" in said
    assert "macro_f1, trainable_params, seconds" in command(url, "study", "show", "tiny")
    assert "trainable_params" in command(url, "study", "trials", "tiny").lower()
    assert "tiny" in command(url, "study", "list")
    assert "finished" in command(url, "study", "watch", "tiny", "--until-done")
    file = tmp_path / "tiny.html"
    command(url, "study", "report", "tiny", str(file))
    page = file.read_text(encoding="utf-8")
    assert 'id="front"' in page and "breaks the constraint" in page
