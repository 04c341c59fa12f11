"""Crowds at the database's door: empty databases, one budget for all, too few connections.

`make test` runs a few rounds of each; TUNER_FAULTS=long runs as many as docs/reliability.md reports.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from typing import Protocol, TypeVar

import pytest

from tests import mariadb, postgres
from tests.store.toy import holder, toy_study, train
from tuner.search.driver import StudyDriver
from tuner.store import queries
from tuner.store.database import Database

pytestmark = pytest.mark.slow

LONG = os.environ.get("TUNER_FAULTS") == "long"
ROUNDS = 20 if LONG else 3
WORKERS = 8
BUDGET = 50 if LONG else 24
DATABASES = ["sqlite", "postgres", "mariadb"]

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
            return [future.result(timeout=240) for future in [pool.submit(function, url) for _ in range(WORKERS)]]

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


@pytest.mark.timeout(900)
@pytest.mark.parametrize("new_url", DATABASES, indirect=True)
def test_eight_processes_may_open_an_empty_database_at_once(crowd: Crowd, new_url: Callable[[], str]) -> None:
    for _ in range(ROUNDS):
        assert crowd(_open, new_url()) == [""] * WORKERS


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("new_url", DATABASES, indirect=True)
def test_eight_processes_never_overshoot_a_budget(crowd: Crowd, new_url: Callable[[], str]) -> None:
    for _ in range(ROUNDS if LONG else 1):
        url = new_url()
        with Database.open(url, create=True) as db:
            toy_study(db, budget={"trials": BUDGET}, search={"sampler": {"name": "random"}, "pruner": {"name": "none"}})
        answers = crowd(_serve, url)
        numbers = sorted(number for done, _ in answers for number in done)
        assert numbers == list(range(BUDGET))
        assert max(most for _, most in answers) <= BUDGET
        with Database.open(url) as db:
            assert queries.load_snapshot(db, "toy").study.counts["complete"] == BUDGET


CONNECTIONS, VISITORS, TRIALS_EACH = 10, 12, 3


@pytest.mark.parametrize("kind", ["postgres", "mariadb"])
def test_twelve_workers_take_turns_at_ten_connections(kind: str, caplog: pytest.LogCaptureFixture) -> None:
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
    assert told == []
    assert sorted(numbers) == list(range(VISITORS * TRIALS_EACH))
    waiting = [record.getMessage() for record in caplog.records if "waiting for a free connection" in record.message]
    assert waiting
    assert all("\n" not in line and "***" in line for line in waiting)
