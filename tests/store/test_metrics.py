"""What trials have reported, read back."""

from __future__ import annotations

from tests.store.toy import LEASE, holder, toy_study
from tuner.search.budget import why_not_again
from tuner.search.driver import StudyDriver
from tuner.store import trial_control
from tuner.store.database import Database
from tuner.store.metrics import standings
from tuner.store.records import Outcome


def test_a_trial_that_runs_again_stands_where_it_is_and_not_where_it_was(sqlite_url: str) -> None:
    objectives = [{"metric": "f1", "goal": "maximize"}, {"metric": "seconds", "goal": "minimize"}]
    with Database.open(sqlite_url, create=True) as db:
        study = toy_study(db, objective=objectives, training={"epochs": 9})
        driver = StudyDriver(db, name="toy")
        lease = driver.claim(holder())
        assert lease is not None
        for epoch in (1, 2):
            driver.report(lease, epoch=epoch, metrics={"f1": 0.9}, seconds=float(epoch), extend=LEASE)
        assert standings(db, study.study_id, epoch=2)[0]["f1"] == 0.9
        driver.fail(lease, outcome=Outcome.ERRORED, reason="disk", seconds=2.0, log_tail="")
        trial_control.retry_trials(db, "toy", [lease.number], who="anna@box", limit=why_not_again)
        assert standings(db, study.study_id, epoch=1) == {}
        lease = driver.claim(holder())
        assert lease is not None
        driver.report(lease, epoch=1, metrics={"f1": 0.2}, seconds=1.0, extend=LEASE)
        assert standings(db, study.study_id, epoch=1)[0]["f1"] == 0.2
        assert standings(db, study.study_id, epoch=2) == {}
