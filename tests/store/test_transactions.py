"""One transaction, on every database: what it sees, what is tried again, what is told."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator

import pymysql
import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from tests.store.toy import LEASE, holder, sql, toy_result, toy_study
from tuner.errors import ConfigurationError, UnavailableError
from tuner.search.driver import StudyDriver
from tuner.store import engines, leases, studies
from tuner.store.clock import read_clock
from tuner.store.database import Database
from tuner.store.queries import load_snapshot
from tuner.store.records import Outcome
from tuner.store.tables import db_now, events

Write = Callable[[Connection], None]


@pytest.fixture
def db(storage_url: str) -> Iterator[Database]:
    with Database.open(storage_url, create=True) as database:
        yield database


@pytest.fixture(params=["postgres", "mariadb"])
def served(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A database that is a server: with lengths, connections and row locks, which SQLite does not have."""
    with Database.open(str(request.getfixturevalue(f"{request.param}_url")), create=True) as database:
        yield database


@pytest.fixture
def maria(mariadb_url: str) -> Iterator[Database]:
    with Database.open(mariadb_url, create=True) as database:
        yield database


def _event(words: str) -> Write:
    def _write(tx: Connection) -> None:
        tx.execute(insert(events).values(at=db_now(), kind="test", text=words))

    return _write


def _texts(tx: Connection) -> list[str]:
    return [words for (words,) in tx.execute(select(events.c.text).order_by(events.c.event_id))]


def test_a_read_sees_one_moment_and_cannot_write(db: Database) -> None:
    def _look_twice(tx: Connection) -> tuple[list[str], list[str]]:
        before = _texts(tx)
        other = threading.Thread(target=lambda: db.write(_event("between")))
        other.start()
        other.join()
        return before, _texts(tx)

    assert db.read(_look_twice) == ([], [])
    assert db.read(_texts) == ["between"]
    if db.dialect != "sqlite":
        with pytest.raises(ConfigurationError, match=r"docs/deployment\.md, Roles"):
            db.read(_event("by a reader"))


def test_the_clock_counts_fractions_of_universal_seconds(db: Database) -> None:
    assert abs(read_clock(db) - time.time()) < 5.0
    said = set()
    for _ in range(10):
        time.sleep(0.002)  # SQLite counts milliseconds
        said.add(read_clock(db))
    assert len(said) == 10


def test_a_session_in_another_time_zone_changes_nothing(storage_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Database.open(storage_url, create=True) as here:
        toy_study(here)
        driver = StudyDriver(here, name="toy")
        lease = driver.claim(holder("here"))
        assert lease is not None
        for zone in ("Asia/Tokyo", "America/New_York"):
            monkeypatch.setenv("PGTZ", zone)
            monkeypatch.setenv("TZ", zone)
            with Database.open(storage_url) as there:
                assert leases.reclaim_expired(there, driver.study.study_id) == 0  # a live lease is not stale
                assert leases.renew(there, held=[(lease, 1.0)], lease=LEASE) == []
                trial = there.optuna_storage().get_trial(lease.trial_id)
                assert trial.datetime_start is not None
                now = dt.datetime.fromtimestamp(read_clock(there), tz=dt.UTC).replace(tzinfo=None)
                assert abs((now - trial.datetime_start).total_seconds()) < 120
        leases.renew(here, held=[(lease, 1.0)], lease=-1.0)
        assert leases.reclaim_expired(here, driver.study.study_id) == 1  # and a dead one is not missed


def test_long_texts_any_character_and_names_that_differ_in_case(db: Database) -> None:
    words = "Ünïcode 😀 \\ ' \" % {}" * 20_000  # 400 KB
    db.write(_event(words))
    assert db.read(_texts) == [words]
    assert toy_study(db, "Toy").study_id != toy_study(db, "toy").study_id
    assert [study.name for study in studies.list_studies(db)] == ["Toy", "toy"]


def test_a_value_that_does_not_fit_is_refused_not_cut(served: Database) -> None:
    with pytest.raises(UnavailableError, match=r"too long"):
        served.write(lambda tx: tx.execute(insert(events).values(at=db_now(), kind="k" * 33, text="")))
    assert served.read(_texts) == []


def test_a_connection_that_breaks_is_replaced_and_the_transaction_run_again(served: Database) -> None:
    tries = []

    def _break_the_first(tx: Connection) -> None:
        tries.append(1)
        _event(f"try {len(tries)}")(tx)
        if len(tries) == 1:
            _kill(served, tx)
        assert _texts(tx)

    served.write(_break_the_first)
    assert served.read(_texts) == ["try 2"]


def _kill(db: Database, tx: Connection) -> None:
    """Cut the connection of a transaction from another one."""
    if db.dialect == "mysql":
        victim = tx.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one()
        statement = f"KILL {victim}"
    else:
        victim = tx.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        statement = f"SELECT pg_terminate_backend({victim})"
    other = threading.Thread(target=lambda: db.write(sql(statement)))
    other.start()
    other.join()
    time.sleep(0.2)


@pytest.mark.parametrize("moment", ["claim", "finish"])
def test_a_commit_whose_answer_is_lost_takes_effect_once(
    db: Database, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_study(db)
    driver = StudyDriver(db, name="toy")
    if moment == "claim":
        _lose_the_next_answer(db, monkeypatch)
    lease = driver.claim(holder())
    assert lease is not None
    if moment == "finish":
        _lose_the_next_answer(db, monkeypatch)
    leases.finish(db, lease, outcome=Outcome.COMPLETE, reason="", seconds=1.0, value=0.5, result=toy_result(0.5))
    trials = load_snapshot(db, "toy").trials
    assert [(trial.outcome, trial.value, len(trial.attempts)) for trial in trials] == [(Outcome.COMPLETE, 0.5, 1)]


def _lose_the_next_answer(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next transaction takes effect, and then the connection breaks before it is said."""
    retried = db._retried
    lost: list[int] = []

    def _retried(attempt: Callable[[], object]) -> object:
        def _attempt() -> object:
            result = attempt()
            if not lost:
                lost.append(1)
                raise OperationalError("COMMIT", {}, pymysql.err.OperationalError(2013, "Lost connection"))
            return result

        return retried(_attempt)

    monkeypatch.setattr(db, "_retried", _retried)


def test_conflicts_that_the_server_tells_of_are_tried_again(maria: Database) -> None:
    for code in (1213, 1205, 1020):
        tries: list[int] = []

        def _conflict(tx: Connection, code: int = code, tries: list[int] = tries) -> int:
            tries.append(code)
            if len(tries) < 4:
                tx.execute(text(f"SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {code}, MESSAGE_TEXT = 'try again'"))
            return len(tries)

        assert maria.write(_conflict) == 4


def test_a_conflict_that_stays_is_told_after_eight_tries(maria: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuner.store.retries.time.sleep", lambda _: None)
    tries = []

    def _conflict(tx: Connection) -> None:
        tries.append(1)
        tx.execute(text("SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1213, MESSAGE_TEXT = 'Deadlock found'"))

    with pytest.raises(UnavailableError, match=r"database mysql://tuner:\*\*\*@127.0.0.1:\d+/\w+: Deadlock found$"):
        maria.write(_conflict)
    assert len(tries) == 8


def test_a_lock_is_waited_for_and_tried_again(served: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "LOCK_SECONDS", 1)
    toy_study(served)
    study_id = studies.find_study(served, "toy").study_id
    holds, let_go = threading.Event(), threading.Event()

    def _hold(tx: Connection) -> None:
        studies.lock_study(tx, study_id)
        holds.set()
        let_go.wait(10)

    holder_thread = threading.Thread(target=lambda: served.write(_hold))
    holder_thread.start()
    holds.wait(10)
    threading.Timer(2.5, let_go.set).start()
    begin = time.monotonic()
    with Database.open(served.url.render_as_string(hide_password=False)) as other:
        assert other.write(lambda tx: studies.lock_study(tx, study_id)) is not None
    assert 1.0 < time.monotonic() - begin < 10.0
    holder_thread.join()


def test_a_password_that_needs_another_package_says_which(maria: Database) -> None:
    def _connect_to_mysql_8(_: Connection) -> None:
        raise RuntimeError(
            "'cryptography' package is required for sha256_password or caching_sha2_password auth methods"
        )

    with pytest.raises(
        ConfigurationError, match=r"add \?sslmode=verify-full to the URL, or: pip install 'pymysql\[rsa\]'"
    ):
        maria.write(_connect_to_mysql_8)
    with pytest.raises(RuntimeError, match="a bug"):
        maria.write(_fail)


def _fail(_: Connection) -> None:
    raise RuntimeError("a bug")
