"""Every kind of database keeps the same promises; Optuna reads back what we wrote past it."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator

import optuna
import pytest

from tests.store.toy import LEASE, holder, run_out, score, toy_result, toy_space, toy_spec, toy_study, train
from tuner.errors import ConflictError, LeaseLost, NotFoundError
from tuner.search.driver import StudyDriver
from tuner.store import control, ends, leases, studies
from tuner.store.database import Database
from tuner.store.location import parse_url
from tuner.store.queries import load_snapshot, read_progress
from tuner.store.records import Outcome, StudyState

pytestmark = pytest.mark.slow


@pytest.fixture
def db(storage_url: str) -> Iterator[Database]:
    with Database.open(storage_url, create=True) as database:
        yield database


@pytest.fixture
def plain_optuna(storage_url: str) -> Iterator[Callable[[], optuna.Study]]:
    """Gives the study as anybody with plain Optuna sees it, each time anew."""
    storages = []

    def _load() -> optuna.Study:
        storages.append(optuna.storages.RDBStorage(parse_url(storage_url).render_as_string(hide_password=False)))
        return optuna.load_study(study_name="toy", storage=storages[-1])

    yield _load
    for storage in storages:
        storage.remove_session()
        storage.engine.dispose()


@pytest.mark.filterwarnings("ignore:Some regimes for parameter:UserWarning")  # few trials of a rare value
def test_optuna_sees_the_same_study(db: Database, plain_optuna: Callable[[], optuna.Study]) -> None:
    toy_study(db, budget={"trials": 24})
    run_out(StudyDriver(db, name="toy"))

    ours = load_snapshot(db, "toy")
    theirs = plain_optuna()
    assert ours.study.state is StudyState.FINISHED
    assert len(ours.trials) == 24
    states = Counter(trial.state.name.lower() for trial in theirs.trials)
    assert dict(states) == {name: count for name, count in ours.study.counts.items() if count}
    assert ours.study.counts["pruned"] > 0
    for mine, other in zip(ours.trials, theirs.trials, strict=True):
        assert mine.number == other.number
        assert mine.value == other.value
        assert mine.strategy == other.params["strategy"]
        assert {record.epoch: record.metrics["f1"] for record in mine.epochs} == other.intermediate_values
        assert mine.params["batch_size"] == other.params["batch_size"]
        assert other.user_attrs["tuner:learning_rate"] == mine.params["learning_rate"]
        assert other.datetime_complete is not None and other.datetime_start is not None
        assert other.datetime_complete >= other.datetime_start
    best = read_progress(db, "toy")
    assert (best.best_number, best.best_value) == (theirs.best_trial.number, theirs.best_value)
    assert set(optuna.importance.get_param_importances(theirs)) >= {"strategy", "learning_rate_decades"}


def test_recipes_come_first(db: Database) -> None:
    toy_study(db)
    driver = StudyDriver(db, name="toy")
    first, second, third = (driver.claim(holder()) for _ in range(3))
    assert first is not None and second is not None and third is not None
    assert (first.strategy, second.strategy) == ("lora", "full")
    assert first.params == {"learning_rate": 5e-4, "batch_size": 16, "schedule": "linear", "lora.r": 8}
    assert second.params == {"learning_rate": 5e-5, "batch_size": 16, "schedule": "linear"}
    recipes = [trial.is_recipe for trial in load_snapshot(db, "toy").trials]
    assert recipes == [True, True, False]


@pytest.mark.parametrize(
    ("budget", "trials"),
    [({"trials": 4}, 4), ({"epochs": 10}, 3), ({"trials": 50, "epochs": 7}, 2)],
)
def test_running_trials_count_against_the_budget(db: Database, budget: dict[str, int], trials: int) -> None:
    toy_study(db, budget=budget)
    driver = StudyDriver(db, name="toy")
    claimed = [lease for _ in range(10) if (lease := driver.claim(holder())) is not None]
    assert len(claimed) == trials


def test_device_hours_end_the_search_and_keep_a_fifth_for_the_confirmation(db: Database) -> None:
    toy_study(
        db, budget={"gpu_hours": 100 / 3600}, confirm={"finalists": 2, "seeds": 1}, search={"pruner": {"name": "none"}}
    )
    driver = StudyDriver(db, name="toy")
    spent = 0.0
    while (lease := driver.claim(holder())) is not None:
        train(driver, lease, seconds=10.0)  # 30 s a trial
        spent += 30.0
    assert spent == 60.0  # a third trial would need more than what is left of the search's 80 s
    assert driver.advance().state is StudyState.CONFIRMING
    assert "budget of 1.67 device minutes" in driver.study.state_reason


def test_a_report_beyond_the_device_hours_stops_the_trial(db: Database) -> None:
    toy_study(db, budget={"gpu_hours": 1 / 3600}, confirm={"finalists": 0})
    driver = StudyDriver(db, name="toy")
    lease = driver.claim(holder())
    assert lease is not None
    verdict, why = driver.report(lease, epoch=1, metrics={"f1": 0.5}, seconds=2.0, extend=LEASE)
    assert verdict.value == "prune"
    assert why == "budget of 1 device second is used"


def test_a_lost_lease_writes_nothing(db: Database, plain_optuna: Callable[[], optuna.Study]) -> None:
    toy_study(db)
    driver = StudyDriver(db, name="toy")
    zombie = driver.claim(holder("zombie", lease=-1.0))  # expired at once
    assert zombie is not None
    heir = driver.claim(holder("heir"))
    assert heir is not None
    assert (heir.number, heir.attempt, heir.params) == (zombie.number, zombie.attempt + 1, zombie.params)

    with pytest.raises(LeaseLost):
        driver.report(zombie, epoch=1, metrics={"f1": 0.9}, seconds=1.0, extend=LEASE)
    with pytest.raises(LeaseLost):
        driver.finish(zombie, result=toy_result(0.9))
    with pytest.raises(LeaseLost):
        driver.fail(zombie, outcome=Outcome.ERRORED, reason="x", seconds=1.0, log_tail="")
    with pytest.raises(LeaseLost):
        leases.release(db, zombie, reason="x", seconds=1.0)
    assert leases.renew(db, held=[(zombie, 1.0), (heir, 1.0)], lease=LEASE) == [zombie]

    trial = load_snapshot(db, "toy").trial(zombie.number)
    assert trial.outcome is Outcome.RUNNING
    assert trial.epochs == ()
    assert [attempt.outcome for attempt in trial.attempts] == [Outcome.LOST, Outcome.RUNNING]
    assert "zombie" in trial.attempts[0].reason
    assert plain_optuna().trials[0].intermediate_values == {}

    train(driver, heir)
    assert load_snapshot(db, "toy").trial(heir.number).value == score(heir, 3)


def test_a_released_run_waits_and_goes_on(db: Database, plain_optuna: Callable[[], optuna.Study]) -> None:
    toy_study(db)
    driver = StudyDriver(db, name="toy")
    lease = driver.claim(holder("first"))
    assert lease is not None
    driver.report(lease, epoch=1, metrics={"f1": 0.4}, seconds=5.0, extend=LEASE)
    leases.release(db, lease, reason="the worker was told to stop", seconds=6.0)

    waiting = load_snapshot(db, "toy")
    assert waiting.study.counts["waiting"] == 1
    assert waiting.trial(0).reason == "waiting again: the worker was told to stop"
    assert plain_optuna().trials[0].state is optuna.trial.TrialState.WAITING

    again = driver.claim(holder("second"))
    assert again is not None
    assert (again.number, again.attempt, again.params) == (lease.number, 2, lease.params)
    driver.report(again, epoch=1, metrics={"f1": 0.4}, seconds=0.5, extend=LEASE)  # said again after the resume
    driver.report(again, epoch=2, metrics={"f1": 0.5}, seconds=4.0, extend=LEASE)
    driver.finish(again, result=toy_result(0.5, epochs=2, seconds=4.5))

    trial = load_snapshot(db, "toy").trial(0)
    assert [(record.epoch, record.attempt, record.seconds) for record in trial.epochs] == [(1, 2, 5.5), (2, 2, 9.0)]
    assert trial.seconds == 10.5
    assert [attempt.outcome for attempt in trial.attempts] == [Outcome.PREEMPTED, Outcome.COMPLETE]


def test_a_run_that_kills_its_process_is_given_up(db: Database) -> None:
    toy_study(db)
    driver = StudyDriver(db, name="toy")
    outcomes = []
    for _ in range(ends.MOST_LOSSES):
        lease = driver.claim(holder())
        assert lease is not None and lease.number == 0
        outcomes.append(
            leases.lose(db, lease, reason="the runner was killed by SIGKILL", seconds=1.0, log_tail="last words")
        )
    assert outcomes == [Outcome.WAITING, Outcome.WAITING, Outcome.ERRORED]
    trial = load_snapshot(db, "toy").trial(0)
    assert trial.reason == "the runner was killed by SIGKILL; given up after 3 attempts"
    assert trial.attempts[0].log_tail == "last words"
    next_lease = driver.claim(holder())
    assert next_lease is not None and next_lease.number == 1


def test_a_crash_between_claim_and_proposal_loses_nothing(
    db: Database, plain_optuna: Callable[[], optuna.Study]
) -> None:
    study = toy_study(db)
    bare = leases.claim(  # what a worker that dies before it samples leaves behind
        db,
        study_id=study.study_id,
        uid=study.uid,
        holder=holder("dead", lease=-1.0),
        quota=lambda _budget, _used: "",
        limit=lambda _budget, _used, _in_search: "",
        recipes=study.space.recipes,
        epochs=3,
        seed=0,
    )
    assert bare is not None and bare.params is None
    lease = StudyDriver(db, name="toy").claim(holder("alive"))
    assert lease is not None
    assert (lease.number, lease.attempt, lease.strategy) == (0, 2, "lora")
    assert lease.params is not None and lease.params["lora.r"] == 8
    assert len(plain_optuna().trials) == 1


def test_the_same_study_may_be_created_again_but_no_other_of_its_name(db: Database) -> None:
    first = toy_study(db)
    assert toy_study(db).study_id == first.study_id
    with pytest.raises(
        ConflictError,
        match=r"asks something else - budget.trials is 6 there and 7 here; its budget is changed by: tuner study set toy",
    ):
        toy_study(db, budget={"trials": 7})
    with pytest.raises(ConflictError, match="objective"):
        studies.create_study(db, spec=toy_spec(), space=toy_space(), maximize=False)
    with pytest.raises(ConflictError, match="space"):
        toy_study(db, space=toy_space(finite=True))


def test_a_study_of_plain_optuna_is_not_taken_over(db: Database) -> None:
    optuna.create_study(study_name="theirs", storage=db.optuna_storage())
    with pytest.raises(ConflictError, match="was not made by tuner"):
        toy_study(db, "theirs")


def test_a_deleted_study_is_gone_for_both(db: Database) -> None:
    toy_study(db)
    toy_study(db, "other")
    driver = StudyDriver(db, name="toy")
    lease = driver.claim(holder())
    assert lease is not None
    driver.report(lease, epoch=1, metrics={"f1": 0.1}, seconds=1.0, extend=LEASE)
    studies.delete_study(db, "toy")
    with pytest.raises(NotFoundError, match='no study "toy"'):
        studies.find_study(db, "toy")
    assert [study.study_name for study in db.optuna_storage().get_all_studies()] == ["other"]
    with pytest.raises(LeaseLost):
        driver.report(lease, epoch=2, metrics={"f1": 0.1}, seconds=2.0, extend=LEASE)
    assert driver.claim(holder()) is None


def test_a_study_made_anew_is_not_touched_by_the_old_ones_worker(db: Database) -> None:
    old = toy_study(db)
    driver = StudyDriver(db, name="toy")
    zombie = driver.claim(holder("w1"))
    assert zombie is not None
    studies.delete_study(db, "toy")
    new = toy_study(db)
    heir = StudyDriver(db, name="toy").claim(holder("w1"))  # on SQLite with the same ids as the zombie's
    assert heir is not None
    assert new.uid != old.uid
    with pytest.raises(LeaseLost):
        driver.report(zombie, epoch=1, metrics={"f1": 0.9}, seconds=1.0, extend=LEASE)
    with pytest.raises(LeaseLost):
        driver.fail(zombie, outcome=Outcome.ERRORED, reason="x", seconds=1.0, log_tail="")
    assert leases.renew(db, held=[(zombie, 1.0), (heir, 1.0)], lease=LEASE) == [zombie]
    assert driver.claim(holder()) is None
    with pytest.raises(NotFoundError, match="deleted and made anew"):
        driver.advance()
    trial = load_snapshot(db, "toy").trial(0)
    assert (trial.outcome, trial.epochs) == (Outcome.RUNNING, ())


def test_a_study_deleted_with_optuna_is_forgotten(db: Database) -> None:
    toy_study(db)
    optuna.delete_study(study_name="toy", storage=db.optuna_storage())
    assert studies.open_studies(db) == []
    with pytest.raises(NotFoundError, match="deleted with Optuna's own tools"):
        StudyDriver(db, name="toy")
    again = toy_study(db, "other")
    assert studies.open_studies(db) == ["other"]
    assert [study.name for study in studies.list_studies(db)] == ["other"]
    assert again.counts["running"] == 0


def test_losses_count_only_while_nothing_moves(db: Database) -> None:
    toy_study(db, training={"epochs": 9})
    driver = StudyDriver(db, name="toy")
    for epoch in range(1, 6):  # preempted five times, an epoch further each time
        lease = driver.claim(holder())
        assert lease is not None and lease.number == 0
        driver.report(lease, epoch=epoch, metrics={"f1": 0.1 * epoch}, seconds=1.0, extend=LEASE)
        assert leases.lose(db, lease, reason="preempted", seconds=1.0) is Outcome.WAITING


def test_a_study_whose_runners_all_die_is_paused_and_can_be_resumed(db: Database) -> None:
    toy_study(db, budget={"trials": 20})
    driver = StudyDriver(db, name="toy")
    attempts = 0
    while (lease := driver.claim(holder())) is not None:
        attempts += 1
        leases.lose(db, lease, reason="the runner was killed by SIGKILL", seconds=1.0)
    study = driver.advance()
    assert attempts == 5 * ends.MOST_LOSSES
    assert study.state is StudyState.PAUSED
    assert "5 trials ended with an error before any had a result" in study.state_reason
    assert control.resume(db, "toy", who="anna@box").state is StudyState.SEARCHING
    assert driver.claim(holder()) is not None


def test_a_finished_study_is_not_resumed(db: Database) -> None:
    toy_study(db, budget={"trials": 2})
    run_out(StudyDriver(db, name="toy"))
    with pytest.raises(ConflictError, match='study "toy" is finished - budget of 2 trials is used'):
        control.resume(db, "toy", who="anna@box")


def test_the_last_epoch_counts_whatever_the_budget_says(db: Database) -> None:
    toy_study(db, budget={"gpu_hours": 1 / 3600}, confirm={"finalists": 0})
    driver = StudyDriver(db, name="toy")
    lease = driver.claim(holder())
    assert lease is not None
    verdict, _ = driver.report(lease, epoch=3, metrics={"f1": 0.5}, seconds=50.0, extend=LEASE)
    assert verdict.value == "go_on"


def test_a_run_that_waits_for_a_used_up_budget_is_ended(db: Database) -> None:
    toy_study(db, budget={"gpu_hours": 10 / 3600}, confirm={"finalists": 0})
    driver = StudyDriver(db, name="toy")
    lease = driver.claim(holder())
    assert lease is not None
    leases.release(db, lease, reason="the worker was told to stop", seconds=11.0)
    assert driver.claim(holder()) is None
    assert driver.advance().state is StudyState.FINISHED
    trial = load_snapshot(db, "toy").trial(0)
    assert (trial.outcome, trial.reason) == (Outcome.PRUNED, "budget of 10 device seconds is used")


def test_a_cut_confirmation_has_compared_every_finalist_with_one_seed(db: Database) -> None:
    toy_study(db, budget={"trials": 8}, confirm={"finalists": 3, "seeds": 2}, search={"pruner": {"name": "none"}})
    confirmed = [lease for lease in run_out(StudyDriver(db, name="toy")) if lease.purpose == "confirm"]
    half = len(confirmed) // 2
    assert len({lease.seed for lease in confirmed[:half]}) == 1
    assert {lease.number for lease in confirmed[:half]} == {lease.number for lease in confirmed}


def test_a_confirmation_that_the_budget_cuts_says_so(db: Database) -> None:
    toy_study(db, budget={"trials": 2, "gpu_hours": 10 / 3600}, confirm={"finalists": 1, "seeds": 3})
    driver = StudyDriver(db, name="toy")
    for seconds in (3.0, 3.0, 9.0):  # two trials, one re-training, and the hours are used
        lease = driver.claim(holder())
        while lease is None:
            driver.advance()
            lease = driver.claim(holder())
        driver.finish(lease, result=toy_result(score(lease, 3), seconds=seconds))
    assert driver.claim(holder()) is None
    study = driver.advance()
    assert study.state is StudyState.FINISHED
    planned = sum(len(finalist.runs) for finalist in load_snapshot(db, "toy").finalists)
    assert study.state_reason == f"the confirmation is incomplete: 1 of {planned} re-trainings gave a score"


def test_many_workers_never_overshoot_and_never_share_a_trial(db: Database) -> None:
    toy_study(db, budget={"trials": 20}, search={"sampler": {"name": "random"}, "pruner": {"name": "none"}})
    claimed: list[int] = []
    failures: list[BaseException] = []

    def _work(worker: str) -> None:
        try:
            driver = StudyDriver(db, name="toy")
            while (lease := driver.claim(holder(worker))) is not None:
                claimed.append(lease.number)
                train(driver, lease)
        except BaseException as error:  # noqa: BLE001 - told by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=_work, args=(f"w{index}",)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(claimed) == list(range(20))
    assert load_snapshot(db, "toy").study.counts["complete"] == 20


def test_finalists_are_trained_again_with_fresh_seeds(db: Database, plain_optuna: Callable[[], optuna.Study]) -> None:
    toy_study(db, budget={"trials": 10}, confirm={"finalists": 2, "seeds": 2})
    done = run_out(StudyDriver(db, name="toy"))
    confirmed = [lease for lease in done if lease.purpose == "confirm"]
    snapshot = load_snapshot(db, "toy")
    assert snapshot.study.state is StudyState.FINISHED

    complete = sorted(
        (trial for trial in snapshot.trials if trial.outcome is Outcome.COMPLETE),
        key=lambda trial: -(trial.value or 0.0),
    )
    numbers = [trial.number for trial in complete[:2]]
    expected = numbers if 1 in numbers else [*numbers, 1]  # trial 1 is the recipe of `full`
    assert [finalist.number for finalist in snapshot.finalists] == expected
    assert [finalist.is_baseline for finalist in snapshot.finalists] == [number == 1 for number in expected]
    seeds = {run.seed for finalist in snapshot.finalists for run in finalist.runs}
    assert len(seeds) == 2 and 0 not in seeds
    assert len(confirmed) == 2 * len(expected)
    assert snapshot.study.used.trials == 10
    assert len(plain_optuna().trials) == 10  # confirmation runs are no trials of the search
