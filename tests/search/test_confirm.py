"""Which trials are trained again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.store.toy import run_out, toy_study
from tuner.search.confirm import choose_finalists, find_baseline, fresh_seeds
from tuner.search.driver import StudyDriver
from tuner.store.database import Database
from tuner.store.queries import load_snapshot
from tuner.store.records import Outcome, StudySnapshot


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
