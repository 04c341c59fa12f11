"""One trial in words and as a document, whatever became of it."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.cli.rehearsal import HOLDER, open_study, play_trouble
from tests.cli.test_json import validate
from tuner.cli.trial_views import story_lines, why
from tuner.cli.views import trials_lines
from tuner.store import queries
from tuner.store.database import Database
from tuner.worker.logs import log_file


@pytest.fixture(scope="module")
def _troubled_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("troubled") / "tuner.db"
    open_study(f"sqlite:///{file}", trials=20)
    play_trouble(f"sqlite:///{file}")
    return file


@pytest.fixture
def troubled(_troubled_file: Path, tmp_path: Path) -> str:
    """The URL of a database with a study in which everything has happened to a trial that can."""
    shutil.copy(_troubled_file, tmp_path / "tuner.db")
    return f"sqlite:///{tmp_path / 'tuner.db'}"


@pytest.mark.parametrize(
    ("number", "state", "reason"),
    [
        (0, "complete", "all 3 epochs; epoch 3 counts"),
        (4, "errored", "KeyError: 'text'"),
        (5, "infeasible", "out of memory at one row"),
        (6, "diverged", "loss or gradient became non-finite in epoch 1, step 9; lower the learning rate"),
        (7, "errored", "the runner was killed by SIGABRT; given up after 3 attempts"),
        (8, "complete", "all 3 epochs; epoch 3 counts"),
        (9, "waiting", "waiting again: the worker was told to stop"),
        (10, "running", "on box-1, cpu/0; 1 of 3 epochs so far"),
    ],
)
def test_every_trial_says_its_state_and_why(troubled: str, number: int, state: str, reason: str) -> None:
    with Database.open(troubled) as database:
        story = queries.load_trial(database, "played", number)
    assert (story.trial.outcome.value, why(story)) == (state, reason)
    lines = story_lines(story, width=None)
    assert lines[0] == f"trial {number} of study played: {state}"
    assert lines[1] == f"  why         {reason}"


def test_a_trial_that_was_tried_again_tells_its_whole_story(run: Run, troubled: str) -> None:
    text = run("trial", "show", "played", "8", "--storage", troubled).stdout
    assert "  1  lost  box-1 cpu/0, worker w-1; " in text
    assert "     the runner was killed by SIGSEGV" in text
    assert "  2  errored  box-1 cpu/0, worker w-1; " in text
    assert "3 *" in text
    kinds = [line.split()[1] for line in text.split("events\n")[1].split("\n\n")[0].splitlines()]
    assert kinds == ["run_claimed", "run_lost", "run_claimed", "run_stumbled", "run_claimed", "run_complete"]
    assert text.endswith(
        "last lines of attempt 2\n  Traceback …\n  OSError: [Errno 5] Input/output error: '/data/rows.csv'\n"
    )


def test_no_line_is_wider_than_the_terminal(troubled: str) -> None:
    with Database.open(troubled) as database:
        for number in range(11):
            for line in story_lines(queries.load_trial(database, "played", number), width=80):
                assert len(line) <= 80 or " " not in line.strip()


def test_the_document_has_what_the_documentation_says(run: Run, troubled: str) -> None:
    words = ("--json", "--storage", troubled)
    documents = [json.loads(run("trial", "show", "played", str(number), *words).stdout) for number in range(11)]
    for document in documents:
        validate(document, "trial-show")
    document = documents[10]
    assert document["trial"]["state"] == "running"
    assert document["events"][-1]["kind"] == "run_claimed"
    assert document["events"][-1]["worker"] == "w-1"


def test_a_finalist_shows_its_retrainings(run: Run, finished: str) -> None:
    shown = json.loads(run("study", "show", "played", "--json", "--storage", finished).stdout)
    number = shown["finalists"][0]["number"]
    document = json.loads(run("trial", "show", "played", str(number), "--json", "--storage", finished).stdout)
    validate(document, "trial-show")
    seeds = [again["seed"] for again in document["retrainings"]]
    assert seeds == [again["seed"] for again in shown["finalists"][0]["runs"]]
    assert {event["seed"] for event in document["events"]} == {None, *seeds}
    text = run("trial", "show", "played", str(number), "--storage", finished).stdout
    assert f"again with seed {seeds[0]}: complete" in text


@pytest.mark.parametrize(("number", "known"), [("77", "it has 11: 0 to 10"), ("11", "it has 11: 0 to 10")])
def test_a_trial_that_is_not_there(run: Run, troubled: str, number: str, known: str) -> None:
    result = run("trial", "show", "played", number, "--storage", troubled)
    assert result.exit_code == 4
    assert result.stderr == f'error: study "played" has no trial {number} - {known}; see: tuner study trials played\n'


def test_logs_are_those_of_the_newest_attempt_that_has_any(run: Run, troubled: str) -> None:
    result = run("trial", "logs", "played", "8", "--storage", troubled)
    assert result.stdout.splitlines()[-1] == "OSError: [Errno 5] Input/output error: '/data/rows.csv'"
    assert result.stderr.startswith("trial 8 of study played, attempt 2, errored: OSError")
    first = run("trial", "logs", "played", "8", "--attempt", "1", "--storage", troubled)
    assert first.stdout == "Segmentation fault\n"


def test_logs_of_a_running_trial_are_read_where_it_runs(run: Run, troubled: str, tmp_path: Path) -> None:
    nothing = run("trial", "logs", "played", "10", "--storage", troubled)
    assert nothing.exit_code == 4
    assert "it runs on box-1; look on box-1 for " in nothing.stderr
    file = log_file(tmp_path / "tuner-files", worker=HOLDER.worker, slot=HOLDER.slot)
    file.parent.mkdir(parents=True)
    file.write_text("".join(f"line {number}{os.linesep}" for number in range(100)), encoding="utf-8")
    found = run("trial", "logs", "played", "10", "--storage", troubled)
    assert found.stdout.splitlines()[-1] == "line 99"
    assert len(found.stdout.splitlines()) == 40


def test_logs_that_are_not_there(run: Run, troubled: str) -> None:
    assert run("trial", "logs", "played", "0", "--storage", troubled).exit_code == 4
    result = run("trial", "logs", "played", "8", "--attempt", "4", "--storage", troubled)
    assert result.stderr == "error: trial 8 of study played has no attempt 4 - it has 3\n"


def test_study_show_says_what_went_wrong(run: Run, troubled: str) -> None:
    text = run("study", "show", "played", "--storage", troubled).stdout
    assert "  went wrong  2 trials errored: KeyError: 'text' (1 of 2)\n              1 trial diverged: " in text
    assert "              3 attempts lost: the runner was killed by SIGABRT (2 of 3)\n" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_a_reason_that_does_not_fit_beside_its_trial_stands_below_it(troubled: str) -> None:
    with Database.open(troubled) as database:
        snapshot = queries.load_snapshot(database, "played")
    lines = trials_lines(snapshot.trials, snapshot.study, width=80)
    assert max(len(line) for line in lines) <= 80
    place = next(position for position, line in enumerate(lines) if line.startswith("    6  diverged"))
    assert " ".join(line.strip() for line in lines[place + 1 : place + 3]) == snapshot.trial(6).reason
    assert lines[place - 3].endswith("KeyError: 'text'")
    assert len(trials_lines(snapshot.trials, snapshot.study, width=None)) == 1 + len(snapshot.trials)


def test_the_document_of_the_study_says_what_went_wrong(run: Run, troubled: str) -> None:
    document = json.loads(run("study", "show", "played", "--json", "--storage", troubled).stdout)
    validate(document, "study-show")
    assert [(one["unit"], one["state"], one["count"]) for one in document["troubles"]] == [
        ("trial", "errored", 2),
        ("trial", "diverged", 1),
        ("trial", "infeasible", 1),
        ("attempt", "lost", 3),
        ("attempt", "errored", 1),
        ("attempt", "preempted", 1),
    ]
    assert document["troubles"][3]["trials"] == [7, 8]


def test_of_many_epochs_the_first_the_last_and_the_one_that_counts_are_shown(troubled: str) -> None:
    with Database.open(troubled) as database:
        story = queries.load_trial(database, "played", 0)
    one = story.trial.epochs[0]
    epochs = tuple(replace(one, epoch=number) for number in range(1, 61))
    long = replace(story, trial=replace(story.trial, epochs=epochs, best_epoch=30))
    lines = story_lines(long, width=None)
    shown = [int(line.split()[0]) for line in lines if line[:1].isdigit()]
    assert shown == [*range(1, 11), 30, *range(51, 61)]
    assert "and 39 more epochs: --json has all" in lines
