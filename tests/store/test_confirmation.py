"""The finalists of a confirmation, where the search went on after an earlier one."""

from __future__ import annotations

from tests.store.toy import holder, run_out, toy_study, train
from tuner.search.budget import least_limits, why_no_new_trial
from tuner.search.confirm import fresh_seeds
from tuner.search.driver import StudyDriver
from tuner.store import confirmation, control
from tuner.store.confirmation import Finalist
from tuner.store.control import Wishes
from tuner.store.database import Database
from tuner.store.queries import load_snapshot


def test_earlier_finalists_come_behind_and_none_of_them_is_the_default_recipe_any_more(sqlite_url: str) -> None:
    with Database.open(sqlite_url, create=True) as db:
        toy_study(db, budget={"trials": 3}, confirm={"finalists": 1, "seeds": 1}, search={"pruner": "none"})
        driver = StudyDriver(db, name="toy")
        run_out(driver)
        earlier = load_snapshot(db, "toy").finalists
        assert [one.is_baseline for one in earlier].count(True) == 1
        wishes = Wishes(trials=4)
        study = control.change(db, "toy", wishes=wishes, who="anna@box", quota=why_no_new_trial, least=least_limits)
        lease = driver.claim(holder())
        assert lease is not None
        train(driver, lease)
        chosen = Finalist(number=lease.number, rank=1, is_baseline=True)
        assert confirmation.start_confirmation(
            db,
            study_id=study.study_id,
            finalists=[chosen],
            seeds=fresh_seeds(study),
            epochs=3,
            quota=lambda _budget, _used: "used",
        )
        finalists = load_snapshot(db, "toy").finalists
        assert [(one.number, one.rank) for one in finalists] == [
            (chosen.number, 1),
            *((one.number, rank) for rank, one in enumerate(earlier, start=2)),
        ]
        assert [one.number for one in finalists if one.is_baseline] == [chosen.number]
