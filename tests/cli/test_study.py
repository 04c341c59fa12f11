"""``tuner study``: every command, its words, its status, its next step."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.command import ROOT, tuner
from tests.cli.conftest import Run
from tests.cli.little import STUDY
from tests.cli.rehearsal import Ends, claim, open_study, play
from tests.store.toy import run_out, toy_space, toy_study
from tuner import api
from tuner.api import load_study
from tuner.cli.check import check_lines
from tuner.cli.learnt import lesson_words
from tuner.report import summarise
from tuner.search.driver import StudyDriver
from tuner.store import workers
from tuner.store.database import Database


def test_check_says_what_would_run(run: Run, study_file: Path) -> None:
    result = run("study", "check", study_file)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines()[0] == "little: nothing is wrong"
    assert "30 rows to train on, 10 to judge by" in result.stdout
    assert "at most 2 trials" in result.stdout
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if line.strip()}
    assert rows["strategy"].split() == ["strategy", "learning", "rate", "trained", "share", "memory", "checkpoint"]
    assert rows["head"].split()[:6] == ["head", "1.6e-4", "to", "1.6e-1", "34", "1.02"]
    assert rows["head"].split()[-2:] == ["136", "B"]
    assert f"next: tuner study create {study_file}" in result.stderr


def test_check_reports_three_mistakes_in_three_lines(run: Run, study_file: Path) -> None:
    text = STUDY.replace("accuracy", "acuracy").replace("head,", "haed,").replace("epochs: 1", "epochs: 0")
    study_file.write_text(text, encoding="utf-8")
    result = run("study", "check", study_file)
    assert result.exit_code == 78
    lines = result.stderr.splitlines()
    assert len(lines) == 3
    assert [line.partition(": ")[0] for line in lines] == [f"{study_file}:{at}" for at in ("5:21", "6:14", "7:20")]
    assert 'did you mean "accuracy"?' in lines[0]
    assert 'did you mean "head"?' in lines[1]


def test_check_finds_mistakes_in_the_data_at_their_line(run: Run, study_file: Path) -> None:
    study_file.write_text(STUDY.replace("rows.csv", "nowhere.csv"), encoding="utf-8")
    result = run("study", "check", study_file)
    assert result.exit_code == 78
    mistakes = [line for line in result.stderr.splitlines() if "warning" not in line]
    assert len(mistakes) == 1
    assert mistakes[0].startswith(f"{study_file}:4:")
    assert "nowhere.csv" in mistakes[0]


@pytest.mark.parametrize("command", ["check", "create"])
def test_a_data_file_is_no_study_file(run: Run, study_file: Path, command: str) -> None:
    result = run("study", command, study_file.parent / "rows.csv")
    assert result.exit_code == 2
    assert "is a data file, not a study file; see: tuner study schema" in result.stderr


def test_create_is_safe_to_run_again(run: Run, study_file: Path, sqlite_url: str) -> None:
    first = run("study", "create", study_file, "--storage", sqlite_url)
    assert first.exit_code == 0, first.stderr
    assert first.stdout == "study little is ready (searching)\n"
    assert f"next: tuner worker start --study little --until-done --storage {sqlite_url}" in first.stderr
    again = run("study", "create", study_file, "--storage", sqlite_url)
    assert again.exit_code == 0
    assert again.stdout == "study little is already there, 0 trials (searching)\n"


def test_create_refuses_another_question_of_the_same_name(run: Run, study_file: Path, sqlite_url: str) -> None:
    run("study", "create", study_file, "--storage", sqlite_url)
    study_file.write_text(STUDY.replace("trials: 2", "trials: 3"), encoding="utf-8")
    result = run("study", "create", study_file, "--storage", sqlite_url)
    assert result.exit_code == 5
    assert "budget.trials is 2 there and 3 here" in result.stderr
    assert "its budget is changed by: tuner study set little --trials 3" in result.stderr
    study_file.write_text(STUDY.replace("epochs: 1", "epochs: 2"), encoding="utf-8")
    result = run("study", "create", study_file, "--storage", sqlite_url)
    assert result.exit_code == 5
    assert "another name" in result.stderr


def test_create_uses_the_storage_of_the_environment(
    run: Run, study_file: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_STORAGE", sqlite_url)
    result = run("study", "create", study_file)
    assert result.exit_code == 0, result.stderr
    assert "--storage" not in result.stderr
    assert run("study", "list", "--json").exit_code == 0


def test_list_shows_each_study_on_a_line(run: Run, finished: str) -> None:
    open_study(finished, name="another")
    result = run("study", "list", "--storage", finished)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["STUDY", "played", "another"]
    assert "8 of 8 trials" in lines[1]


def test_list_of_an_empty_database_says_what_to_do(run: Run, sqlite_url: str) -> None:
    run("db", "init", "--storage", sqlite_url)
    result = run("study", "list", "--storage", sqlite_url)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert result.stderr.startswith("no studies yet\nnext: tuner study create FILE")


def test_show_counts_trials_and_names_the_winner_and_the_finalists(run: Run, finished: str) -> None:
    result = run("study", "show", "played", "--storage", finished)
    assert result.exit_code == 0
    assert "state       finished (finalists are confirmed)" in result.stdout
    assert "1 errored, 1 infeasible" in result.stdout
    assert "with 5 fresh seeds" in result.stdout
    assert "(baseline)" in result.stdout
    assert "schedule" not in result.stdout, "values that are not searched are left out"


def test_show_of_an_open_study_says_that_no_worker_runs(run: Run, sqlite_url: str) -> None:
    open_study(sqlite_url)
    result = run("study", "show", "played", "--storage", sqlite_url)
    assert "no worker is running for it" in result.stdout
    assert "none yet: no trial is complete" in result.stdout
    assert "next: tuner worker start --study played" in result.stderr


def test_best_prints_every_value_of_the_winner(run: Run, finished: str) -> None:
    result = run("study", "best", "played", "--storage", finished)
    assert result.exit_code == 0
    assert result.stdout.splitlines()[0] == summarise(load_study("played", storage=finished)).headline
    assert "learning_rate" in result.stdout
    assert "schedule" in result.stdout


def test_best_without_a_complete_trial_is_not_found(run: Run, sqlite_url: str) -> None:
    open_study(sqlite_url)
    result = run("study", "best", "played", "--storage", sqlite_url)
    assert result.exit_code == 4
    assert "tuner study trials played" in result.stderr


@pytest.fixture
def fruitless(sqlite_url: str) -> str:
    """A finished study without any complete trial."""
    open_study(sqlite_url, trials=2)
    play(sqlite_url, ends=Ends(errored=frozenset({0, 1})))
    return sqlite_url


def test_best_of_a_fruitless_study_is_status_3(run: Run, fruitless: str) -> None:
    assert run("study", "best", "played", "--storage", fruitless).exit_code == 3


def test_watch_of_a_fruitless_study_is_status_3(run: Run, fruitless: str) -> None:
    result = run("study", "watch", "played", "--until-done", "--storage", fruitless)
    assert result.exit_code == 3
    assert "2 errored" in result.stdout


def test_trials_say_why_they_are_in_their_state(run: Run, finished: str) -> None:
    result = run("study", "trials", "played", "--storage", finished)
    assert result.exit_code == 0
    rows = {line.split()[0]: line for line in result.stdout.splitlines()}
    assert len(rows) == 9
    assert rows["4"].endswith("KeyError: 'text'")
    assert rows["5"].endswith("out of memory at one row")
    assert "learning_rate" in rows["0"]


def test_trials_can_be_filtered_by_state(run: Run, finished: str) -> None:
    result = run("study", "trials", "played", "--state", "errored", "--storage", finished)
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["TRIAL", "4"]
    assert "no waiting trials" in run("study", "trials", "played", "--state", "waiting", "--storage", finished).stderr


def test_trials_guess_a_mistyped_state(run: Run, finished: str) -> None:
    result = run("study", "trials", "played", "--state", "errord", "--storage", finished)
    assert result.exit_code == 2
    assert result.stderr.rstrip().endswith('did you mean "errored"?')


def test_watch_prints_one_line_for_each_change(run: Run, sqlite_url: str) -> None:
    open_study(sqlite_url, trials=4)
    play(sqlite_url)
    result = run("study", "watch", "played", "--until-done", "--storage", sqlite_url)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert len(lines) == 5
    assert "study played is finished (finalists are confirmed): 4 complete" in lines[-1]


@pytest.mark.parametrize("is_alive", [True, False])
def test_watch_shows_a_running_trial(
    run: Run, sqlite_url: str, monkeypatch: pytest.MonkeyPatch, is_alive: bool
) -> None:
    open_study(sqlite_url)
    claim(sqlite_url)
    if is_alive:
        with Database.open(sqlite_url) as database:
            identity = workers.Identity.of_this_process("w-1")
            workers.register(database, identity, devices=["cpu/0"], version="0", lease=90.0)

    def _stop(seconds: float) -> None:
        assert seconds == 2.0
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", _stop)
    result = run("study", "watch", "played", "--storage", sqlite_url)
    assert result.exit_code == 130
    assert f"trial 0 head {'started' if is_alive else 'interrupted'}\n" in result.stdout
    assert ("next: tuner worker start --study played --until-done" in result.stderr) is not is_alive


def test_show_names_the_interrupted_trials_when_no_worker_is_alive(run: Run, sqlite_url: str) -> None:
    open_study(sqlite_url)
    claim(sqlite_url)
    result = run("study", "show", "played", "--storage", sqlite_url)
    assert "  interrupted trial 0 head: 0 of 3 epochs\n" in result.stdout
    assert "next: tuner worker start --study played --until-done" in result.stderr


def test_watch_on_a_terminal_draws_a_page(finished: str, tmp_path: Path) -> None:
    command = f"{sys.executable} -m tuner study watch played --until-done --storage {finished}"
    done = subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "TERM": "xterm", "COLUMNS": "80", "HOME": str(tmp_path)},
        check=False,
    )
    assert done.returncode == 0
    assert "running     nothing" in done.stdout
    assert "workers     none" in done.stdout


def test_report_writes_a_page_and_prints_its_path(run: Run, finished: str, tmp_path: Path) -> None:
    result = run("study", "report", "played", "--storage", finished)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == f"{tmp_path / 'played.html'}\n"
    assert result.stderr == f"{summarise(load_study('played', storage=finished)).headline}\n"
    assert (tmp_path / "played.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_delete_says_first_what_it_would_do_and_changes_nothing(run: Run, finished: str, tmp_path: Path) -> None:
    before = _rows(tmp_path / "tuner.db")
    result = run("study", "delete", "played", "--dry-run", "--storage", finished)
    assert result.exit_code == 0
    assert result.stdout.startswith("would delete study played with 8 trials")
    assert _rows(tmp_path / "tuner.db") == before


def test_delete_needs_yes_off_a_terminal(run: Run, finished: str) -> None:
    result = run("study", "delete", "played", "--storage", finished)
    assert result.exit_code == 2
    assert "delete needs --yes when not on a terminal" in result.stderr
    assert run("study", "show", "played", "--storage", finished).exit_code == 0


def test_delete_deletes(run: Run, finished: str, tmp_path: Path) -> None:
    result = run("study", "delete", "played", "--yes", "--storage", finished)
    assert result.exit_code == 0
    assert result.stdout.startswith("deleted study played with 8 trials")
    assert run("study", "show", "played", "--storage", finished).exit_code == 4
    assert _rows(tmp_path / "tuner.db")["trials"] == 0


@pytest.mark.parametrize(("answer", "status"), [("y", 0), ("n", 1)])
def test_delete_asks_on_a_terminal(
    run: Run, finished: str, monkeypatch: pytest.MonkeyPatch, answer: str, status: int
) -> None:
    monkeypatch.setattr("tuner.cli.study.is_terminal", lambda _stream: True)
    result = run("study", "delete", "played", "--storage", finished, answer=f"{answer}\n")
    assert result.exit_code == status
    assert "delete study played with 8 trials" in result.stderr


def _rows(file: Path) -> dict[str, int]:
    with closing(sqlite3.connect(file)) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}


def test_schema_is_the_json_schema_of_study_files(run: Run) -> None:
    schema = json.loads(run("study", "schema").stdout)
    assert "lora" in json.dumps(schema)
    assert schema["properties"]["name"]


@pytest.mark.parametrize("command", ["show", "best", "trials", "watch", "report", "delete"])
def test_a_study_that_is_not_there_is_status_4(run: Run, finished: str, command: str) -> None:
    result = run("study", command, "palyed", "--storage", finished)
    assert result.exit_code == 4
    assert 'did you mean "played"?' in result.stderr


@pytest.mark.parametrize(
    "words", [["study", "list"], ["study", "show", "x"], ["worker", "list"], ["worker", "start"], ["db", "check"]]
)
def test_a_database_that_is_not_there_is_status_69_and_not_made(run: Run, tmp_path: Path, words: list[str]) -> None:
    result = run(*words)
    assert result.exit_code == 69
    assert "no database at tuner.db" in result.stderr
    assert not (tmp_path / "tuner.db").exists()


def test_a_wrong_storage_is_status_78_and_never_repeated(tmp_path: Path) -> None:
    done = tuner("study", "list", "--storage", "s3cr3tPW", cwd=tmp_path)
    assert done.returncode == 78
    assert "not a database URL" in done.stderr
    assert "s3cr3tPW" not in done.stderr


def test_check_of_a_large_space_fits_a_narrow_terminal(study_file: Path) -> None:
    text = STUDY.replace("[head, lora]", "[head>lora, {compose: [bitfit, lora, norm]}]")
    study_file.write_text(f"{text}space: {{optimizer: [adamw, lion], lora: {{r: [4, 8]}}}}\n", encoding="utf-8")
    spec, found = api.check_study(study_file)
    lines = check_lines(spec, found, width=80)
    assert not [line for line in lines if len(line) > 80 and str(study_file.parent) not in line]
    text = "\n".join(lines)
    assert "8 strategies (the recipes of 5 are tried first)" in text
    assert "  lora    r 4 | 8\n" in text
    assert "  switch  at 0.1 to 0.5\n" in text
    assert "learning rate: with adamw" in text
    for name in ("head>lora", "bitfit+lora+norm"):
        assert sum(line.startswith(f"  {name} ") for line in lines) == 1


def test_check_says_which_rows_the_classes_were_counted_in(study_file: Path) -> None:
    study_file.write_text(STUDY.replace("validation: 0.25", "validation: 0.25, train_rows: 20"), encoding="utf-8")
    text = "\n".join(check_lines(*api.check_study(study_file)))
    assert "20 rows to train on, 10 to judge by" in text
    assert "2 classes: plus 20, minus 20 (in all 40 rows of the file)" in text


def test_check_says_what_is_asked_and_what_past_studies_teach(run: Run, study_file: Path) -> None:
    asked = (
        "objective: [{metric: accuracy}, {metric: seconds}]\n"
        "constraints: [peak_memory <= 10 GB, trainable_params <= 1e6]\n"
    )
    text = "".join(line for line in STUDY.splitlines(keepends=True) if not line.startswith("objective"))
    study_file.write_text(text + asked, encoding="utf-8")
    out = run("study", "check", study_file).stdout
    assert "  objective   accuracy, seconds: weighed against each other\n" in out
    assert "  constraint  peak_memory <= 10 GB\n" in out
    assert "trainable_params <= 1e6\n" in out
    assert "learns" not in out, "there is no database"

    study_file.write_text(f"{STUDY}search: {{stop_when: {{gain: 0.01, trials: 4}}}}\n", encoding="utf-8")
    words = "when the next 4 trials are expected to gain less than 0.01"
    assert words in " ".join(run("study", "check", study_file).stdout.split())


def test_check_says_what_it_would_learn_now(study_file: Path) -> None:
    study_file.write_text(STUDY.replace("trials: 2", "trials: 20"), encoding="utf-8")
    url = f"sqlite:///{study_file.parent / 'past.db'}"
    spec, found = api.check_study(study_file, storage=url)
    asked = replace(found, space=toy_space())
    assert lesson_words(asked, storage=url) == ""
    with Database.open(url, create=True) as db:
        toy_study(db, "past", data={"train": spec.data.train}, search={"pruner": "none"})
        run_out(StudyDriver(db, name="past"))
    words = lesson_words(asked, storage=url)
    assert words == "1 recipe of past studies, tried first: past (1)"
    assert f"  learns      {words}" in check_lines(spec, found, learns=words)
