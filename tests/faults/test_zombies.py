"""Workers that stop and wake up, claims of the dead, and a study whose workers have all died."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import time
from pathlib import Path

import optuna
import psutil
import psycopg
import pytest
from sqlalchemy.engine import make_url

from tests.faults.checker import check
from tests.faults.figures import LONG, RecordProperty, record
from tests.faults.mob import LEASE, Mob, family, make_study, mob
from tests.store.toy import holder, sql, toy_study, train
from tuner.api import load_study
from tuner.search.driver import StudyDriver
from tuner.search.judgement import Proposal
from tuner.store.database import Database
from tuner.store.leases import Lease
from tuner.store.records import Outcome

pytestmark = pytest.mark.slow

STOPS, CROWD = (50, 3) if LONG else (2, 2)
ZOMBIES = 20


@pytest.fixture(params=["sqlite", "postgres"] if LONG else ["sqlite"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.mark.timeout(3600 if LONG else 300)
def test_a_worker_that_was_stopped_for_longer_than_its_lease_lives_on(
    tmp_path: Path, url: str, record_property: RecordProperty
) -> None:
    """Its runs have other owners when it wakes up; it drops them and takes the next."""
    trials = 6 * STOPS + 6
    make_study(url, trials=trials, epochs=10, pruner="none")
    stopped: list[int] = []
    living = 0
    with mob(tmp_path, url=url) as crowd:
        pids = [crowd.start(other_box=True) for _ in range(2 * CROWD)]
        while len(stopped) < STOPS:
            sleepers = pids[:CROWD] if len(stopped) // CROWD % 2 else pids[CROWD:]
            _wait_for(crowd, sleepers, event="EpochReported", what="those who will be stopped train")
            _stop_between_writes(url, sleepers)
            _wait_until_taken(crowd, sleepers)
            _signal(sleepers, signal.SIGCONT)
            stopped += sleepers
            _wait_for(crowd, sleepers, event="RunClaimed", what="those who woke up take other runs")
            living += len(set(sleepers) & set(crowd.alive()))
        crowd.wait_until_over()
        findings = check(url=url, study="toy", ledger=crowd.ledger, trials=trials)
        exits = [line["status"] for line in crowd.lines("Exited")]
    attempts = [one for trial in load_study("toy", storage=url).trials for one in trial.attempts]
    taken = sum(one.outcome is Outcome.LOST for one in attempts)
    figures = {"stops": len(stopped), "runs taken over": taken, "stale writes": findings.stale, "lived on": living}
    record(record_property, row=6, database=url, figures=figures)
    assert findings.wrong == {}
    assert living == len(stopped) >= STOPS
    assert taken >= min(STOPS - 1, 0.9 * STOPS)  # a worker may be stopped between two runs, and hold none
    assert exits == [0] * len(pids)


def _wait_for(crowd: Mob, pids: list[int], *, event: str, what: str) -> None:
    """Until each of the workers was acknowledged one more event of a kind."""
    begin = time.time()
    crowd.wait(lambda: set(pids) <= {line["pid"] for line in crowd.lines(event) if line["at"] > begin}, what=what)


def _wait_until_taken(crowd: Mob, pids: list[int]) -> None:
    """Until others have begun what these workers hold; longer than a lease in any case."""
    begin = time.time()
    over = {(line["pid"], line["number"]) for line in crowd.lines("RunEnded")}
    held = {line["number"] for line in crowd.lines("RunClaimed") if line["pid"] in pids} - {
        number for pid, number in over if pid in pids
    }
    crowd.wait(
        lambda: held <= {line["number"] for line in crowd.lines("RunClaimed") if line["at"] > begin},
        what="others take their runs over",
    )
    time.sleep(max(0.0, begin + LEASE + 0.5 - time.time()))


def _stop_between_writes(url: str, pids: list[int]) -> None:
    """SIGSTOP to workers and their runners; not in the middle of a transaction, whose locks would stop everybody else, too."""
    while True:
        _signal(pids, signal.SIGSTOP)
        time.sleep(0.1)
        if not _is_locked(url):
            return
        _signal(pids, signal.SIGCONT)
        time.sleep(0.05)


def _signal(pids: list[int], sent: signal.Signals) -> None:
    for pid in pids:
        for process in family(pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(sent)


def _is_locked(url: str) -> bool:
    """Whether somebody holds a lock and does nothing."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        with contextlib.closing(sqlite3.connect(str(parsed.database), timeout=0.5)) as file:
            try:
                file.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            file.rollback()
            return False
    with psycopg.connect(parsed.set(drivername="postgresql").render_as_string(hide_password=False)) as connection:
        query = (
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() "
            "AND state LIKE 'idle in transaction%' AND state_change < clock_timestamp() - interval '80 ms'"
        )
        return bool(connection.execute(query).fetchone() != (0,))


def test_no_claim_of_the_dead_is_running_when_the_sampler_is_asked(
    url: str, record_property: RecordProperty, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would repel it from where they are (TPE's constant liar); half of them died before their values were stored."""
    seen: list[int] = []
    propose = StudyDriver._propose

    with Database.open(url, create=True) as db:
        toy_study(db, budget={"trials": 2 * ZOMBIES}, search={"sampler": "tpe", "pruner": "none"})
        driver = StudyDriver(db, name="toy")
        for _ in range(ZOMBIES // 2):
            assert driver.claim(holder("dead")) is not None
        monkeypatch.setattr(StudyDriver, "_propose", _die)
        for _ in range(ZOMBIES // 2):
            with pytest.raises(KeyboardInterrupt):
                StudyDriver(db, name="toy").claim(holder("dead"))

        def _look(asked: StudyDriver, lease: Lease) -> Proposal:
            trials = optuna.load_study(study_name="toy", storage=db.optuna_storage()).get_trials(deepcopy=False)
            seen.append(sum(trial.state.name == "RUNNING" and trial.number != lease.number for trial in trials))
            return propose(asked, lease)

        monkeypatch.setattr(StudyDriver, "_propose", _look)
        db.write(sql("UPDATE tuner_runs SET expires_at = 0"))
        while (lease := driver.claim(holder("living"))) is not None:
            train(driver, lease)
        trials = load_study("toy", storage=url).trials
    figures = {"zombies": ZOMBIES, "asks": len(seen), "zombies seen": sum(seen)}
    record(record_property, row=33, database=url, figures=figures)
    assert (len(trials), sum(seen)) == (2 * ZOMBIES, 0)
    assert len(seen) >= ZOMBIES
    assert all(trial.outcome is Outcome.COMPLETE for trial in trials)


def _die(*_: object) -> None:
    raise KeyboardInterrupt  # as abrupt as it gets in one process


def test_the_first_to_come_after_all_have_died_repairs_everything(
    tmp_path: Path, url: str, record_property: RecordProperty
) -> None:
    workers, trials = 6, 30 if LONG else 9
    make_study(url, trials=trials, epochs=6)
    with mob(tmp_path, url=url) as crowd:
        pids = [crowd.start(other_box=True) for _ in range(workers)]
        crowd.wait(
            lambda: {line["pid"] for line in crowd.lines("EpochReported")} == set(pids), what="all of them train"
        )
        for pid in pids:
            crowd.kill(pid)
        crowd.wait(lambda: not crowd.alive(), what="all have died")
        time.sleep(LEASE)
        crowd.start()
        crowd.wait_until_over()
        findings = check(url=url, study="toy", ledger=crowd.ledger, trials=trials)
    finished = sum(trial.outcome.is_finished for trial in load_study("toy", storage=url).trials)
    figures = {"killed": workers, "trials": trials, "finished by one": finished, "wrong": findings.total}
    record(record_property, row=34, database=url, figures=figures)
    assert findings.wrong == {}
    assert finished == trials
