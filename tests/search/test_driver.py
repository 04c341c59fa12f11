"""The driver where things go wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from tests.store.toy import LEASE, holder, score, sql, toy_result, toy_space, toy_study, train
from tuner.errors import ConfigurationError, LeaseLost, TrialError, UnavailableError
from tuner.search import judgement
from tuner.search.budget import least_limits, why_no_new_trial, why_not_again
from tuner.search.driver import StudyDriver
from tuner.store import control, leases, trial_control
from tuner.store.control import Wishes
from tuner.store.database import Database
from tuner.store.queries import load_snapshot
from tuner.store.records import Outcome, StudyState
from tuner.study.domains import Choice, Range, Value
from tuner.study.plan import Verdict
from tuner.study.space import SearchSpace


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with Database.open(f"sqlite:///{tmp_path / 'tuner.db'}", create=True) as database:
        yield database


def test_a_study_whose_first_trials_all_fail_is_paused(db: Database) -> None:
    toy_study(db, budget={"trials": 20})
    driver = StudyDriver(db, name="toy")
    claimed = 0
    while (lease := driver.claim(holder())) is not None:
        claimed += 1
        driver.fail(lease, outcome=Outcome.ERRORED, reason="KeyError: 'text'", seconds=0.1, log_tail="Traceback …")
    study = driver.advance()
    assert claimed == 5
    assert study.state is StudyState.PAUSED
    assert study.state_reason == (
        "5 trials ended with an error before any had a result, the last with: KeyError: 'text'; "
        "see tuner study trials toy --state errored, mend it, then: tuner study resume toy"
    )
    assert load_snapshot(db, "toy").trial(4).attempts[0].log_tail == "Traceback …"


def test_a_recipe_that_is_not_tried_first_is_left_to_the_search(db: Database) -> None:
    lora, full = toy_space().strategies
    space = SearchSpace(strategies=(replace(lora, is_tried_first=False), full))
    toy_study(db, space=space, budget={"trials": 2})
    driver = StudyDriver(db, name="toy")
    leases = [driver.claim(holder()), driver.claim(holder())]
    assert [lease is not None and lease.is_recipe for lease in leases] == [True, False]
    assert leases[0] is not None
    assert leases[0].strategy == "full"


def test_failures_after_a_success_do_not_pause(db: Database) -> None:
    toy_study(db, budget={"trials": 8})
    driver = StudyDriver(db, name="toy")
    first = driver.claim(holder())
    assert first is not None
    train(driver, first)
    while (lease := driver.claim(holder())) is not None:
        driver.fail(lease, outcome=Outcome.INFEASIBLE, reason="out of memory", seconds=0.1, log_tail="")
    study = driver.advance()
    assert study.state is StudyState.FINISHED
    assert (study.counts["complete"], study.counts["infeasible"]) == (1, 7)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"loss": 0.5}, 'no metric "f1" was reported - got loss; set objective.metric'),
        ({"f1": float("nan")}, "f1 is nan; lower the learning rate"),
    ],
)
def test_a_report_without_the_objective_fails_the_trial(db: Database, metrics: dict[str, float], message: str) -> None:
    toy_study(db)
    driver = StudyDriver(db, name="toy")
    lease = driver.claim(holder())
    assert lease is not None
    with pytest.raises(TrialError) as caught:
        driver.report(lease, epoch=1, metrics=metrics, seconds=1.0, extend=LEASE)
    assert str(caught.value) == message
    assert load_snapshot(db, "toy").trial(0).epochs == ()


def test_a_metric_that_is_not_finite_is_not_stored(db: Database) -> None:
    toy_study(db)
    driver = StudyDriver(db, name="toy")
    lease = driver.claim(holder())
    assert lease is not None
    driver.report(
        lease, epoch=1, metrics={"f1": 0.5, "auc": float("nan"), "loss": float("inf")}, seconds=1.0, extend=LEASE
    )
    assert load_snapshot(db, "toy").trial(0).epochs[0].metrics == {"f1": 0.5}


def test_a_sampler_that_fails_pauses_the_study(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_study(db)
    driver = StudyDriver(db, name="toy")
    for _ in range(2):  # the recipes need no sampler
        lease = driver.claim(holder())
        assert lease is not None
        train(driver, lease)

    def _broken(*_: object) -> None:
        raise ZeroDivisionError("a bug in a sampler")

    monkeypatch.setattr(optuna.samplers.TPESampler, "sample_independent", _broken)
    assert driver.claim(holder()) is None
    study = driver.advance()
    assert study.state is StudyState.PAUSED
    assert study.state_reason == "sampler auto failed: ZeroDivisionError: a bug in a sampler"
    assert (study.counts["errored"], study.counts["running"]) == (1, 0)


@pytest.mark.parametrize("error", [ImportError("no module named torch"), MemoryError()])
def test_what_only_this_box_lacks_is_no_fault_of_the_study(
    db: Database, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    toy_study(db)
    here, elsewhere = StudyDriver(db, name="toy"), StudyDriver(db, name="toy")
    for _ in range(2):  # the recipes need no sampler
        lease = here.claim(holder())
        assert lease is not None
        train(here, lease)

    def _lacks(*_: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(optuna.samplers.TPESampler, "sample_independent", _lacks)
        with pytest.raises(ConfigurationError, match=f"sampler auto cannot draw here: {str(error) or 'MemoryError'}"):
            here.claim(holder())
    study = load_snapshot(db, "toy").study
    assert study.state is StudyState.SEARCHING
    assert (study.counts["errored"], study.counts["waiting"]) == (0, 1)
    lease = elsewhere.claim(holder("w2"))
    assert lease is not None
    assert lease.number == 2
    train(elsewhere, lease)


def test_a_run_that_is_claimed_when_the_database_goes_is_handed_out_when_it_is_back(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    toy_study(db)
    driver = StudyDriver(db, name="toy")

    def _gone(_: StudyDriver) -> None:
        raise UnavailableError("gone")

    with monkeypatch.context() as patched:
        patched.setattr(StudyDriver, "_see_retries", _gone)
        with pytest.raises(UnavailableError):
            driver.claim(holder())
    lease = driver.claim(holder())
    assert lease is not None
    assert (lease.number, lease.attempt) == (0, 1)
    assert load_snapshot(db, "toy").study.counts["running"] == 1


def test_a_pruned_trial_says_where_it_stood(db: Database) -> None:
    toy_study(db, search={"pruner": {"name": "threshold", "options": {"lower": 0.3}}})
    driver = StudyDriver(db, name="toy")
    recipe, good, bad = (driver.claim(holder()) for _ in range(3))
    assert recipe is not None and good is not None and bad is not None
    low = {"f1": 0.1}
    assert driver.report(recipe, epoch=1, metrics=low, seconds=1.0, extend=LEASE)[0].value == "go_on"  # not yet
    assert driver.report(good, epoch=1, metrics={"f1": 0.5}, seconds=1.0, extend=LEASE)[0].value == "go_on"
    verdict, why = driver.report(bad, epoch=1, metrics={"f1": 0.25}, seconds=1.0, extend=LEASE)
    assert verdict.value == "prune"
    assert why == "f1 0.25 at epoch 1 is rank 2 of 3 there (best 0.5)"
    assert driver.finish(bad, result=toy_result(0.25, epochs=1, ended_by="prune"), reason=why) == (
        Outcome.PRUNED,
        0.25,
        why,
    )
    assert load_snapshot(db, "toy").trial(bad.number).reason == why


def test_a_repeat_has_a_seed_of_its_own(db: Database) -> None:
    """The same seed again would give the same curve: nothing would be learnt."""
    only = replace(toy_space(finite=True).strategies[1], domains={"batch_size": Choice(options=(8, 16))})
    recipe = replace(only, recipe={"batch_size": 16})
    toy_study(db, space=SearchSpace(strategies=(recipe,)), search={"sampler": "random"}, budget={"trials": 8})
    driver = StudyDriver(db, name="toy")
    seeds: dict[object, list[int]] = {8: [], 16: []}
    while (lease := driver.claim(holder())) is not None:
        assert lease.params is not None
        seeds[lease.params["batch_size"]].append(lease.seed)
        driver.finish(lease, result=toy_result(0.5, epochs=3))
    assert max(len(used) for used in seeds.values()) > 1
    assert [len(set(used)) for used in seeds.values()] == [len(used) for used in seeds.values()]
    assert {used[0] for used in seeds.values()} == {0}  # the study's: strategies are compared with the same one
    stored = {trial.number: trial.seed for trial in load_snapshot(db, "toy").trials}
    assert sorted(stored.values()) == sorted(seeds[8] + seeds[16])


def test_workers_that_knew_a_trial_see_that_it_runs_again(db: Database) -> None:
    toy_study(db, budget={"trials": 12}, search={"pruner": {"name": "none"}})
    driver, other = StudyDriver(db, name="toy"), StudyDriver(db, name="toy")
    bad = driver.claim(holder())
    assert bad is not None
    driver.fail(bad, outcome=Outcome.DIVERGED, reason="nan", seconds=1.0, log_tail="")
    for each in (driver, other):  # both have read the history
        lease = each.claim(holder())
        assert lease is not None
        train(each, lease)
    trial_control.retry_trials(db, "toy", [bad.number], who="anna@box", limit=why_not_again)
    again = driver.claim(holder())
    assert again is not None
    assert again.number == bad.number
    train(driver, again)
    for each in (driver, other):
        assert each.claim(holder()) is not None
        known = each._judgement._study.get_trials(deepcopy=False)[bad.number]
        assert (known.state, known.value) == (TrialState.COMPLETE, score(again, 3))


@pytest.mark.parametrize("is_old", [False, True])
def test_a_trial_that_runs_again_is_judged_as_a_new_one(db: Database, is_old: bool) -> None:
    toy_study(db, budget={"trials": 12}, training={"epochs": 9})
    driver = StudyDriver(db, name="toy")
    *others, promising = [lease for _ in range(4) if (lease := driver.claim(holder())) is not None]
    for lease in others:
        driver.report(lease, epoch=1, metrics={"f1": 0.5}, seconds=1.0, extend=LEASE)
    for epoch in range(1, 9):
        said = driver.report(promising, epoch=epoch, metrics={"f1": 0.9}, seconds=float(epoch), extend=LEASE)
        assert said == (Verdict.GO_ON, "")
    driver.fail(promising, outcome=Outcome.ERRORED, reason="disk", seconds=8.0, log_tail="")
    if is_old:  # it ended before rungs were set aside at an end
        row = f"({promising.trial_id}, 'completed_rung_0', '0.9')"
        db.write(sql(f"INSERT INTO trial_system_attributes (trial_id, key, value_json) VALUES {row}"))
    trial_control.retry_trials(db, "toy", [promising.number], who="anna@box", limit=why_not_again)
    again = driver.claim(holder())
    assert again is not None
    assert again.number == promising.number
    said = driver.report(again, epoch=1, metrics={"f1": 0.1}, seconds=1.0, extend=LEASE)
    assert said == (Verdict.PRUNE, "f1 0.1 at epoch 1 is rank 4 of 4 there (best 0.5)")


def test_a_trial_whose_checkpoints_were_lost_is_judged_again_from_where_it_goes_on(db: Database) -> None:
    toy_study(db, budget={"trials": 12}, training={"epochs": 9})
    driver = StudyDriver(db, name="toy")
    *others, promising = [lease for _ in range(4) if (lease := driver.claim(holder())) is not None]
    for lease in others[:2]:
        for epoch in (1, 2):
            driver.report(lease, epoch=epoch, metrics={"f1": 0.5}, seconds=float(epoch), extend=LEASE)
    for epoch in range(1, 9):
        driver.report(promising, epoch=epoch, metrics={"f1": 0.9}, seconds=float(epoch), extend=LEASE)
    leases.lose(db, promising, reason="killed", seconds=8.0)
    again = driver.claim(holder())
    assert again is not None
    assert again.number == promising.number
    low = {"f1": 0.1}
    # It was judged after its first epoch, which is not forgotten; of the second there is only what it says now.
    assert driver.report(again, epoch=1, metrics=low, seconds=1.0, extend=LEASE) == (Verdict.GO_ON, "")
    said = driver.report(again, epoch=2, metrics=low, seconds=2.0, extend=LEASE)
    assert said == (Verdict.PRUNE, "f1 0.1 at epoch 2 is rank 3 of 3 there (best 0.5)")


def test_a_run_is_judged_by_the_budget_that_stands_now(db: Database) -> None:
    """Nothing else reads the study after the driver was made."""
    toy_study(db, training={"epochs": 9}, search={"pruner": "none"})
    driver = StudyDriver(db, name="toy")
    lease = driver.claim(holder())
    assert lease is not None

    def why_stopped(*, epoch: int, gpu_hours: float) -> str:
        wishes = Wishes(gpu_hours=gpu_hours)
        control.change(db, "toy", wishes=wishes, who="anna@box", quota=why_no_new_trial, least=least_limits)
        return driver.report(lease, epoch=epoch, metrics={"f1": 0.5}, seconds=600.0 * epoch, extend=LEASE)[1]

    assert why_stopped(epoch=4, gpu_hours=0.5) == "budget of 0.5 device hours is used"  # it had none before
    assert why_stopped(epoch=5, gpu_hours=1.0) == ""
    assert driver.time_left(lease) == ("", 600.0)


@pytest.mark.parametrize("sampler", ["random", "auto"])
def test_a_worker_that_dies_while_it_draws_leaves_the_same_trial_to_the_next(
    db: Database, monkeypatch: pytest.MonkeyPatch, sampler: str
) -> None:
    """What was drawn before would stay, and the rest be drawn from the beginning of the random numbers."""
    search = {"sampler": sampler, "pruner": "none", "seed": 3}
    toy_study(db, "whole", budget={"trials": 9}, search=search)
    undisturbed = StudyDriver(db, name="whole")
    expected = []
    while (lease := undisturbed.claim(holder())) is not None:
        expected.append((lease.strategy, lease.params))
        train(undisturbed, lease)

    suggest, left = judgement._suggest, [0]

    def _die(trial: optuna.trial.Trial, name: str, domain: Range | Choice) -> Value:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt
        return suggest(trial, name, domain)

    monkeypatch.setattr(judgement, "_suggest", _die)
    toy_study(db, "cut", budget={"trials": 9}, search=search)
    found, deaths = [], 0
    while True:
        for after in (2, 3, 4):  # when there is a strategy, a learning rate, a batch size
            left[0] = after
            try:
                lease = StudyDriver(db, name="cut").claim(holder("dead"))
                break  # that strategy has no more to draw, or nothing is left
            except KeyboardInterrupt:
                deaths += 1
                db.write(sql("UPDATE tuner_runs SET expires_at = 0 WHERE expires_at > 0 AND outcome = 'running'"))
        else:
            left[0] = 0
            lease = StudyDriver(db, name="cut").claim(holder())
        if lease is None:
            break
        found.append((lease.strategy, lease.params))
        train(StudyDriver(db, name="cut"), lease)
    assert found == expected
    assert deaths >= 2 * len(expected)


def test_what_a_worker_draws_that_lost_its_trial_is_not_stored(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    toy_study(db, budget={"trials": 1}, search={"sampler": "random", "pruner": "none", "seed": 3})
    propose = StudyDriver._propose
    taken = []

    def _too_late(driver: StudyDriver, lease: leases.Lease) -> judgement.Proposal:
        found = propose(driver, lease)
        monkeypatch.setattr(StudyDriver, "_propose", propose)
        db.write(sql("UPDATE tuner_runs SET expires_at = 0"))
        taken.append(StudyDriver(db, name="toy").claim(holder("other")))
        return replace(found, drawn={name: (value + 1.0, domain) for name, (value, domain) in found.drawn.items()})

    monkeypatch.setattr(StudyDriver, "_propose", _too_late)
    with pytest.raises(LeaseLost):
        StudyDriver(db, name="toy").claim(holder("slow"))
    (trial,) = optuna.load_study(study_name="toy", storage=db.optuna_storage()).get_trials()
    assert taken[0] is not None
    assert trial.params["strategy"] == taken[0].strategy
    assert len(trial.params) == len(trial.distributions) >= 3
