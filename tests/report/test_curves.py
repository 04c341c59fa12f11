from __future__ import annotations

from dataclasses import replace

import pytest

from tests.report.samples import make_finalist, make_spec, make_study, make_trial
from tuner.report.curves import (
    Parameter,
    cut_confusion,
    list_parameters,
    list_points,
    pick_confusion,
    top_confusions,
    trace_best,
    trace_learning,
)
from tuner.store.records import Outcome, StudySnapshot, TrialRecord
from tuner.study.plan import Confusion

CONFUSION = Confusion(labels=("a", "b", "c"), counts=((5, 1, 0), (0, 7, 0), (3, 0, 2)))


def snapshot_of(*trials: TrialRecord, maximize: bool = True) -> StudySnapshot:
    study = make_study(spec=make_spec(), trials=trials, maximize=maximize)
    return StudySnapshot(study=study, trials=trials, finalists=())


def test_best_so_far_counts_every_ended_trial_in_the_order_of_the_ends() -> None:
    late = replace(make_trial(0, values=(0.9,), seconds=2.0), ended_at=9e9)
    snapshot = snapshot_of(
        late,
        make_trial(1, outcome=Outcome.PRUNED, values=(0.99,), seconds=3.0),
        make_trial(2, values=(0.8,), seconds=5.0),
        make_trial(3, values=(0.7,), seconds=7.0),
        make_trial(4, outcome=Outcome.RUNNING, values=(0.95,), seconds=11.0),
        make_trial(5, strategy="full", outcome=Outcome.ERRORED, values=()),
    )
    (trace,) = trace_best(snapshot)
    assert trace.strategy == "lora"
    assert trace.trials == (2, 3, 4)
    assert trace.seconds == (8.0, 15.0, 17.0)
    assert trace.values == (0.8, 0.8, 0.9)
    assert trace.numbers == (2, 2, 0)


def test_best_so_far_of_a_minimised_metric() -> None:
    snapshot = snapshot_of(
        make_trial(0, values=(0.5,)), make_trial(1, values=(0.6,)), make_trial(2, values=(0.4,)), maximize=False
    )
    assert trace_best(snapshot)[0].values == (0.5, 0.5, 0.4)


def test_learning_curves_know_where_they_were_resumed() -> None:
    snapshot = snapshot_of(
        make_trial(0, values=(0.1, 0.2, 0.3), resumed_at=3), make_trial(1, outcome=Outcome.ERRORED, values=())
    )
    (curve,) = trace_learning(snapshot)
    assert curve.epochs == (1, 2, 3)
    assert curve.values == (0.1, 0.2, 0.3)
    assert curve.resumed == (3,)


def test_parameters_and_points() -> None:
    trials = [
        make_trial(
            index, params={"learning_rate": rate, "batch_size": size, "weight_decay": 0.01, "schedule": "linear"}
        )
        for index, (rate, size) in enumerate([(1e-4, 32), (1e-2, 8), (1e-3, 8)])
    ]
    trials.append(make_trial(3, outcome=Outcome.ERRORED, params={"learning_rate": 1.0, "batch_size": 16}))
    snapshot = snapshot_of(*trials)
    points = list_points(snapshot)
    assert [point.number for point in points] == [0, 1, 2]
    parameters = {parameter.name: parameter for parameter in list_parameters(snapshot, points)}
    assert set(parameters) == {"learning_rate", "batch_size"}  # the others have one value only
    assert parameters["learning_rate"].log
    assert parameters["learning_rate"].position(1e-3) == pytest.approx(0.5)
    assert parameters["batch_size"].options == (8, 16, 32)
    assert parameters["batch_size"].position(32) == 1.0
    assert Parameter(name="x", log=False, options=(), low=2.0, high=6.0).position(3.0) == 0.25


def test_mistakes_most_frequent_first() -> None:
    assert top_confusions(CONFUSION, limit=5) == (("c", "a", 3), ("a", "b", 1))


def test_large_matrices_keep_the_classes_with_most_mistakes() -> None:
    assert cut_confusion(CONFUSION, classes=2) == Confusion(labels=("a", "c"), counts=((5, 0), (3, 2)))
    assert cut_confusion(CONFUSION, classes=3) is CONFUSION


def test_the_winners_confusion_comes_from_its_middle_test_score() -> None:
    trial = make_trial(1, confusion=CONFUSION)
    finalist = make_finalist(1, rank=1, validation=(0.9, 0.9, 0.9), accuracy=(0.95, 0.6, 0.8))
    snapshot = replace(snapshot_of(trial), finalists=(finalist,))
    found = pick_confusion(snapshot, trial)
    assert found is not None
    middle = finalist.runs[2].test
    assert middle is not None
    assert found[0] == middle.confusion
    assert found[1] == "test rows, seed 1002, the middle one of 3 by score"
    assert pick_confusion(snapshot_of(trial), trial) == (CONFUSION, "validation rows of the search")
    assert pick_confusion(snapshot_of(trial), None) is None
