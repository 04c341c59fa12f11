"""What a person asks of a study that runs, from the command line."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest
from sqlalchemy import select

from tests.cli.command import tuner
from tests.cli.conftest import Run
from tests.cli.rehearsal import Ends, claim, open_study, play
from tests.cli.test_json import validate
from tests.store.toy import sql
from tuner.api import load_study
from tuner.cli.worker import conclude
from tuner.source import this_code
from tuner.store import workers
from tuner.store.database import Database
from tuner.store.records import Outcome, StudyState
from tuner.store.tables import events
from tuner.store.workers import Identity
from tuner.worker.supervisor import WorkerSummary


@pytest.fixture
def url(sqlite_url: str) -> str:
    """A database with the study ``played``, which has six trials to come."""
    open_study(sqlite_url)
    return sqlite_url


def who_asked(url: str) -> list[tuple[str, str]]:
    query = select(events.c.kind, events.c.who).where(events.c.who.is_not(None)).order_by(events.c.event_id)
    with Database.open(url) as db:
        return [(row.kind, row.who) for row in db.read(lambda tx: tx.execute(query).all())]


def register(url: str, name: str, *, host: str = "gpu-box") -> None:
    identity = Identity(worker=name, host=host, boot=f"another-{name}", pid=7, process_started=0.0)
    with Database.open(url) as db:
        workers.register(db, identity, devices=["cpu/0"], version="1", lease=60.0, code=this_code())


def test_pause_and_resume(run: Run, url: str) -> None:
    claim(url)
    paused = run("study", "pause", "played", "--reason", "maintenance", "--storage", url)
    assert paused.exit_code == 0
    assert paused.stderr == (
        "study played is paused\n"
        "1 running trial is left to finish; with --now it is given back\n"
        f"next: tuner study resume played --storage {url}\n"
    )
    (kind, who) = who_asked(url)[0]
    assert kind == "study_paused"
    assert re.fullmatch(rf".+@{re.escape(socket.gethostname())}", who)
    shown = run("study", "show", "played", "--storage", url)
    assert shown.stderr.startswith("next: tuner study resume played")
    assert f"paused (by {who}: maintenance)" in shown.stdout
    now = run("study", "pause", "played", "--now", "--storage", url)
    assert "1 running trial is given back at its worker's next sign of life\n" in now.stderr
    resumed = run("study", "resume", "played", "--storage", url)
    assert resumed.stderr.startswith("study played is searching\nnext: tuner worker start --study played")
    assert resumed.stdout == paused.stdout == ""


def test_stop_says_how_to_take_it_back(run: Run, url: str) -> None:
    result = run("study", "stop", "played", "--now", "--storage", url)
    assert result.exit_code == 0
    assert result.stderr.startswith("study played is stopped\nnext: tuner study best played")
    assert "tuner study resume played" in result.stderr
    again = run("study", "pause", "played", "--storage", url)
    assert again.exit_code == 5
    assert 'error: study "played" is stopped - by ' in again.stderr


def test_a_stopped_study_ends_a_worker_well(url: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("study", "stop", "played", "--storage", url)
    assert conclude(WorkerSummary(trials=0, studies={"played": StudyState.STOPPED}), storage=url) == 0
    said = capsys.readouterr().err
    assert "study played is stopped: by " in said
    assert "next: tuner study best played" in said


def test_a_finished_study_goes_on_with_a_raised_budget(run: Run, finished: str) -> None:
    refused = run("study", "resume", "played", "--storage", finished)
    assert refused.exit_code == 5
    assert "raise its budget: tuner study set played --trials 18" in refused.stderr
    below = run("study", "set", "played", "--trials", "3", "--storage", finished)
    assert below.exit_code == 5
    assert below.stderr == 'error: study "played" has 8 trials already; --trials 8 starts no new one\n'
    stays = run("study", "set", "played", "--gpu-hours", "50", "--storage", finished)
    assert stays.stderr.endswith("it stays finished: budget of 8 trials is used\n")
    result = run("study", "set", "played", "--trials", "12", "--priority", "5", "--storage", finished)
    assert result.exit_code == 0
    assert result.stderr.startswith("study played is searching, priority 5: 8 of 12 trials")
    assert "next: tuner worker start --study played --until-done" in result.stderr
    assert "priority    5" in run("study", "show", "played", "--storage", finished).stdout
    listed = run("study", "list", "--storage", finished).stdout.splitlines()
    assert listed[0].split()[-2:] == ["PRIORITY", "CREATED"]


def test_set_as_a_document(run: Run, url: str) -> None:
    document = json.loads(run("study", "set", "played", "--trials", "9", "--json", "--storage", url).stdout)
    validate(document, "study-set")
    assert document["study"]["budget"]["asked"]["trials"] == 9
    assert run("study", "set", "played", "--storage", url).exit_code == 2


def test_a_file_with_the_former_budget_says_how_to_change_it(run: Run, study_file: Path, sqlite_url: str) -> None:
    assert run("study", "create", study_file, "--storage", sqlite_url).exit_code == 0
    run("study", "set", "little", "--trials", "5", "--storage", sqlite_url)
    again = run("study", "create", study_file, "--storage", sqlite_url)
    assert again.exit_code == 5
    assert "budget.trials is 5 there and 2 here; its budget is changed by: tuner study set little" in again.stderr


def test_enqueue_and_its_mistakes(run: Run, url: str) -> None:
    words = ("study", "enqueue", "played", "--storage", url, "--strategy", "lora")
    document = json.loads(run(*words, "--set", "learning_rate=3e-4", "--json").stdout)
    validate(document, "study-enqueue")
    assert document["trial"] == 0
    trial = load_study("played", storage=url).trial(0)
    assert trial.outcome is Outcome.WAITING
    assert trial.reason.endswith(": lora learning_rate=3e-4")
    for value, text in (
        ("learning_rate=1.0", "learning_rate=1.0 is outside ["),
        ("learning_rat=3e-4", 'unknown parameter "learning_rat"; did you mean "learning_rate"?'),
        ("learning_rate", '--set: NAME=VALUE expected, got "learning_rate"'),
    ):
        result = run(*words, "--set", value)
        assert result.exit_code == 2, result.stderr
        assert text in result.stderr
        assert result.stderr.count("\n") == 1
    twice = run(*words, "--set", "learning_rate=3e-4", "--set", "learning_rate=1e-4")
    assert "--set: learning_rate is given twice" in twice.stderr


def test_a_trial_is_stopped_and_retried(run: Run, sqlite_url: str) -> None:
    open_study(sqlite_url)
    play(sqlite_url, runs=2, ends=Ends(errored=frozenset({1})))
    claim(sqlite_url)
    stopped = run("trial", "stop", "played", "2", "--reason", "flat", "--storage", sqlite_url)
    assert stopped.exit_code == 0
    assert stopped.stderr.startswith("trial 2 of study played ends at its worker's next sign of life\n")
    over = run("trial", "stop", "played", "0", "--storage", sqlite_url)
    assert over.exit_code == 5
    assert over.stderr.startswith("error: trial 0 is complete already (")
    retried = run("trial", "retry", "played", "1", "--storage", sqlite_url)
    assert retried.exit_code == 0
    assert retried.stderr.startswith("trial 1 of study played waits for a worker (study searching)\n")
    waiting = run("trial", "stop", "played", "1", "--storage", sqlite_url)
    assert waiting.stderr.startswith("trial 1 of study played is pruned\n")
    assert run("trial", "retry", "played", "9", "--storage", sqlite_url).exit_code == 4
    assert [kind for kind, _ in who_asked(sqlite_url)] == ["trial_stop_asked", "trial_retried", "trial_stop_asked"]


def test_a_retry_in_a_paused_study_says_so(run: Run, sqlite_url: str) -> None:
    open_study(sqlite_url)
    play(sqlite_url, runs=1, ends=Ends(errored=frozenset({0})))
    run("study", "pause", "played", "--storage", sqlite_url)
    result = run("trial", "retry", "played", "0", "--storage", sqlite_url)
    assert "(study paused)\nnext: tuner study resume played" in result.stderr


def test_workers_are_drained_and_listed(run: Run, url: str) -> None:
    register(url, "aa11")
    register(url, "bb22", host="other")
    document = json.loads(run("worker", "drain", "aa", "--json", "--storage", url).stdout)
    validate(document, "worker-list")
    assert [worker["worker"] for worker in document["workers"]] == ["aa11"]
    result = run("worker", "drain", "--host", "gpu-box", "--storage", url)
    assert result.stderr.startswith("worker aa11 on gpu-box drains at its next sign of life\n")
    listed = run("worker", "list", "--storage", url).stdout
    assert "running, asked to drain" in listed
    assert listed.count("asked to drain") == 1
    document = json.loads(run("worker", "list", "--json", "--storage", url).stdout)
    validate(document, "worker-list")
    assert {worker["worker"]: worker["asked"] for worker in document["workers"]} == {"aa11": "drain", "bb22": ""}
    assert run("worker", "drain", "--storage", url).exit_code == 2
    assert run("worker", "drain", "zz", "--storage", url).exit_code == 4
    assert run("worker", "drain", "--all", "--storage", url).exit_code == 0


def test_a_worker_of_other_code_is_refused_in_one_line(run: Run, url: str) -> None:
    with Database.open(url) as db:
        db.write(sql("UPDATE tuner_studies SET code = '9.9/other'"))
    result = run("worker", "start", "--study", "played", "--devices", "cpu", "--storage", url)
    assert result.exit_code == 78
    assert result.stderr == (
        f'error: study "played" was made by tuner 9.9/other, this worker runs {this_code()} - trials of different code '
        "cannot be compared; install the same tuner here, or join with --allow-skew (as after an edit to a strategy)\n"
    )


def test_watch_tells_what_people_change(run: Run, url: str) -> None:
    run("study", "pause", "played", "--reason", "lunch", "--storage", url)
    result = run("study", "watch", "played", "--until-done", "--storage", url)
    assert re.search(r"study played is paused \(by .+: lunch\): ", result.stdout)


def test_the_commands_work_in_a_process_of_their_own(tmp_path: Path, url: str) -> None:
    done = tuner("study", "pause", "played", "--storage", url, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("study played is paused\n")
