"""Crowds at the database's door: empty databases, one budget for all, too few connections.

`make test` runs a few rounds of each; TUNER_FAULTS=long runs as many as docs/reliability.md reports.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Protocol, TypeVar

import pytest
from sqlalchemy.engine import Connection, make_url

from tests import mariadb, postgres
from tests.faults.figures import LONG, RecordProperty, record
from tests.faults.proxy import cutting_proxy
from tests.store.toy import holder, sql, toy_study, train
from tuner.search.driver import StudyDriver
from tuner.store import leases, queries
from tuner.store.checks import find_problems
from tuner.store.database import Database
from tuner.store.records import Outcome

pytestmark = pytest.mark.slow

ROUNDS = 20 if LONG else 2
WORKERS = 8
BUDGET = 50 if LONG else 24
PATIENCE = 1800 if LONG else 240
HOUR = 3600.0  # of a lease that is not to run out, however slow the machine is
QUEUED = 500 if LONG else 24
HELD_SECONDS = 30.0 if LONG else 3.0
DATABASES = ["sqlite", "postgres", "mariadb"] if LONG else ["sqlite", "postgres"]
SERVERS = ["postgres", "mariadb"] if LONG else ["postgres"]

Answer = TypeVar("Answer")


class Crowd(Protocol):
    """``crowd(function, url)``: what eight processes answer that call it at the same moment."""

    def __call__(self, function: Callable[[str], Answer], url: str) -> list[Answer]: ...


_barrier: Barrier


def _join(barrier: Barrier) -> None:
    global _barrier  # noqa: PLW0603 - how a pool hands something to its processes
    _barrier = barrier


def _open(url: str) -> str:
    """Open a database together with everybody else; what went wrong."""
    _barrier.wait()
    try:
        Database.open(url, create=True).close()
    except BaseException as error:  # noqa: BLE001 - told by the assertion
        return repr(error)
    return ""


def _claim_all(url: str) -> list[int]:
    """Claim what waits until nothing does; the numbers."""
    claimed = []
    with Database.open(url) as db:
        driver = StudyDriver(db, name="toy")
        _barrier.wait()
        while (lease := driver.claim(holder(f"w{os.getpid()}", lease=HOUR))) is not None:
            claimed.append(lease.number)
    return claimed


def _serve(url: str) -> tuple[list[int], int]:
    """Train toy trials until the budget is used; their numbers, and the most that were ever counted."""
    most = 0
    done = []
    with Database.open(url) as db:
        driver = StudyDriver(db, name="toy")
        _barrier.wait()
        while (lease := driver.claim(holder(f"w{os.getpid()}"))) is not None:
            most = max(most, sum(queries.read_progress(db, "toy").study.counts.values()))
            train(driver, lease)
            done.append(lease.number)
    return done, most


@pytest.fixture(scope="module")
def crowd() -> Iterator[Crowd]:
    """Processes that have loaded everything."""
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(WORKERS)
    with ProcessPoolExecutor(WORKERS, mp_context=context, initializer=_join, initargs=(barrier,)) as pool:

        def _all(function: Callable[[str], Answer], url: str) -> list[Answer]:
            # The barrier in the function keeps a process from taking two of the calls.
            return [future.result(timeout=PATIENCE) for future in [pool.submit(function, url) for _ in range(WORKERS)]]

        yield _all


@pytest.fixture
def new_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """Gives the URL of one more empty database of the test's kind."""
    servers = {"postgres": "postgres_server", "mariadb": "mariadb_server"}
    kind = request.param
    open_databases = []

    def _new() -> str:
        if kind == "sqlite":
            return f"sqlite:///{tmp_path_factory.mktemp('round')}/tuner.db"
        database = request.getfixturevalue(servers[kind]).database()
        open_databases.append(database)
        return str(database.__enter__())

    yield _new
    for database in open_databases:
        database.__exit__(None, None, None)


@pytest.mark.timeout(3600 if LONG else 300)
@pytest.mark.parametrize("new_url", DATABASES, indirect=True)
def test_eight_processes_may_open_an_empty_database_at_once(
    crowd: Crowd, new_url: Callable[[], str], record_property: RecordProperty
) -> None:
    urls = [new_url() for _ in range(ROUNDS)]
    answers = [answer for url in urls for answer in crowd(_open, url)]
    failed = [answer for answer in answers if answer]
    record(
        record_property,
        row=8,
        database=urls[0],
        figures={"rounds": ROUNDS, "opened": len(answers), "failed": len(failed)},
    )
    assert failed == []


@pytest.mark.timeout(3600 if LONG else 300)
@pytest.mark.parametrize("new_url", DATABASES, indirect=True)
def test_eight_processes_never_overshoot_a_budget(
    crowd: Crowd, new_url: Callable[[], str], record_property: RecordProperty
) -> None:
    urls = [new_url() for _ in range(ROUNDS if LONG else 1)]
    highest = 0
    for url in urls:
        with Database.open(url, create=True) as db:
            toy_study(db, budget={"trials": BUDGET}, search={"sampler": {"name": "random"}, "pruner": {"name": "none"}})
        answers = crowd(_serve, url)
        numbers = sorted(number for done, _ in answers for number in done)
        assert numbers == list(range(BUDGET))
        highest = max(highest, *(most for _, most in answers))
        assert highest <= BUDGET
        with Database.open(url) as db:
            assert queries.load_snapshot(db, "toy").study.counts["complete"] == BUDGET
    figures = {"rounds": len(urls), "budget": BUDGET, "most trials ever": highest}
    record(record_property, row=32, database=urls[0], figures=figures)


@pytest.mark.timeout(3600 if LONG else 300)
@pytest.mark.parametrize("new_url", DATABASES, indirect=True)
def test_eight_processes_never_claim_one_waiting_run_twice(
    crowd: Crowd, new_url: Callable[[], str], record_property: RecordProperty
) -> None:
    url = new_url()
    with Database.open(url, create=True) as db:
        toy_study(db, budget={"trials": QUEUED}, search={"sampler": {"name": "random"}, "pruner": {"name": "none"}})
        driver = StudyDriver(db, name="toy")
        held = [lease for _ in range(QUEUED) if (lease := driver.claim(holder(lease=HOUR))) is not None]
        for lease in held:
            leases.release(db, lease, reason="the worker was told to stop", seconds=0.0)
        claimed = sorted(number for numbers in crowd(_claim_all, url) for number in numbers)
        attempts = {len(trial.attempts) for trial in queries.load_snapshot(db, "toy").trials}
    figures = {"queued": QUEUED, "claimed": len(claimed), "claimed twice": len(claimed) - len(set(claimed))}
    record(record_property, row=7, database=url, figures=figures)
    assert claimed == list(range(QUEUED))
    assert attempts == {2}


def test_a_locked_file_is_waited_for(tmp_path: Path, record_property: RecordProperty) -> None:
    """Somebody else's tool holds SQLite's lock for a while: a write takes its turn."""
    with Database.open(f"sqlite:///{tmp_path}/tuner.db", create=True) as db:
        toy_study(db)
        driver = StudyDriver(db, name="toy")
        with closing(sqlite3.connect(tmp_path / "tuner.db", isolation_level=None, check_same_thread=False)) as other:
            other.execute("BEGIN EXCLUSIVE")
            threading.Timer(HELD_SECONDS, other.rollback).start()
            begin = time.monotonic()
            assert driver.claim(holder()) is not None
            waited = time.monotonic() - begin
    figures = {"lock held s": HELD_SECONDS, "write done after s": round(waited, 1)}
    record(record_property, row=16, database="sqlite", figures=figures)
    assert waited > 0.5 * HELD_SECONDS


CONNECTIONS, VISITORS, TRIALS_EACH = 10, 12, 3


@pytest.mark.parametrize("kind", SERVERS)
def test_twelve_workers_take_turns_at_ten_connections(
    kind: str, caplog: pytest.LogCaptureFixture, record_property: RecordProperty
) -> None:
    running = {
        "postgres": lambda: postgres.running_server(f"max_connections={CONNECTIONS}"),
        "mariadb": lambda: mariadb.running_server(f"--max-connections={CONNECTIONS}"),
    }[kind]
    told: list[BaseException] = []
    numbers: list[int] = []

    def _visit(url: str, name: str) -> None:
        try:
            with Database.open(url) as db:
                driver = StudyDriver(db, name="toy")
                for _ in range(TRIALS_EACH):
                    lease = driver.claim(holder(name))
                    assert lease is not None
                    train(driver, lease)
                    numbers.append(lease.number)
        except BaseException as error:  # noqa: BLE001 - told by the assertion
            told.append(error)

    with running() as server, server.database() as url, caplog.at_level(logging.WARNING):  # type: ignore[attr-defined]
        with Database.open(url, create=True) as db:
            toy_study(
                db,
                budget={"trials": VISITORS * TRIALS_EACH},
                search={"sampler": {"name": "random"}, "pruner": {"name": "none"}},
            )
        visitors = [threading.Thread(target=_visit, args=(url, f"w{index}")) for index in range(VISITORS)]
        for visitor in visitors:
            visitor.start()
        for visitor in visitors:
            visitor.join()
    waiting = [record.getMessage() for record in caplog.records if "waiting for a free connection" in record.message]
    figures = {
        "workers": VISITORS,
        "connections": CONNECTIONS,
        "times waited": len(waiting),
        "trials": len(numbers),
        "errors": len(told),
    }
    record(record_property, row=14, database=url, figures=figures)
    assert told == []
    assert sorted(numbers) == list(range(VISITORS * TRIALS_EACH))
    assert waiting
    assert all("\n" not in line and "***" in line for line in waiting)


CUTS = 200 if LONG else 12


@pytest.mark.timeout(3600 if LONG else 300)
@pytest.mark.parametrize("kind", SERVERS)
def test_a_connection_cut_around_a_commit_loses_nothing_and_doubles_nothing(
    kind: str, request: pytest.FixtureRequest, record_property: RecordProperty
) -> None:
    """Half of the cuts come before the server hears of the commit, half before we hear that it took effect."""
    url = make_url(str(request.getfixturevalue(f"{kind}_url")))
    trials = 2 * CUTS
    with cutting_proxy(port=int(url.port or 0), share=0.1) as proxy:
        through = url.set(port=proxy.port).render_as_string(hide_password=False)
        with Database.open(through, create=True) as db:
            toy_study(db, budget={"trials": trials}, search={"sampler": {"name": "random"}, "pruner": {"name": "none"}})
            driver = StudyDriver(db, name="toy")
            proxy.is_armed = True
            while (lease := driver.claim(holder())) is not None:
                train(driver, lease)
            proxy.is_armed = False
            snapshot = queries.load_snapshot(db, "toy")
            problems = find_problems(db)
    figures = {"cut before": proxy.cuts_before, "cut after": proxy.cuts_after, "trials": trials}
    figures |= {"half trials": sum(trial.outcome is not Outcome.COMPLETE for trial in snapshot.trials)}
    figures |= {"attempts too many": sum(len(trial.attempts) - 1 for trial in snapshot.trials)}
    record(record_property, row=12, database=url.drivername, figures=figures)
    assert proxy.cuts_before + proxy.cuts_after >= CUTS, figures
    assert min(proxy.cuts_before, proxy.cuts_after) > 0, figures
    assert [trial.number for trial in snapshot.trials] == list(range(trials))
    assert all(trial.outcome is Outcome.COMPLETE for trial in snapshot.trials)
    assert all(len(trial.attempts) == 1 and len(trial.epochs) == 3 for trial in snapshot.trials)
    assert problems == []


THREADS, WRITES, ROWS = 16, 500 if LONG else 100, 8


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_sixteen_writers_that_lock_in_any_order_all_get_through(
    kind: str, request: pytest.FixtureRequest, record_property: RecordProperty
) -> None:
    """Two rows each, in a random order: deadlocks by the hundred, and none is told."""
    url = str(request.getfixturevalue(f"{kind}_url"))
    db = Database.open(url, create=True)
    if kind == "postgres":  # which looks for deadlocks once a second unless it is told otherwise
        db.write(sql(f"ALTER DATABASE {db.url.database} SET deadlock_timeout = '10ms'"))
    db.write(sql("CREATE TABLE counters (id INT PRIMARY KEY, n INT NOT NULL)"))
    for row in range(ROWS):
        db.write(sql(f"INSERT INTO counters VALUES ({row}, 0)"))
    told: list[BaseException] = []
    retried: list[int] = []

    def _write(seed: int) -> None:
        draw = random.Random(seed)
        with Database.open(url) as mine:
            for _ in range(WRITES):
                rows = draw.sample(range(ROWS), 2)
                tries: list[int] = []

                def _bump(tx: Connection, rows: list[int] = rows, tries: list[int] = tries) -> None:
                    tries.append(1)
                    for row in rows:
                        tx.exec_driver_sql(f"UPDATE counters SET n = n + 1 WHERE id = {row}")

                try:
                    mine.write(_bump)
                except BaseException as error:  # noqa: BLE001 - told by the assertion
                    told.append(error)
                retried.append(len(tries) - 1)

    threads = [threading.Thread(target=_write, args=(seed,)) for seed in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = db.read(lambda tx: int(tx.exec_driver_sql("SELECT SUM(n) FROM counters").scalar_one()))
    db.close()
    figures = {"writes": len(retried), "conflicts": sum(retried), "most for one write": max(retried), "told": len(told)}
    record(record_property, row=15, database=url, figures=figures)
    assert told == []
    assert total == 2 * THREADS * WRITES
    assert sum(retried) > 0
