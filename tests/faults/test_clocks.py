"""All times are the database's: neither a box's clock nor anybody's time zone ends a lease early, or late."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.faults.checker import check
from tests.faults.figures import LONG, RecordProperty, record
from tests.faults.mob import LEASE, Mob, make_study, mob
from tuner.api import load_study
from tuner.store.database import Database
from tuner.store.records import Outcome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600 if LONG else 300)]

TRIALS = 30 if LONG else 4
EPOCHS = 24  # a run of them takes longer than a lease
SWEEP = 35.0
ZONES = ("UTC", "Asia/Tokyo", "America/New_York")


@pytest.mark.parametrize("kind", ["postgres", "mariadb"] if LONG else ["postgres"])
def test_a_clock_that_jumps_ends_no_lease(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest, record_property: RecordProperty
) -> None:
    """Where the database is a server: SQLite's clock is its box's own, and all its workers live there."""
    url = str(request.getfixturevalue(f"{kind}_url"))
    make_study(url, trials=TRIALS, epochs=EPOCHS, pruner="none")
    with mob(tmp_path, url=url) as crowd:
        figures = _serve(crowd, environments=[{"TZ": zone} for zone in ZONES], oddity="jumping_clock")
    record(record_property, row=28, database=url, figures=figures)
    assert (figures["false stale"], figures["missed"], figures["wrong"]) == (0, 0, 0)


def test_a_session_in_another_time_zone_ends_no_lease(
    tmp_path: Path, postgres_url: str, record_property: RecordProperty
) -> None:
    make_study(postgres_url, trials=TRIALS, epochs=EPOCHS, pruner="none")
    with Database.open(postgres_url) as db:  # what sessions get that ask for none
        db.write(lambda tx: tx.execute(text(f"ALTER DATABASE {db.url.database} SET timezone = 'Asia/Kolkata'")))
    with mob(tmp_path, url=postgres_url) as crowd:
        figures = _serve(crowd, environments=[{"PGTZ": zone} for zone in ZONES])
    record(record_property, row=29, database=postgres_url, figures=figures)
    assert (figures["false stale"], figures["missed"], figures["wrong"]) == (0, 0, 0)


def _serve(crowd: Mob, *, environments: Sequence[dict[str, str]], oddity: str = "") -> dict[str, float | str]:
    """Workers with an environment each; one more is killed, whose run the others must take over in time, and no other one."""
    for environment in environments:
        crowd.start(failpoint=oddity, other_box=True, environment=environment)
    victim = crowd.start(failpoint=oddity, other_box=True, environment=environments[-1])
    crowd.wait(
        lambda: any(line["pid"] == victim and line["epoch"] >= 2 for line in crowd.lines("EpochReported")),
        what="the victim trains",
    )
    crowd.kill(victim)
    crowd.wait_until_over()
    findings = check(url=crowd.url, study=crowd.study, ledger=crowd.ledger, trials=TRIALS)
    attempts = [one for trial in load_study(crowd.study, storage=crowd.url).trials for one in trial.attempts]
    waits = crowd.reclaim_seconds()
    return {
        "runs longer than a lease": sum(one.outcome is Outcome.COMPLETE for one in attempts),
        "false stale": sum(one.outcome is Outcome.LOST for one in attempts) - 1,
        "missed": int(len(waits) != 1 or waits[0] > LEASE + SWEEP),
        "reclaimed after s": round(max(waits, default=0.0), 1),
        "wrong": findings.total,
    }
