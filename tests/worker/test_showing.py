"""Which studies a worker keeps in mind."""

from __future__ import annotations

from tests.store.toy import holder, toy_study
from tuner.errors import ConfigurationError
from tuner.search.budget import least_limits, why_no_new_trial
from tuner.search.driver import StudyDriver
from tuner.store import control
from tuner.store.control import Wishes
from tuner.store.database import Database
from tuner.store.studies import delete_study
from tuner.study.plan import Verdict
from tuner.worker.events import Event, Notice
from tuner.worker.showing import Showing

ANNA = "anna@box"


def _nobody(name: str, error: ConfigurationError) -> None:
    raise AssertionError(name) from error


def test_a_run_of_a_paused_study_hears_of_its_new_budget(sqlite_url: str) -> None:
    with Database.open(sqlite_url, create=True) as db:
        toy_study(db, budget={"gpu_hours": 1.0}, search={"pruner": {"name": "none"}})
        driver = StudyDriver(db, name="toy")
        lease = driver.claim(holder())
        assert lease is not None
        drivers, busy = {"toy": driver}, [driver]
        showing = Showing(db, drivers=drivers, show=lambda _: None, is_busy=lambda one: one in busy, refuse=_nobody)
        control.pause(db, "toy", who=ANNA)
        showing.show_studies()
        assert drivers == {"toy": driver}
        wishes = Wishes(gpu_hours=10.0)
        control.change(db, "toy", wishes=wishes, who=ANNA, quota=why_no_new_trial, least=least_limits)
        showing.hurry()
        showing.show_studies()
        verdict, _ = driver.report(lease, epoch=1, metrics={"f1": 0.5}, seconds=4000.0, extend=60.0)
        assert verdict is Verdict.GO_ON
        busy.clear()
        showing.hurry()
        showing.show_studies()
        assert drivers == {}


def test_that_a_study_was_deleted_is_told_once(sqlite_url: str) -> None:
    with Database.open(sqlite_url, create=True) as db:
        toy_study(db)
        drivers, said = {"toy": StudyDriver(db, name="toy")}, list[Event]()
        showing = Showing(db, drivers=drivers, show=said.append, is_busy=lambda _: False, refuse=_nobody)
        delete_study(db, "toy")
        for _ in range(2):
            showing.hurry()
            showing.show_studies()
        assert said == [Notice(level="warning", text="study toy was deleted; what ran of it here is dropped")]
        assert drivers == {}
