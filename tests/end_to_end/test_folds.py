"""A real study whose training rows are divided into folds, from its file to its report, on the tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import tuner
from tests.cli.test_json import validate
from tests.tiny import write_study
from tests.training.test_folds import load
from tuner.cli.app import app
from tuner.report import write_report
from tuner.report.summary import summarise
from tuner.report.verdict import Basis
from tuner.store.records import Outcome, StudySnapshot, StudyState
from tuner.study.folds import fold_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The database of a finished study of three folds without test rows."""
    folder = tmp_path_factory.mktemp("folds")
    study = write_study(
        folder,
        data={"train": "train.csv", "validation": {"folds": 3}},
        strategies=["head", "bitfit"],
        training={"epochs": 3, "max_length": 32},
        search={"pruner": "none"},
        budget={"trials": 3},
        confirm={"finalists": 2},
    )
    url = f"sqlite:///{folder}/tuner.db"
    tuner.create_study(study, storage=url)
    tuner.run_worker(studies=["tiny"], storage=url, files=folder / "files", devices="cpu", until_done=True)
    return url


@pytest.fixture
def snapshot(url: str) -> StudySnapshot:
    return tuner.load_study("tiny", storage=url)


def test_the_search_saw_one_fold_and_the_confirmation_all_others(snapshot: StudySnapshot) -> None:
    """By the fingerprints of the rows that each run learnt from and was judged by."""
    spec = snapshot.study.spec
    fold_with = {load(spec, fold=fold).fingerprint(): fold for fold in (1, 2, 3)}
    assert {fold_with[one.facts["data"]] for trial in snapshot.trials for one in trial.attempts} == {1}
    assert snapshot.study.state is StudyState.FINISHED
    assert len(snapshot.finalists) >= 2
    for finalist in snapshot.finalists:
        folds = {run.seed: [fold_with[one.facts["data"]] for one in run.attempts] for run in finalist.runs}
        assert sorted(folds.values()) == [[2], [3]]
        assert folds == {run.seed: [fold_of(spec, seed=run.seed)] for run in finalist.runs}


def test_a_fold_does_not_choose_the_epoch_that_it_judges(snapshot: StudySnapshot) -> None:
    assert {trial.outcome for trial in snapshot.trials} == {Outcome.COMPLETE}
    best = {trial.number: trial.best_epoch for trial in snapshot.trials}
    for finalist in snapshot.finalists:
        for run in finalist.runs:
            trial, epochs = snapshot.trial(finalist.number), best[finalist.number]
            found = tuner.train_trial(
                snapshot.study.spec.model_dump(mode="json", exclude_none=True),
                strategy=trial.strategy,
                values=trial.params,
                seed=run.seed,
                threads=run.attempts[0].facts["threads"],
                stop_after=epochs,
            )
            assert len(found) == epochs
            assert found[-1] == run.metrics, "the same fold, epoch and seed give the same score, bit for bit"


def test_the_verdict_tells_the_score_of_each_fold(url: str, snapshot: StudySnapshot, tmp_path: Path) -> None:
    summary = summarise(snapshot)
    assert summary.winner is not None
    assert (summary.winner.basis, summary.standing.split) == (Basis.CONFIRMED, "folds")
    score = summary.winner.score
    assert score is not None
    assert sorted(score.folds) == [2, 3]
    told = " ".join(summary.sentences)
    assert "Of the 3 folds of the training rows the first judged the search. On the others it scores " in told
    for fold in (2, 3):
        assert f"{score.on_fold(fold):.4f} on fold {fold}" in told
    assert "over 2 folds" in summary.headline
    page = write_report(snapshot, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Fold by fold" in page


def test_programs_are_told_the_folds(url: str) -> None:
    best = json.loads(command(url, "study", "best", "tiny", "--json"))
    validate(best, "study-best")
    assert best["verdict"]["split"] == "folds"
    assert sorted(best["best"]["fresh_seeds"]["folds"]) == [2, 3]
    shown = json.loads(command(url, "study", "show", "tiny", "--json"))
    validate(shown, "study-show")
    assert {run["fold"] for finalist in shown["finalists"] for run in finalist["runs"]} == {2, 3}
    number = shown["finalists"][0]["number"]
    story = json.loads(command(url, "trial", "show", "tiny", str(number), "--json"))
    validate(story, "trial-show")
    assert {run["fold"] for run in story["retrainings"]} == {2, 3}
    assert "judged by fold 2" in command(url, "trial", "show", "tiny", str(number))
    assert "FOLDS" in command(url, "study", "show", "tiny")


def command(url: str, *words: str) -> str:
    done = CliRunner().invoke(app, [*words, "--storage", url], prog_name="tuner")
    assert done.exit_code == 0, done.output
    return done.stdout
