"""People and backups change the database under workers that train: they obey, or notice that their past is gone."""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.engine import make_url

from tests.faults.checker import check, read_ledger
from tests.faults.figures import LONG, RecordProperty, record
from tests.faults.mob import HEARTBEAT, Mob, make_study, mob
from tests.postgres import PostgresServer
from tests.store.toy import sql
from tuner.api import load_study
from tuner.errors import ConflictError
from tuner.search.budget import least_limits, why_no_new_trial
from tuner.store import control, studies, trial_control, workers
from tuner.store.control import Wishes
from tuner.store.database import Database
from tuner.store.records import Outcome, StudyState
from tuner.store.tables import attempts, metrics, runs
from tuner.store.tables import studies as studies_table

pytestmark = pytest.mark.slow

ANNA = "anna@box"
ROUNDS = 32 if LONG else 8
RESTORES = 10 if LONG else 2
ANSWER_SECONDS = 30.0
# The short form beats quickly; the long one as a worker does that nobody told otherwise.
BEATS: dict[str, Any] = {"heartbeat": 15.0, "lease": 90.0} if LONG else {}
ENDLESS = 2000  # epochs

Restore = Callable[[], None]


def wait_for_report(crowd: Mob, study: str) -> None:
    crowd.wait(lambda: any(line["study"] == study for line in crowd.lines("EpochReported")), what=f"{study} trains")


# Row 36: what people ask while trials run


def _delete(db: Database, name: str) -> None:
    studies.delete_study(db, name)


def _pause(db: Database, name: str) -> None:
    control.pause(db, name, who=ANNA, now=True)


def _stop(db: Database, name: str) -> None:
    control.stop(db, name, who=ANNA, now=True)


def _stop_trial(db: Database, name: str) -> None:
    trial_control.stop_trial(db, name, 0, who=ANNA)


ACTS = (_delete, _pause, _stop, _stop_trial)


@pytest.mark.timeout(1800)
def test_trials_end_soon_after_people_ask_for_it(
    tmp_path: Path, sqlite_url: str, record_property: RecordProperty
) -> None:
    """Deleted, paused, stopped, one trial stopped, in turn; the worker goes on with the next study each time."""
    answers: list[float] = []
    with mob(tmp_path, url=sqlite_url) as crowd, Database.open(sqlite_url, create=True) as db:
        pid = crowd.start(studies=[], until_done=False, **BEATS)
        for turn, act in zip(range(ROUNDS), itertools.cycle(ACTS), strict=False):
            name = f"toy-{turn}"
            make_study(sqlite_url, trials=1, name=name, epochs=ENDLESS)
            wait_for_report(crowd, name)
            asked = time.time()
            act(db, name)
            crowd.wait(
                lambda name=name: any(line["study"] == name for line in crowd.lines("RunEnded")),  # type: ignore[misc]
                what=f"{name} ends after {act.__name__}",
            )
            (end,) = [line for line in crowd.lines("RunEnded") if line["study"] == name]
            answers.append(end["at"] - asked)
            assert end["outcome"] == {_delete: "lost", _stop_trial: "pruned"}.get(act, "preempted")
        assert crowd.alive() == [pid]
        orphans = db.read(_orphans)
        states = Counter(study.state for study in studies.list_studies(db))
    figures = {
        "asked": len(answers),
        "ended within 30 s": sum(answer <= ANSWER_SECONDS for answer in answers),
        "slowest answer s": round(max(answers), 1),
        "rows that came back": orphans,
    }
    record(record_property, row=36, database=sqlite_url, figures=figures)
    assert max(answers) <= ANSWER_SECONDS
    assert orphans == 0
    assert states[StudyState.PAUSED] == states[StudyState.STOPPED] == ROUNDS // len(ACTS)


def _orphans(tx: Any) -> int:
    """Rows of studies that were deleted."""
    run_ids, study_ids = select(runs.c.run_id), select(studies_table.c.study_id)
    queries = [
        select(func.count()).where(runs.c.study_id.not_in(study_ids)),
        select(func.count()).where(attempts.c.run_id.not_in(run_ids)),
        select(func.count()).where(metrics.c.run_id.not_in(run_ids)),
        text("SELECT count(*) FROM trials WHERE study_id NOT IN (SELECT study_id FROM tuner_studies)"),
        text("SELECT count(*) FROM trial_intermediate_values WHERE trial_id NOT IN (SELECT trial_id FROM trials)"),
    ]
    return sum(int(tx.execute(query).scalar_one()) for query in queries)


def test_a_drained_worker_leaves_and_another_goes_on(tmp_path: Path, sqlite_url: str) -> None:
    make_study(sqlite_url, trials=6, epochs=20, pruner="none")
    with mob(tmp_path, url=sqlite_url) as crowd, Database.open(sqlite_url) as db:
        first = crowd.start()
        wait_for_report(crowd, "toy")
        (there,) = workers.list_workers(db)
        workers.ask_to_drain(db, worker=there.worker, who=ANNA)
        asked = time.time()
        crowd.wait(lambda: bool(crowd.lines("Exited")), what="it has left")
        (left,) = crowd.lines("Exited")
        assert (left["pid"], left["status"]) == (first, 0)
        assert left["at"] - asked < ANSWER_SECONDS
        drained = load_study("toy", storage=sqlite_url)
        assert drained.study.counts["running"] == 0
        assert drained.workers == ()
        assert Outcome.PREEMPTED in [one.outcome for trial in drained.trials for one in trial.attempts]
        crowd.start()
        crowd.wait_until_over()
        assert check(url=sqlite_url, study="toy", ledger=crowd.ledger, trials=6).wrong == {}


def test_a_worker_that_was_taken_off_the_list_registers_anew(tmp_path: Path, sqlite_url: str) -> None:
    make_study(sqlite_url, trials=4, epochs=20, pruner="none")
    with mob(tmp_path, url=sqlite_url) as crowd, Database.open(sqlite_url) as db:
        crowd.start()
        wait_for_report(crowd, "toy")
        (there,) = workers.list_workers(db)
        db.write(sql("DELETE FROM tuner_workers"))
        crowd.wait(lambda: _are_new(sqlite_url, than={there.worker}, count=1), what="it has registered anew")
        crowd.wait_until_over()
        assert check(url=sqlite_url, study="toy", ledger=crowd.ledger, trials=4).wrong == {}
    attempts = load_study("toy", storage=sqlite_url).trial(0).attempts
    assert [one.outcome for one in attempts] == [Outcome.LOST, Outcome.COMPLETE]
    assert attempts[0].worker == there.worker != attempts[1].worker


def test_studies_share_one_pool_by_priority(tmp_path: Path, sqlite_url: str) -> None:
    names = ("first", "second")
    for name in names:
        make_study(sqlite_url, trials=14, name=name, pruner="none")
    with mob(tmp_path, url=sqlite_url, study="first") as crowd, Database.open(sqlite_url) as db:
        crowd.start(studies=[], per_device=4)
        crowd.wait(lambda: len(crowd.lines("RunClaimed")) >= 16, what="sixteen runs were claimed")
        _change(db, "second", priority=5)
        changed = time.time()
        crowd.wait_until_over()
        crowd.wait(lambda: not crowd.alive(), what="the worker has left")
    lines = read_ledger(crowd.ledger)
    claims = [line["study"] for line in lines if line["event"] == "RunClaimed" and line["at"] < changed]
    assert abs(claims.count("first") - claims.count("second")) <= 2  # both progress evenly
    later = [line["study"] for line in lines if line["event"] == "RunClaimed" and line["at"] > changed + 0.5]
    left = later.count("second")
    assert left >= 3
    assert later[:left] == ["second"] * left  # then it takes every slot that gets free
    assert _most_apart(lines, until=changed) <= 1


def _most_apart(lines: list[dict[str, Any]], *, until: float) -> int:
    """By how many running trials two studies differed at most after a claim, once all slots were taken."""
    running: Counter[str] = Counter()
    most = 0
    for line in lines:
        if line["at"] > until or line["event"] not in ("RunClaimed", "RunEnded"):
            continue
        running[line["study"]] += 1 if line["event"] == "RunClaimed" else -1
        if line["event"] == "RunClaimed" and running.total() == 4:
            most = max(most, abs(running["first"] - running["second"]) // 2)
    return most


def test_a_budget_is_changed_while_workers_run(tmp_path: Path, sqlite_url: str) -> None:
    make_study(sqlite_url, trials=40, pruner="none")
    with mob(tmp_path, url=sqlite_url) as crowd, Database.open(sqlite_url) as db:
        for _ in range(3):
            crowd.start()
        crowd.wait(lambda: len(crowd.lines("RunEnded")) >= 3, what="three trials are done")
        _lower_to_what_is_used(db)
        used = studies.find_study(db, "toy").used.trials
        crowd.wait_until_over()
        assert studies.find_study(db, "toy").used.trials == used < 40
        _change(db, "toy", trials=used + 5)
        control.enqueue(db, "toy", strategy="lora", values={"learning_rate": 1e-3}, who=ANNA, quota=why_no_new_trial)
        crowd.start()
        crowd.wait_until_over()
        assert check(url=sqlite_url, study="toy", ledger=crowd.ledger, trials=used + 5).wrong == {}
    trial = load_study("toy", storage=sqlite_url).trial(used)
    assert trial.params["learning_rate"] == pytest.approx(1e-3)


def _lower_to_what_is_used(db: Database) -> None:
    while True:
        used = studies.find_study(db, "toy").used.trials
        with contextlib.suppress(ConflictError):  # a worker was faster
            _change(db, "toy", trials=used)
            return


def _change(db: Database, name: str, **wishes: Any) -> None:
    control.change(db, name, wishes=Wishes(**wishes), who=ANNA, quota=why_no_new_trial, least=least_limits)


# Row 35: other code, other schema


def test_workers_of_other_code_claim_nothing(tmp_path: Path, sqlite_url: str, record_property: RecordProperty) -> None:
    for name in ("ours", "theirs"):
        make_study(sqlite_url, trials=6, name=name, pruner="none")
    with mob(tmp_path, url=sqlite_url, study="ours") as crowd, Database.open(sqlite_url) as db:
        db.write(sql("UPDATE tuner_studies SET code = ''"))  # of an older version, which did not write it down
        db.write(sql("UPDATE tuner_studies SET code = '9.9/other' WHERE name = 'theirs'"))
        pool = [crowd.start(studies=[], allow_skew=False) for _ in range(3)]
        named = [crowd.start(studies=["theirs"], allow_skew=False) for _ in range(2)]
        crowd.wait(lambda: len(crowd.lines("Exited")) == 5, what="all have left")
        skewed = len(load_study("theirs", storage=sqlite_url).trials)
        assert load_study("ours", storage=sqlite_url).study.counts["complete"] == 6  # the pool serves the others
        said = crowd.tail()
        assert 'study "theirs" was made by tuner 9.9/other, this worker runs ' in said
        assert "--allow-skew" in said
        status = {line["pid"]: line["status"] for line in crowd.lines("Exited")}
        assert [status[pid] for pid in pool] == [0, 0, 0]
        assert 0 not in [status[pid] for pid in named]
        crowd.start(studies=["theirs"])
        crowd.wait(lambda: len(crowd.lines("Exited")) == 6, what="who joins all the same is done")
        joined = load_study("theirs", storage=sqlite_url).study.counts["complete"]
        assert joined == 6
        db.write(sql("UPDATE tuner_studies SET state = 'searching', code = ''"))
        _change(db, "theirs", trials=8)
        db.write(sql("UPDATE tuner_alembic_version SET version_num = '0001'"))
        for _ in range(3):
            crowd.start(studies=["theirs"], allow_skew=False)
        crowd.wait(lambda: len(crowd.lines("Exited")) == 9, what="all have left")
        old = len([line for line in crowd.lines("RunClaimed") if line["study"] == "theirs"]) - joined
        assert "has schema 0001, this tuner needs" in crowd.tail()
    figures = {"workers refused": 8, "claims with other code": skewed, "claims in an older schema": old}
    record(record_property, row=35, database=sqlite_url, figures=figures)
    assert (skewed, old) == (0, 0)


# Row 30: a database from the past


def _sqlite_backup(url: str, folder: Path) -> Restore:
    """As ``.backup`` and ``.restore`` of the sqlite3 program do it."""
    file, copy = str(make_url(url).database), str(folder / "backup.db")

    def _copy(source: str, target: str) -> None:
        with (
            contextlib.closing(sqlite3.connect(source, timeout=60)) as here,
            contextlib.closing(sqlite3.connect(target, timeout=60)) as there,
        ):
            here.backup(there)

    _copy(file, copy)
    return lambda: _copy(copy, file)


def _postgres_backup(url: str, folder: Path, server: PostgresServer) -> Restore:
    """With ``pg_dump`` and ``pg_restore``: the tables are dropped and made anew under the workers."""
    place = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    copy = str(folder / "backup.dump")

    def _run(program: str, *words: str) -> None:
        for _ in range(8):
            done = subprocess.run([server.programs / program, *words], capture_output=True, text=True, check=False)
            if "deadlock detected" not in done.stderr:  # with the workers; nothing was changed, so it is run again
                break
        assert done.returncode == 0, done.stderr

    _run("pg_dump", "--format=custom", f"--file={copy}", place)
    return lambda: _run(
        "pg_restore", "--clean", "--if-exists", "--no-owner", "--single-transaction", f"--dbname={place}", copy
    )


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Callable[[], Restore]]:
    """A database, and what makes a backup of it."""
    if request.param == "sqlite":
        url = str(request.getfixturevalue("sqlite_url"))
        return url, lambda: _sqlite_backup(url, tmp_path)
    url = str(request.getfixturevalue("postgres_url"))
    return url, lambda: _postgres_backup(url, tmp_path, request.getfixturevalue("postgres_server"))


@pytest.mark.timeout(1800)
def test_nothing_is_written_to_a_database_that_was_restored(
    tmp_path: Path, place: tuple[str, Callable[[], Restore]], record_property: RecordProperty
) -> None:
    url, backup = place
    trials, crew = 12 * RESTORES, 3
    make_study(url, trials=trials, epochs=12, pruner="none")
    stale = dropped = 0
    forgotten: list[tuple[float, float]] = []
    with mob(tmp_path, url=url) as crowd:
        pids = [crowd.start() for _ in range(crew)]
        for turn in range(RESTORES):
            done = len(crowd.lines("RunEnded"))
            crowd.wait(lambda done=done: len(crowd.lines("RunEnded")) >= done + 3, what="three more are done")  # type: ignore[misc]
            backed_up = time.time()
            running = _written(url)
            restore = backup()
            held = {attempt: epochs for attempt, epochs in _written(url).items() if attempt in running}
            time.sleep(2.5 * HEARTBEAT)  # they go on meanwhile: that is what will be gone
            before = {worker.worker for worker in load_study("toy", storage=url).workers}
            restore()
            forgotten.append((backed_up, time.time()))
            crowd.wait(
                lambda before=before: _are_new(url, than=before, count=crew),  # type: ignore[misc]
                what=f"all have registered anew after restore {turn}",
            )
            dropped += len(held)
            stale += sum(len(epochs - held[attempt]) for attempt, epochs in _written(url, of=held).items())
        assert sorted(crowd.alive()) == sorted(pids)
        crowd.wait_until_over()
        statuses = [line["status"] for line in crowd.lines("Exited")]
    figures = {"restores": RESTORES, "runs that were held": dropped, "writes of the old generation": stale}
    record(record_property, row=30, database=url, figures=figures | {"workers that lived on": len(pids)})
    assert dropped >= RESTORES
    assert stale == 0
    kept = _without(tmp_path / "ledger.jsonl", forgotten, folder=tmp_path)
    assert check(url=url, study="toy", ledger=kept, trials=trials).wrong == {}
    assert statuses == [0] * crew


def _written(url: str, *, of: dict[tuple[int, int], set[int]] | None = None) -> dict[tuple[int, int], set[int]]:
    """The epochs of attempts: of those that run now, or of the given ones."""
    query = select(runs.c.run_id, runs.c.attempt).where(runs.c.outcome == Outcome.RUNNING.value)
    with Database.open(url) as db:
        chosen = of if of is not None else [tuple(row) for row in db.read(lambda tx: tx.execute(query).all())]
        found: dict[tuple[int, int], set[int]] = {(run, attempt): set() for run, attempt in chosen}
        said = select(metrics.c.run_id, metrics.c.attempt, metrics.c.epoch).distinct()
        for row in db.read(lambda tx: tx.execute(said).all()):
            if (row.run_id, row.attempt) in found:
                found[row.run_id, row.attempt].add(row.epoch)
        ended = select(attempts.c.run_id, attempts.c.attempt).where(
            attempts.c.outcome.in_((Outcome.COMPLETE.value, Outcome.PRUNED.value))
        )
        for run, attempt in db.read(lambda tx: tx.execute(ended).all()):
            if (run, attempt) in found:
                found[run, attempt].add(-1)  # an end is a write, too
    return found


def _are_new(url: str, *, than: set[str], count: int) -> bool:
    there = {worker.worker for worker in load_study("toy", storage=url).workers if worker.is_alive}
    return len(there - than) == count


def _without(ledger: Path, forgotten: list[tuple[float, float]], *, folder: Path) -> Path:
    """The acknowledgements that the restored database was never meant to have are left out.

    Those from between a backup and its restore, and what was said of a run on another side of that than its claim was.
    """

    def _era(at: float) -> int | None:
        inside = any(begin <= at <= end for begin, end in forgotten)
        return None if inside else sum(end < at for _, end in forgotten)

    kept, claimed = [], {}
    for line in read_ledger(ledger):
        if line["event"] == "Exited":
            continue
        place, era = (line["pid"], line["slot"], line["number"]), _era(line["at"])
        if line["event"] == "RunClaimed":
            claimed[place] = era
        if era is not None and claimed.get(place) == era:
            kept.append(line)
    file = folder / "kept.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    return file
