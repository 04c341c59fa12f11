"""``tuner worker``: training from the command line, and who trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.command import tuner
from tests.cli.conftest import Run
from tests.cli.rehearsal import Ends, open_study, play
from tuner.cli.worker import conclude
from tuner.store.records import StudyState
from tuner.worker.supervisor import WorkerSummary


@pytest.mark.slow
def test_a_study_from_its_file_to_its_answer(study_file: Path, tmp_path: Path) -> None:
    assert tuner("study", "create", "little.yaml", cwd=tmp_path).returncode == 0
    done = tuner("worker", "start", "--study", "little", "--until-done", "--devices", "cpu", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "study little is finished: 2 of 2 trials" in done.stderr
    assert "next: tuner study best little" in done.stderr
    assert tuner("study", "best", "little", cwd=tmp_path).returncode == 0
    again = tuner("worker", "start", "--study", "little", "--until-done", "--devices", "cpu", cwd=tmp_path)
    assert again.returncode == 0
    assert "this worker ended 0 runs\nstudy little is finished (budget of 2 trials is used)\n" in again.stderr


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--lease", "20"], "lease 20 s must be at least 3 x heartbeat 15 s"),
        (["--per-device", "0"], "--per-device must be at least 1"),
        (["--max-trials", "0"], "--max-trials must be at least 1"),
    ],
)
def test_settings_that_cannot_be_are_a_wrong_usage(run: Run, finished: str, words: list[str], text: str) -> None:
    result = run("worker", "start", *words, "--storage", finished)
    assert result.exit_code == 2
    assert text in result.stderr


def test_an_unknown_study_is_guessed_before_anything_starts(run: Run, finished: str) -> None:
    result = run("worker", "start", "--study", "plaid", "--devices", "cpu", "--storage", finished)
    assert result.exit_code == 4
    assert 'did you mean "played"?' in result.stderr


def test_the_end_says_what_to_do_next(finished: str, capsys: pytest.CaptureFixture[str]) -> None:
    summary = WorkerSummary(trials=1, studies={"played": StudyState.FINISHED})
    assert conclude(summary, storage=finished) == 0
    text = capsys.readouterr().err
    assert "this worker ended 1 run\nstudy played is finished (finalists are confirmed)\n" in text
    assert "next: tuner study best played" in text


def test_the_end_of_a_fruitless_study_is_status_3(sqlite_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    open_study(sqlite_url, trials=1)
    play(sqlite_url, ends=Ends(errored=frozenset({0})))
    assert conclude(WorkerSummary(trials=1, studies={"played": StudyState.FINISHED}), storage=sqlite_url) == 3
    assert "tuner study trials played" in capsys.readouterr().err


def test_the_end_of_an_open_study_says_how_to_go_on(sqlite_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    open_study(sqlite_url)
    assert conclude(WorkerSummary(trials=0, studies={"played": StudyState.SEARCHING}), storage=sqlite_url) == 0
    assert "next: tuner worker start --study played --until-done" in capsys.readouterr().err


def test_the_end_of_a_paused_study_says_why_and_it_can_be_resumed(
    run: Run, sqlite_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    open_study(sqlite_url, trials=8)
    play(sqlite_url, ends=Ends(errored=frozenset(range(8))))
    assert conclude(WorkerSummary(trials=5, studies={"played": StudyState.PAUSED}), storage=sqlite_url) == 1
    said = capsys.readouterr().err
    assert "study played is paused: 5 trials ended with an error before any had a result, the last with: " in said
    assert "tuner study resume played" in said
    result = run("study", "resume", "played", "--storage", sqlite_url)
    assert result.exit_code == 0
    assert result.stderr.startswith("study played is searching\nnext: tuner worker start --study played")


def test_a_finished_study_is_not_resumed(run: Run, finished: str) -> None:
    result = run("study", "resume", "played", "--storage", finished)
    assert result.exit_code == 5
    assert 'study "played" is finished' in result.stderr


def test_list_without_workers_says_how_to_start_one(run: Run, finished: str) -> None:
    result = run("worker", "list", "--storage", finished)
    assert result.exit_code == 0
    assert result.stderr.startswith("no worker is alive\nnext: tuner worker start")
