"""Which trials are trained again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.store.toy import holder, run_out, toy_result, toy_study, train
from tuner.report.verdict import Basis, choose_winner
from tuner.search.confirm import choose_finalists, find_baseline, find_fallen, fresh_seeds
from tuner.search.driver import StudyDriver
from tuner.store.database import Database
from tuner.store.queries import load_snapshot
from tuner.store.records import ConfirmationRecord, FinalistRecord, Outcome, StudySnapshot, StudyState
from tuner.study.plan import Confusion, TestScore

NONE = Confusion(labels=(), counts=())


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StudySnapshot]:
    """Ten finished trials, nothing pruned; trial 1 is the recipe of `full`."""
    folder = tmp_path_factory.mktemp("confirm")
    with Database.open(f"sqlite:///{folder / 'tuner.db'}", create=True) as db:
        toy_study(db, budget={"trials": 10}, search={"pruner": {"name": "none"}}, confirm={"finalists": 2, "seeds": 3})
        run_out(StudyDriver(db, name="toy"))
        yield load_snapshot(db, "toy")


def best(snapshot: StudySnapshot) -> list[int]:
    return [trial.number for trial in sorted(snapshot.trials, key=lambda trial: -(trial.value or 0.0))]


def test_the_best_and_the_baseline_compete(snapshot: StudySnapshot) -> None:
    finalists = choose_finalists(snapshot.trials, study=snapshot.study)
    top = best(snapshot)[:2]
    assert [finalist.number for finalist in finalists][:2] == top
    assert [finalist.number for finalist in finalists if finalist.is_baseline] == [1]
    assert [finalist.rank for finalist in finalists] == list(range(1, len(finalists) + 1))


def test_a_baseline_among_the_best_is_not_doubled(snapshot: StudySnapshot) -> None:
    trials = [replace(trial, value=2.0) if trial.number == 1 else trial for trial in snapshot.trials]
    finalists = choose_finalists(trials, study=snapshot.study)
    assert [(finalist.number, finalist.is_baseline) for finalist in finalists] == [
        (1, True),
        (best(snapshot)[0], False),
    ]


def test_less_is_better_where_the_goal_says_so(snapshot: StudySnapshot) -> None:
    study = replace(snapshot.study, maximize=False)
    assert choose_finalists(snapshot.trials, study=study)[0].number == best(snapshot)[-1]


def test_one_configuration_competes_once(snapshot: StudySnapshot) -> None:
    first = snapshot.trial(best(snapshot)[0])
    twin = replace(first, number=99, value=(first.value or 0.0) + 0.1)
    numbers = [finalist.number for finalist in choose_finalists([*snapshot.trials, twin], study=snapshot.study)]
    assert 99 in numbers and first.number not in numbers


def test_a_pruned_baseline_competes_all_the_same_and_a_failed_one_does_not(snapshot: StudySnapshot) -> None:
    def _with(outcome: Outcome) -> list[object]:
        return [replace(t, outcome=outcome, value=None) if t.number == 1 else t for t in snapshot.trials]

    pruned, failed = _with(Outcome.PRUNED), _with(Outcome.ERRORED)
    assert find_baseline(pruned, study=snapshot.study) is not None  # type: ignore[arg-type]
    assert find_baseline(failed, study=snapshot.study) is None  # type: ignore[arg-type]


def test_nothing_complete_or_nothing_asked_means_no_finalists(snapshot: StudySnapshot) -> None:
    pruned = [replace(trial, outcome=Outcome.PRUNED) for trial in snapshot.trials]
    assert choose_finalists(pruned, study=snapshot.study) == []
    spec = snapshot.study.spec
    silent = spec.model_copy(update={"confirm": spec.confirm.model_copy(update={"finalists": 0})})
    assert choose_finalists(snapshot.trials, study=replace(snapshot.study, spec=silent)) == []


def test_fresh_seeds_differ_from_the_search_and_from_each_other(snapshot: StudySnapshot) -> None:
    seeds = fresh_seeds(snapshot.study)
    assert len({snapshot.study.spec.training.seed, *seeds}) == 4
    assert {run.seed for finalist in snapshot.finalists for run in finalist.runs} == set(seeds)


def finalist(number: int, *scores: float | None, is_baseline: bool = False) -> FinalistRecord:
    """A finalist of three seeds; None: the re-training waits."""
    runs = tuple(
        ConfirmationRecord(
            seed=seed,
            outcome=Outcome.WAITING if score is None else Outcome.COMPLETE,
            reason="",
            metrics={} if score is None else {"f1": score},
            test=None,
            checkpoint="",
            seconds=1.0,
        )
        for seed, score in enumerate(scores)
    )
    return FinalistRecord(number=number, rank=number + 1, is_baseline=is_baseline, runs=runs)


def test_who_cannot_win_any_more_falls_and_the_baseline_stays(snapshot: StudySnapshot) -> None:
    racing = [
        finalist(0, 0.90, 0.91, None),
        finalist(1, 0.89, 0.92, None),
        finalist(2, 0.60, 0.61, None),
        finalist(3, 0.50, 0.50, None, is_baseline=True),
    ]
    fallen = find_fallen(racing, study=snapshot.study)
    assert list(fallen) == [2]
    assert fallen[2].startswith("after 2 seeds its mean f1 is 0.3000 behind the leader's, and chance alone ")
    less = replace(snapshot.study, maximize=False)
    assert set(find_fallen(racing, study=less)) == {0, 1, 2}  # the baseline has the least, and nobody else is near


def test_after_two_seeds_two_go_on_beside_the_baseline(snapshot: StudySnapshot) -> None:
    near = [(0.90, 0.91), (0.91, 0.89), (0.90, 0.90), (0.89, 0.90)]
    racing = [finalist(number, *scores, None, None) for number, scores in enumerate(near)]
    racing.append(finalist(4, 0.10, 0.11, None, None, is_baseline=True))
    fallen = find_fallen(racing, study=snapshot.study)
    assert set(fallen) == {2, 3}
    assert fallen[3] == "after 2 seeds its mean f1 is 0.0100 behind the leader's, and 2 others go on"
    left = [each for each in racing if each.number not in fallen]
    assert find_fallen(left, study=snapshot.study) == {}
    short = [finalist(number, *scores, None) for number, scores in enumerate(near)]
    assert find_fallen(short, study=snapshot.study) == {}  # all have the third seed, which is the last


def test_a_round_that_is_not_over_decides_nothing(snapshot: StudySnapshot) -> None:
    racing = [finalist(0, 0.90, 0.91, None), finalist(1, 0.60, None, None)]
    assert find_fallen(racing, study=snapshot.study) == {}
    assert find_fallen([], study=snapshot.study) == {}


def test_who_has_no_score_does_not_keep_the_others_from_the_race(snapshot: StudySnapshot) -> None:
    broken = finalist(2, 0.9, 0.9, None)
    broken = replace(broken, runs=(replace(broken.runs[0], outcome=Outcome.ERRORED, metrics={}), *broken.runs[1:]))
    racing = [finalist(0, 0.90, 0.91, None), finalist(1, 0.60, 0.60, None), broken]
    assert list(find_fallen(racing, study=snapshot.study)) == [1]


def test_the_race_is_run_on_the_held_back_rows(snapshot: StudySnapshot) -> None:
    def held(record: FinalistRecord, *scores: float) -> FinalistRecord:
        runs = [
            replace(run, held_back=TestScore(metrics={"f1": score}, confusion=NONE, predictions=(), truth=()))
            for run, score in zip(record.runs, scores, strict=False)
        ]
        return replace(record, runs=(*runs, *record.runs[len(scores) :]))

    racing = [held(finalist(0, 0.9, 0.9, None), 0.5, 0.51), held(finalist(1, 0.5, 0.5, None), 0.8, 0.82)]
    assert list(find_fallen(racing, study=snapshot.study)) == [0]


def test_a_lost_race_cancels_what_waits_and_leaves_the_study_whole(tmp_path: Path) -> None:
    """Through the driver and SQL: re-trainings of `full` score far less than those of `lora`, whatever the search saw."""
    with Database.open(f"sqlite:///{tmp_path / 'tuner.db'}", create=True) as db:
        toy_study(db, budget={"trials": 6}, search={"pruner": {"name": "none"}}, confirm={"finalists": 3, "seeds": 3})
        driver = StudyDriver(db, name="toy")
        while driver.advance().state is StudyState.SEARCHING:
            lease = driver.claim(holder())
            assert lease is not None
            train(driver, lease)
        first = load_snapshot(db, "toy")
        leader = next(each.number for each in first.finalists if not each.is_baseline)
        rounds = []
        while (
            lease := driver.claim(holder())
        ) is not None:  # as a worker does that is never idle: it asks for nothing else
            rounds.append((lease.number, lease.seed))
            noise = (lease.seed * 7 + lease.number * 13) % 11 / 1000.0
            driver.finish(lease, result=toy_result((0.9 if lease.number == leader else 0.4) + noise))
        driver.advance()
        after = load_snapshot(db, "toy")
    assert (after.study.state, after.study.state_reason) == (StudyState.FINISHED, "finalists are confirmed")
    for record in after.finalists:
        kept = record.number == leader or record.is_baseline
        assert [run.is_cancelled for run in record.runs] == [False, False, not kept]
        assert bool(record.why_out) is not kept
        assert len([number for number, _ in rounds if number == record.number]) == (3 if kept else 2)
    winner = choose_winner(after)
    assert winner is not None
    assert (winner.trial.number, winner.basis) == (leader, Basis.CONFIRMED)
