"""A process that was paused while it judged its run, and comes back when the run is another's: it changes nothing of that one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.store.toy import holder, sql, toy_study
from tuner.errors import LeaseLost
from tuner.search.aims import Aims
from tuner.search.driver import StudyDriver
from tuner.search.judgement import Judgement
from tuner.store.database import Database
from tuner.store.leases import Lease

RUNG = "completed_rung_0"


@pytest.fixture
def db(sqlite_url: str) -> Iterator[Database]:
    with Database.open(sqlite_url, create=True) as database:
        yield database


@pytest.fixture
def lease(db: Database) -> Lease:
    """Of a run's second attempt."""
    toy_study(db)
    lost, found = (
        StudyDriver(db, name="toy").claim(holder(name, lease=life)) for name, life in (("w1", -1), ("w2", 60))
    )
    assert lost is not None
    assert found is not None
    assert (found.number, found.attempt) == (lost.number, 2)
    return found


def taken_over(db: Database, lease: Lease) -> None:
    """The lease runs out, and the next attempt scores on the first rung."""
    db.write(sql("UPDATE tuner_runs SET expires_at = 0"))
    heir = StudyDriver(db, name="toy").claim(holder("heir"))
    assert heir is not None
    assert heir.trial_id == lease.trial_id
    row = f"({lease.trial_id}, '{RUNG}', '0.9')"
    db.write(sql(f'INSERT INTO trial_system_attributes (trial_id, "key", value_json) VALUES {row}'))


def rungs(db: Database) -> list[str]:
    query = 'SELECT "key" FROM trial_system_attributes WHERE "key" LIKE \'%completed_rung%\''
    return db.read(lambda tx: list(tx.exec_driver_sql(query).scalars()))


@pytest.mark.parametrize("paused_in", ["its bounds", "its rungs"])
def test_the_rungs_of_the_next_attempt_stay(
    db: Database, lease: Lease, monkeypatch: pytest.MonkeyPatch, paused_in: str
) -> None:
    def _pause(answer: object) -> Callable[..., object]:
        def _after(*_: object, **__: object) -> object:
            taken_over(db, lease)
            return answer

        return _after

    if paused_in == "its bounds":
        monkeypatch.setattr(Aims, "why_out_of_bounds", _pause("too slow"))
    else:
        monkeypatch.setattr(Judgement, "rungs_after", _pause([RUNG]))
    with pytest.raises(LeaseLost):
        StudyDriver(db, name="toy").report(lease, epoch=1, metrics={"f1": 0.5}, seconds=1.0, extend=60.0)
    assert rungs(db) == [RUNG]
