"""What people ask of studies, trials and workers while they run; every change is an event with who and when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select, update

from tests.store.toy import LEASE, holder, run_out, sql, toy_result, toy_study, train
from tuner.errors import ConflictError, LeaseLost, NotFoundError, UsageError
from tuner.search.budget import least_limits, why_no_new_trial, why_not_again
from tuner.search.driver import StudyDriver
from tuner.source import this_code
from tuner.store import confirmation, control, leases, studies, trial_control, workers
from tuner.store.checks import find_problems
from tuner.store.control import Wishes
from tuner.store.database import Database
from tuner.store.leases import Beats, Holder
from tuner.store.queries import load_snapshot
from tuner.store.records import Asked, Outcome, StudyRecord, StudyState
from tuner.store.tables import events
from tuner.store.tables import studies as studies_table
from tuner.store.workers import Identity, Pulse
from tuner.study.plan import Verdict

ANNA = "anna@box"
FREE: dict[str, Any] = {"search": {"pruner": {"name": "none"}}}


@pytest.fixture
def db(sqlite_url: str) -> Iterator[Database]:
    with Database.open(sqlite_url, create=True) as database:
        yield database


@pytest.fixture
def any_db(storage_url: str) -> Iterator[Database]:
    """A database of every kind: for what depends on locks."""
    with Database.open(storage_url, create=True) as database:
        yield database


def change(db: Database, name: str = "toy", **wishes: Any) -> StudyRecord:
    return control.change(db, name, wishes=Wishes(**wishes), who=ANNA, quota=why_no_new_trial, least=least_limits)


def enqueue(db: Database, name: str = "toy", *, strategy: str | None = "lora", **values: Any) -> int:
    return control.enqueue(db, name, strategy=strategy, values=values, who=ANNA, quota=why_no_new_trial)


def retry(db: Database, numbers: list[int]) -> StudyState:
    return trial_control.retry_trials(db, "toy", numbers, who=ANNA, limit=why_not_again)


def told(db: Database) -> list[tuple[str, str | None]]:
    """Kinds of the events that people caused, and who."""
    query = (
        select(events.c.kind, events.c.who, events.c.at).where(events.c.who.is_not(None)).order_by(events.c.event_id)
    )
    rows = db.read(lambda tx: tx.execute(query).all())
    assert all(row.at > 1.7e9 for row in rows)
    return [(row.kind, row.who) for row in rows]


def register(db: Database, name: str = "w1", *, host: str = "box", lease: float = LEASE) -> None:
    identity = Identity(worker=name, host=host, boot=f"another-{name}", pid=1, process_started=0.0)
    workers.register(db, identity, devices=["cpu/0"], version="1", lease=lease, code="1/abc")


def fail(driver: StudyDriver, *, outcome: Outcome = Outcome.ERRORED) -> int:
    lease = driver.claim(holder())
    assert lease is not None
    driver.fail(lease, outcome=outcome, reason="boom", seconds=1.0, log_tail="")
    return lease.number


def test_a_paused_study_is_not_claimed_until_it_is_resumed(any_db: Database) -> None:
    toy_study(any_db)
    driver = StudyDriver(any_db, name="toy")
    lease = driver.claim(holder())
    assert lease is not None
    paused = control.pause(any_db, "toy", who=ANNA, reason="the cluster is needed")
    assert (paused.state, paused.state_reason) == (
        StudyState.PAUSED,
        "by anna@box: the cluster is needed",
    )
    assert driver.claim(holder()) is None
    assert studies.open_studies(any_db) == []
    train(driver, lease)  # what runs goes on to its end
    assert control.resume(any_db, "toy", who=ANNA).state is StudyState.SEARCHING
    assert driver.claim(holder()) is not None
    assert told(any_db) == [("study_paused", ANNA), ("study_searching", ANNA)]


def test_a_pause_may_take_running_trials_back(db: Database) -> None:
    toy_study(db)
    register(db)
    driver = StudyDriver(db, name="toy")
    lease = driver.claim(holder())
    assert lease is not None
    control.pause(db, "toy", who=ANNA)
    control.pause(db, "toy", who=ANNA, now=True)  # also of a study that is paused already
    (request,) = workers.beat(db, "w1", number=1, state="running", lease=LEASE).requests
    assert (request.token, request.asked) == (lease.token, Asked.RELEASE)
    assert request.why == "its study was paused by anna@box"
    leases.release(db, lease, reason=request.why, seconds=1.0)
    assert workers.beat(db, "w1", number=2, state="running", lease=LEASE) == Pulse(is_known=True)
    control.resume(db, "toy", who=ANNA)
    again = driver.claim(holder())
    assert again is not None
    assert (again.number, again.attempt) == (lease.number, 2)
    assert workers.beat(db, "w1", number=3, state="running", lease=LEASE).requests == ()


def test_a_resume_withdraws_what_no_worker_has_seen(db: Database) -> None:
    toy_study(db)
    register(db)
    driver = StudyDriver(db, name="toy")
    assert driver.claim(holder()) is not None
    control.pause(db, "toy", who=ANNA, now=True)
    control.resume(db, "toy", who=ANNA)
    assert workers.beat(db, "w1", number=1, state="running", lease=LEASE).requests == ()


def test_a_stopped_study_confirms_nothing_and_can_be_resumed(db: Database) -> None:
    toy_study(db, budget={"trials": 2}, confirm={"finalists": 1, "seeds": 1}, **FREE)
    driver = StudyDriver(db, name="toy")
    for _ in range(2):
        lease = driver.claim(holder())
        assert lease is not None
        train(driver, lease)
    stopped = control.stop(db, "toy", who=ANNA)
    assert (stopped.state, stopped.state_reason) == (StudyState.STOPPED, "by anna@box")
    assert driver.claim(holder()) is None
    assert driver.advance().state is StudyState.STOPPED
    with pytest.raises(ConflictError, match='study "toy" is stopped - by anna@box; tuner study resume toy'):
        control.pause(db, "toy", who=ANNA)
    control.resume(db, "toy", who=ANNA)
    run_out(driver)
    assert studies.find_study(db, "toy").state is StudyState.FINISHED
    with pytest.raises(ConflictError, match='study "toy" is finished - finalists are confirmed'):
        control.stop(db, "toy", who=ANNA)


def test_a_confirmation_is_paused_and_resumed_as_one(db: Database) -> None:
    toy_study(db, budget={"trials": 2}, confirm={"finalists": 1, "seeds": 2}, **FREE)
    driver = StudyDriver(db, name="toy")
    while (lease := driver.claim(holder())) is not None:
        train(driver, lease)
    assert driver.advance().state is StudyState.CONFIRMING
    control.pause(db, "toy", who=ANNA)
    assert driver.claim(holder()) is None
    assert control.resume(db, "toy", who=ANNA).state is StudyState.CONFIRMING


def test_an_unknown_study_is_guessed(db: Database) -> None:
    toy_study(db)
    with pytest.raises(NotFoundError, match='no study "tyo"; did you mean "toy"'):
        control.pause(db, "tyo", who=ANNA)


# Trials of one's own


def test_enqueued_trials_run_first_with_their_values(any_db: Database) -> None:
    toy_study(any_db, budget={"trials": 4})
    values: dict[str, Any] = {"learning_rate": 1e-3, "lora.r": 4}
    first = enqueue(any_db, **values)
    second = enqueue(any_db, strategy="full", batch_size=8)
    assert (first, second) == (0, 1)
    waiting = load_snapshot(any_db, "toy").trial(0)
    assert waiting.outcome is Outcome.WAITING
    assert waiting.reason == "enqueued by anna@box: lora learning_rate=0.001 lora.r=4"
    driver = StudyDriver(any_db, name="toy")
    claimed = [lease for _ in range(6) if (lease := driver.claim(holder())) is not None]
    assert [lease.number for lease in claimed] == [0, 1, 2, 3]
    assert claimed[0].strategy == "lora"
    assert claimed[0].params == pytest.approx(
        {"learning_rate": 1e-3, "lora.r": 4, "schedule": "linear", "batch_size": claimed[0].params["batch_size"]}
        if claimed[0].params
        else {}
    )
    assert claimed[1].strategy == "full"
    assert (claimed[1].params or {})["batch_size"] == 8
    assert [lease.is_recipe for lease in claimed] == [False, False, True, True]  # the recipes are not lost
    assert [lease.strategy for lease in claimed[2:]] == ["lora", "full"]
    assert told(any_db) == [("trial_enqueued", ANNA)] * 2


def test_an_enqueued_trial_is_one_of_the_budget(db: Database) -> None:
    toy_study(db, budget={"trials": 1})
    assert enqueue(db, learning_rate=5e-4) == 0
    with pytest.raises(ConflictError) as caught:
        enqueue(db, learning_rate=5e-4)
    assert str(caught.value) == (
        'study "toy" has no room for another trial - budget of 1 trial is used; tuner study set toy --trials 2'
    )
    run_out(StudyDriver(db, name="toy"))
    assert studies.find_study(db, "toy").used.trials == 1
    with pytest.raises(ConflictError, match="budget of 1 trial is used"):
        enqueue(db, learning_rate=5e-4)


def test_values_outside_the_space_are_refused(db: Database) -> None:
    toy_study(db)
    with pytest.raises(
        UsageError, match=r"learning_rate=1.0 is outside \[1.58e-05, 0.0158\]; unknown parameter \"wd\""
    ):
        enqueue(db, learning_rate=1.0, wd=0.1)
    with pytest.raises(UsageError, match='unknown strategy "loar"; did you mean "lora"'):
        enqueue(db, strategy="loar")
    assert studies.find_study(db, "toy").used.trials == 0


def test_a_stopped_study_takes_no_trial(db: Database) -> None:
    toy_study(db)
    control.stop(db, "toy", who=ANNA)
    with pytest.raises(ConflictError, match='study "toy" is stopped'):
        enqueue(db)


# Budgets and priorities


def test_a_lower_budget_is_seen_at_the_next_claim(any_db: Database) -> None:
    toy_study(any_db, budget={"trials": 6})
    driver = StudyDriver(any_db, name="toy")  # has read the six
    leases_ = [driver.claim(holder()) for _ in range(2)]
    assert None not in leases_
    assert change(any_db, trials=2).spec.budget.trials == 2
    assert driver.claim(holder()) is None
    with pytest.raises(ConflictError, match=r'study "toy" has 2 trials already; --trials 2 starts no new one'):
        change(any_db, trials=1)
    assert told(any_db) == [("study_changed", ANNA)]


def test_a_finished_study_goes_on_with_a_raised_budget(db: Database) -> None:
    toy_study(db, budget={"trials": 3}, confirm={"finalists": 1, "seeds": 2}, **FREE)
    driver = StudyDriver(db, name="toy")
    run_out(driver)
    before = load_snapshot(db, "toy")
    assert before.study.state is StudyState.FINISHED
    changed = change(db, trials=8)
    assert (changed.state, changed.finished_at) == (StudyState.SEARCHING, None)
    assert changed.state_reason == "trials 3 -> 8 by anna@box"
    run_out(driver)
    after = load_snapshot(db, "toy")
    assert after.study.state is StudyState.FINISHED
    assert len(after.trials) == 8
    ranks = [finalist.rank for finalist in after.finalists]
    assert ranks == list(range(1, len(ranks) + 1))
    best = max(after.trials, key=lambda trial: trial.value or 0.0)
    assert after.finalists[0].number == best.number
    assert {finalist.number for finalist in before.finalists} <= {finalist.number for finalist in after.finalists}
    assert all(len(finalist.runs) == 2 for finalist in after.finalists)  # nothing was trained twice
    assert sum(finalist.is_baseline for finalist in after.finalists) == 1


def test_a_budget_that_is_raised_during_the_confirmation_is_used_after_it(db: Database) -> None:
    toy_study(db, budget={"trials": 2}, confirm={"finalists": 1, "seeds": 1}, **FREE)
    driver = StudyDriver(db, name="toy")
    while (lease := driver.claim(holder())) is not None:
        train(driver, lease)
    assert driver.advance().state is StudyState.CONFIRMING
    change(db, trials=4)
    run_out(driver)
    study = studies.find_study(db, "toy")
    assert (study.state, study.used.trials) == (StudyState.FINISHED, 4)


@pytest.mark.parametrize("finalists", [0, 1])
def test_a_budget_that_is_raised_at_the_last_moment_is_not_lost(
    db: Database, finalists: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_study(db, budget={"trials": 2}, confirm={"finalists": finalists, "seeds": 1}, **FREE)
    driver = StudyDriver(db, name="toy")
    name = "finish_confirmation" if finalists else "start_confirmation"
    end = getattr(confirmation, name)

    def end_after_a_person(*given: Any, **named: Any) -> bool:
        """What the driver calls after it has read the study: a person is faster."""
        change(db, trials=4)
        return bool(end(*given, **named))

    monkeypatch.setattr(confirmation, name, end_after_a_person)
    run_out(driver)
    study = studies.find_study(db, "toy")
    assert (study.state, study.used.trials) == (StudyState.FINISHED, 4)


def test_the_same_budget_again_reopens_a_finished_study_that_has_room(db: Database) -> None:
    study = toy_study(db, budget={"trials": 2}, **FREE)
    run_out(StudyDriver(db, name="toy"))
    spec = study.spec.model_copy(update={"budget": study.spec.budget.model_copy(update={"trials": 4})})
    db.write(lambda tx: tx.execute(update(studies_table).values(spec=spec.model_dump_json())))  # finished with room
    assert change(db, priority=3).state is StudyState.FINISHED
    found = change(db, trials=4)
    assert (found.state, found.state_reason) == (StudyState.SEARCHING, f"the budget has room by {ANNA}")


def test_device_hours_keep_the_confirmations_fifth(db: Database) -> None:
    toy_study(db, budget={"gpu_hours": 1.0}, confirm={"finalists": 1, "seeds": 1}, **FREE)
    driver = StudyDriver(db, name="toy")
    lease = driver.claim(holder())
    assert lease is not None
    driver.finish(lease, result=toy_result(0.5, seconds=720.0))
    with pytest.raises(ConflictError) as caught:
        change(db, gpu_hours=0.2)
    assert str(caught.value) == (
        'study "toy" has used 0.20 device hours already, a part kept for the confirmation; '
        "--gpu-hours 0.25 is the least; --trials 1 starts no new one"
    )
    assert change(db, gpu_hours=0.25).spec.budget.gpu_hours == 0.25
    assert driver.advance().state is StudyState.CONFIRMING


def test_money_and_hours_by_the_clock_are_changed_like_the_other_limits(db: Database) -> None:
    toy_study(db, budget={"trials": 5}, **FREE)
    driver = StudyDriver(db, name="toy")
    lease = driver.claim(holder())
    assert lease is not None
    driver.finish(lease, result=toy_result(0.5, seconds=7200.0))
    with pytest.raises(UsageError, match="has no price of a device hour; give --price-per-hour, too"):
        change(db, money=10.0)
    assert change(db, money=10.0, price_per_hour=2.5).spec.budget.device_hours == 4.0
    with pytest.raises(ConflictError, match=r"has cost 5\.00 already; --money 5\.00 is the least; --trials 1 starts"):
        change(db, money=4.99)
    with pytest.raises(ConflictError, match=r"has cost 15\.00 already"):
        change(db, price_per_hour=7.5)
    with pytest.raises(ConflictError, match=r"began 0\.00 hours ago; --hours 0\.01 is the least"):
        change(db, hours=1e-6)
    assert change(db, hours=0.01).spec.budget.hours == 0.01
    assert driver.advance().state is StudyState.FINISHED  # another trial would need two hours
    found = change(db, hours=9.0)
    assert (found.state, found.spec.budget.money) == (StudyState.SEARCHING, 10.0)
    change(db, money=5.0)
    assert driver.advance().state_reason == "budget of 5 (2 device hours at 2.5) is used"


def test_a_retraining_without_room_waits_for_others_and_is_ended_where_there_are_none(db: Database) -> None:
    toy_study(db, budget={"trials": 2, "gpu_hours": 1.0}, confirm={"finalists": 1, "seeds": 2}, **FREE)
    driver = StudyDriver(db, name="toy")
    for _ in range(2):
        lease = driver.claim(holder())
        assert lease is not None
        driver.finish(lease, result=toy_result(0.5, seconds=1400.0))
    assert driver.advance().state is StudyState.CONFIRMING
    change(db, gpu_hours=1.2)
    running = driver.claim(holder())
    assert running is not None
    assert running.purpose == "confirm"
    assert driver.claim(holder("w2")) is None  # 1520 s are left, of which 1400 s are promised
    driver.finish(running, result=toy_result(0.5, seconds=1400.0))
    assert driver.claim(holder()) is None
    assert driver.advance().state is StudyState.FINISHED
    snapshot = load_snapshot(db, "toy")
    refused = [run for finalist in snapshot.finalists for run in finalist.runs if run.outcome is Outcome.PRUNED]
    assert {run.reason for run in refused} == {
        "budget of 1.2 device hours has 2 min left; a re-training needs about 23.3 min"
    }
    assert all(not run.attempts for run in refused)


@pytest.mark.parametrize(
    ("wishes", "text"),
    [
        ({}, "nothing to change; give --trials, --epochs, --gpu-hours, --hours, --money or --priority"),
        ({"trials": 0}, "--trials must be 1 to 100,000, got 0"),
        ({"gpu_hours": float("nan")}, "--gpu-hours must be 0.000001 to 1,000,000,000, got nan"),
        ({"priority": 5000}, "--priority must be -1,000 to 1,000, got 5,000"),
    ],
)
def test_numbers_that_cannot_be_are_refused(db: Database, wishes: dict[str, Any], text: str) -> None:
    toy_study(db)
    with pytest.raises(UsageError) as caught:
        change(db, **wishes)
    assert str(caught.value) == text


def test_the_same_again_changes_nothing(db: Database) -> None:
    toy_study(db, budget={"trials": 6})
    change(db, trials=6, priority=0)
    assert told(db) == []


def claim_in_order(db: Database, drivers: dict[str, StudyDriver], slots: int) -> list[str]:
    """Which study each free slot takes."""
    found = []
    for _ in range(slots):
        for name in studies.open_studies(db):
            if drivers[name].claim(holder()) is not None:
                found.append(name)
                break
    return found


def test_equal_studies_share_the_slots_and_a_higher_priority_takes_them(any_db: Database) -> None:
    for name in ("first", "second"):
        toy_study(any_db, name, budget={"trials": 50})
    drivers = {name: StudyDriver(any_db, name=name) for name in ("first", "second")}
    assert claim_in_order(any_db, drivers, 4) == ["first", "second", "first", "second"]
    change(any_db, "second", priority=5)
    assert claim_in_order(any_db, drivers, 4) == ["second"] * 4
    change(any_db, "first", priority=5)  # equal again: the one with fewer running trials catches up
    assert claim_in_order(any_db, drivers, 4) == ["first"] * 4


def test_a_single_slot_serves_equal_studies_in_turn(db: Database) -> None:
    drivers = {}
    for name in ("first", "second", "third"):
        toy_study(db, name, budget={"trials": 9})
        drivers[name] = StudyDriver(db, name=name)
    served = []
    for _ in range(9):
        name = studies.open_studies(db)[0]
        lease = drivers[name].claim(holder())
        assert lease is not None
        train(drivers[name], lease)
        served.append(name)
    assert Counter(served) == {"first": 3, "second": 3, "third": 3}


# One trial


def test_a_running_trial_is_stopped_by_its_worker(any_db: Database) -> None:
    toy_study(any_db)
    register(any_db)
    driver = StudyDriver(any_db, name="toy")
    lease = driver.claim(holder())
    assert lease is not None
    driver.report(lease, epoch=1, metrics={"f1": 0.4}, seconds=1.0, extend=LEASE)
    assert trial_control.stop_trial(any_db, "toy", 0, who=ANNA, reason="flat") is Outcome.RUNNING
    (request,) = workers.beat(any_db, "w1", number=1, state="running", lease=LEASE).requests
    assert (request.asked, request.why) == (Asked.STOP, "stopped by anna@box: flat")
    driver.cut(lease, reason=request.why, seconds=2.0)
    trial = load_snapshot(any_db, "toy").trial(0)
    assert (trial.outcome, trial.reason, trial.value) == (Outcome.PRUNED, "stopped by anna@box: flat", 0.4)
    with pytest.raises(ConflictError, match=r"trial 0 is pruned already \(0.4\) - nothing changed"):
        trial_control.stop_trial(any_db, "toy", 0, who=ANNA)


def test_a_stopped_trial_of_a_dead_worker_does_not_run_again(db: Database) -> None:
    toy_study(db)
    driver = StudyDriver(db, name="toy")
    assert driver.claim(holder("dead", lease=-1.0)) is not None
    trial_control.stop_trial(db, "toy", 0, who=ANNA)
    heir = driver.claim(holder())
    assert heir is not None
    assert heir.number == 1
    trial = load_snapshot(db, "toy").trial(0)
    assert (trial.outcome, trial.reason) == (Outcome.PRUNED, "stopped by anna@box")


def test_a_waiting_trial_is_stopped_at_once(db: Database) -> None:
    toy_study(db)
    number = enqueue(db)
    assert trial_control.stop_trial(db, "toy", number, who=ANNA) is Outcome.PRUNED
    assert load_snapshot(db, "toy").trial(number).outcome is Outcome.PRUNED
    with pytest.raises(NotFoundError, match='study "toy" has no trial 7 - it has 1: 0 to 0'):
        trial_control.stop_trial(db, "toy", 7, who=ANNA)


@pytest.mark.parametrize("outcome", [Outcome.ERRORED, Outcome.INFEASIBLE, Outcome.DIVERGED])
def test_a_trial_that_ended_badly_runs_again_under_its_number(any_db: Database, outcome: Outcome) -> None:
    toy_study(any_db, budget={"trials": 3})
    driver = StudyDriver(any_db, name="toy")
    number = fail(driver, outcome=outcome)
    values = load_snapshot(any_db, "toy").trial(number).params
    assert retry(any_db, [number]) is StudyState.SEARCHING
    lease = driver.claim(holder())
    assert lease is not None
    assert (lease.number, lease.attempt, lease.params) == (number, 2, values)
    train(driver, lease)
    trial = load_snapshot(any_db, "toy").trial(number)
    assert trial.outcome is Outcome.COMPLETE
    assert [attempt.outcome for attempt in trial.attempts] == [outcome, Outcome.COMPLETE]
    run_out(driver)
    assert studies.find_study(any_db, "toy").used.trials == 3
    assert told(any_db) == [("trial_retried", ANNA)]


def test_a_retry_forgets_the_epochs_of_what_failed(any_db: Database) -> None:
    toy_study(any_db, training={"epochs": 9}, **FREE)
    driver = StudyDriver(any_db, name="toy")
    for seen in (6, 5):
        lease = driver.claim(holder())
        assert lease is not None
        for epoch in range(1, seen + 1):
            driver.report(lease, epoch=epoch, metrics={"f1": 0.1 * epoch}, seconds=float(epoch), extend=LEASE)
        driver.fail(lease, outcome=Outcome.ERRORED, reason="disk", seconds=6.0, log_tail="")
        retry(any_db, [lease.number])
        assert load_snapshot(any_db, "toy").trial(lease.number).epochs == ()
    lease = driver.claim(holder())
    assert lease is not None
    driver.report(lease, epoch=1, metrics={"f1": 0.7}, seconds=1.0, extend=LEASE)
    driver.finish(lease, result=toy_result(0.7, epochs=1, ended_by="prune", seconds=1.0), reason="stopped")
    assert [record.epoch for record in load_snapshot(any_db, "toy").trial(lease.number).epochs] == [1]
    (known,) = StudyDriver(any_db, name="toy")._judgement._study.get_trials()
    assert (known.last_step, known.value) == (1, 0.7)
    assert {step: value for step, value in known.intermediate_values.items() if step > 0} == {1: 0.7}


def test_a_retry_forgets_the_losses(db: Database) -> None:
    toy_study(db)
    driver = StudyDriver(db, name="toy")
    while load_snapshot(db, "toy").study.counts["errored"] == 0:
        lease = driver.claim(holder())
        assert lease is not None
        leases.lose(db, lease, reason="killed", seconds=1.0)
    retry(db, [0])
    lease = driver.claim(holder())
    assert lease is not None and lease.number == 0
    assert leases.lose(db, lease, reason="killed", seconds=1.0) is Outcome.WAITING


def test_a_retry_reopens_a_finished_study(db: Database) -> None:
    toy_study(db, budget={"trials": 3}, confirm={"finalists": 1, "seeds": 1}, **FREE)
    driver = StudyDriver(db, name="toy")
    number = fail(driver)
    run_out(driver)
    assert studies.find_study(db, "toy").state is StudyState.FINISHED
    assert retry(db, [number]) is StudyState.SEARCHING
    run_out(driver)
    snapshot = load_snapshot(db, "toy")
    assert snapshot.study.state is StudyState.FINISHED
    assert snapshot.trial(number).outcome is Outcome.COMPLETE


def test_re_trainings_that_failed_run_again(db: Database) -> None:
    toy_study(db, budget={"trials": 2}, confirm={"finalists": 1, "seeds": 2}, **FREE)
    driver = StudyDriver(db, name="toy")
    while (lease := driver.claim(holder())) is not None:
        train(driver, lease)
    driver.advance()
    lease = driver.claim(holder())
    assert lease is not None and lease.purpose == "confirm"
    driver.fail(lease, outcome=Outcome.ERRORED, reason="boom", seconds=1.0, log_tail="")
    run_out(driver)
    assert "incomplete" in studies.find_study(db, "toy").state_reason
    assert retry(db, [lease.number]) is StudyState.CONFIRMING
    run_out(driver)
    assert studies.find_study(db, "toy").state_reason == "finalists are confirmed"


def cut_confirmation(db: Database, *, hours: float = 36.0 / 3600.0, **budget: Any) -> StudyDriver:
    """A study whose confirmation was cut by its device hours."""
    confirm = {"finalists": 2, "seeds": 3}
    toy_study(db, budget={"gpu_hours": hours} | budget, search={"pruner": {"name": "none"}}, confirm=confirm)
    driver = StudyDriver(db, name="toy")
    run_out(driver)
    assert "incomplete" in studies.find_study(db, "toy").state_reason
    return driver


def unscored(db: Database) -> list[str]:
    """Why re-trainings have no score, those left out that fell out of the race."""
    runs = [run for finalist in load_snapshot(db, "toy").finalists for run in finalist.runs]
    return [run.reason for run in runs if run.outcome is not Outcome.COMPLETE and not run.is_cancelled]


def test_a_confirmation_that_the_budget_cut_is_completed_with_more(db: Database) -> None:
    driver = cut_confirmation(db)
    change(db, trials=studies.find_study(db, "toy").used.trials + 2, gpu_hours=1.0)
    run_out(driver)
    assert unscored(db) == []
    assert studies.find_study(db, "toy").state_reason == "finalists are confirmed"


def test_more_hours_complete_a_cut_confirmation_where_no_trial_is_left_to_search(db: Database) -> None:
    driver = cut_confirmation(db, trials=8)
    trials = studies.find_study(db, "toy").used.trials
    assert change(db, priority=1).state is StudyState.FINISHED
    assert change(db, gpu_hours=1.0).state is StudyState.CONFIRMING
    run_out(driver)
    study = studies.find_study(db, "toy")
    assert (unscored(db), study.used.trials, study.state_reason) == ([], trials, "finalists are confirmed")


def test_a_cut_re_training_runs_again_only_where_it_can_be_finished(db: Database) -> None:
    driver = cut_confirmation(db, trials=8)
    number = next(one.number for one in load_snapshot(db, "toy").finalists if any(run.reason for run in one.runs))
    with pytest.raises(ConflictError, match=rf"no room to run trial {number} again - budget of 36 device seconds"):
        retry(db, [number])
    change(db, trials=9, gpu_hours=1.0)
    assert retry(db, [number]) is StudyState.SEARCHING
    waiting = [run for one in load_snapshot(db, "toy").finalists for run in one.runs if run.outcome is Outcome.WAITING]
    assert waiting and all("anna" in run.reason for run in waiting)
    run_out(driver)
    assert unscored(db) == []


def test_only_what_ended_badly_runs_again(db: Database) -> None:
    toy_study(db, budget={"trials": 2}, **FREE)
    driver = StudyDriver(db, name="toy")
    bad = fail(driver)
    run_out(driver)
    with pytest.raises(ConflictError, match="trial 1 is complete - only what ended badly runs again"):
        retry(db, [bad, 1])
    assert load_snapshot(db, "toy").trial(bad).outcome is Outcome.ERRORED  # all or nothing


def test_a_finished_study_with_errors_says_how_they_run_again(db: Database) -> None:
    toy_study(db, budget={"trials": 2}, confirm={"finalists": 0}, **FREE)
    driver = StudyDriver(db, name="toy")
    bad = fail(driver)
    run_out(driver)
    with pytest.raises(
        ConflictError, match=f"is finished .*; to run again what errored: tuner trial retry toy {bad}; for more"
    ):
        control.resume(db, "toy", who=ANNA)


def test_a_trial_that_the_budget_cut_runs_again_once_there_is_more(db: Database) -> None:
    toy_study(db, budget={"gpu_hours": 5.0 / 3600.0}, confirm={"finalists": 0}, **FREE)
    driver = StudyDriver(db, name="toy")
    lease = driver.claim(holder())
    assert lease is not None
    verdict, why = driver.report(lease, epoch=1, metrics={"f1": 0.5}, seconds=6.0, extend=LEASE)
    assert verdict is Verdict.PRUNE
    driver.cut(lease, reason=why, seconds=6.0)
    with pytest.raises(ConflictError, match="no room to run trial 0 again - budget of "):
        retry(db, [0])
    change(db, gpu_hours=1.0, trials=2)
    assert retry(db, [0]) is StudyState.SEARCHING
    run_out(driver)
    assert [trial.outcome for trial in load_snapshot(db, "toy").trials] == [Outcome.COMPLETE] * 2


# Workers


def test_workers_are_asked_to_drain(any_db: Database) -> None:
    for name, host in (("aa11", "one"), ("ab22", "one"), ("cc33", "two")):
        register(any_db, name, host=host)
    assert [one.worker for one in workers.ask_to_drain(any_db, worker="aa", who=ANNA)] == ["aa11"]
    pulse = workers.beat(any_db, "aa11", number=1, state="running", lease=LEASE)
    assert pulse == Pulse(is_known=True, drain="drain asked by anna@box")
    assert workers.beat(any_db, "ab22", number=1, state="running", lease=LEASE).drain == ""
    assert {one.worker: one.asked for one in workers.list_workers(any_db)} == {"aa11": "drain", "ab22": "", "cc33": ""}
    assert len(workers.ask_to_drain(any_db, host="one", who=ANNA)) == 2
    assert len(workers.ask_to_drain(any_db, everyone=True, who=ANNA)) == 3
    assert told(any_db) == [("drain_asked", ANNA)] * 3  # each was asked once


def test_who_is_asked_must_be_clear(db: Database) -> None:
    for name in ("aa11", "ab22"):
        register(db, name, host="one")
    with pytest.raises(UsageError, match='"a" begins 2 ids; say more of it: aa11'):
        workers.ask_to_drain(db, worker="a", who=ANNA)
    with pytest.raises(UsageError, match="say which workers"):
        workers.ask_to_drain(db, who=ANNA)
    with pytest.raises(UsageError, match="say which workers"):
        workers.ask_to_drain(db, host="one", everyone=True, who=ANNA)
    with pytest.raises(NotFoundError, match='no worker on host "on"'):
        workers.ask_to_drain(db, host="on", who=ANNA)
    with pytest.raises(NotFoundError, match='no worker "zz"'):
        workers.ask_to_drain(db, worker="zz", who=ANNA)


def test_what_people_ask_for_leaves_nothing_to_mend(any_db: Database) -> None:
    toy_study(any_db, budget={"trials": 5}, confirm={"finalists": 1, "seeds": 2}, **FREE)
    driver = StudyDriver(any_db, name="toy")
    enqueue(any_db)
    assert find_problems(any_db) == []
    bad = fail(driver)
    held = driver.claim(holder())
    assert held is not None
    control.pause(any_db, "toy", who=ANNA, now=True)
    trial_control.stop_trial(any_db, "toy", held.number, who=ANNA)
    retry(any_db, [bad])
    assert find_problems(any_db) == []
    leases.release(any_db, held, reason="paused", seconds=1.0)
    assert find_problems(any_db) == []
    control.resume(any_db, "toy", who=ANNA)
    run_out(driver)
    change(any_db, trials=7)
    run_out(driver)
    assert find_problems(any_db) == []
    counts = studies.find_study(any_db, "toy").counts
    assert (counts["complete"], counts["pruned"]) == (6, 1)


# A database from the past


def test_a_sign_of_life_may_be_said_twice_and_no_older_one_is_known(any_db: Database) -> None:
    register(any_db)
    for number in (1, 2, 2, 3):  # the answer to one was lost
        assert workers.beat(any_db, "w1", number=number, state="running", lease=LEASE).is_known
    any_db.write(sql("UPDATE tuner_workers SET beat = 1"))  # what a backup restores
    assert not workers.beat(any_db, "w1", number=4, state="running", lease=LEASE).is_known
    any_db.write(sql("DELETE FROM tuner_workers"))
    assert not workers.beat(any_db, "w1", number=4, state="running", lease=LEASE).is_known


def test_nothing_is_written_to_a_database_from_the_past(any_db: Database) -> None:
    toy_study(any_db)
    register(any_db)
    beats = Beats()
    driver = StudyDriver(any_db, name="toy")
    lease = driver.claim(Holder(worker="w1", host="box", slot="cpu/0", lease=LEASE, beats=beats))
    assert lease is not None
    assert workers.beat(any_db, "w1", number=1, state="running", lease=LEASE).is_known
    beats.number = 1
    driver.report(lease, epoch=1, metrics={"f1": 0.4}, seconds=1.0, extend=LEASE)
    any_db.write(sql("UPDATE tuner_workers SET beat = 0"))
    with pytest.raises(LeaseLost):
        driver.report(lease, epoch=2, metrics={"f1": 0.5}, seconds=2.0, extend=LEASE)
    with pytest.raises(LeaseLost):
        driver.finish(lease, result=toy_result(0.5))
    assert leases.renew(any_db, held=[(lease, 2.0)], lease=LEASE) == [lease]
    assert driver.claim(Holder(worker="w1", host="box", slot="cpu/0", lease=LEASE, beats=beats)) is None
    assert [record.epoch for record in load_snapshot(any_db, "toy").trial(0).epochs] == [1]
    register(any_db, "w2")
    workers.register(
        any_db,
        Identity(worker="w3", host="box", boot="b", pid=1, process_started=0.0),
        devices=[],
        version="1",
        lease=LEASE,
        formerly="w1",
    )
    heir = driver.claim(holder("w3"))  # at once: nobody waits for the lease of the forgotten worker
    assert heir is not None
    assert (heir.number, heir.attempt) == (lease.number, 2)
    assert [one.worker for one in workers.list_workers(any_db)] == ["w2", "w3"]


# Whose code


def test_a_study_remembers_what_made_it(db: Database) -> None:
    assert toy_study(db).code == this_code()
    db.write(sql("UPDATE tuner_studies SET code = '0.0/old'"))
    assert toy_study(db).code == this_code()  # asked again before it has trials
    driver = StudyDriver(db, name="toy")
    assert driver.claim(holder()) is not None
    db.write(sql("UPDATE tuner_studies SET code = '0.0/old'"))
    assert toy_study(db).code == "0.0/old"
