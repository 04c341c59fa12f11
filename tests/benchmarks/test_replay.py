"""The replay of searches: its clock, its tables, and that what is replayed is what runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.replay.forms import one_way
from benchmarks.replay.judged import JudgedSearch
from benchmarks.replay.past import learn_recipes
from benchmarks.replay.portfolio import learn_portfolio
from benchmarks.replay.simulator import Job, replay
from benchmarks.replay.smooth import Interpolated
from benchmarks.replay.stock import Fixed, Screening
from benchmarks.replay.tables import WORST_LOSS, Curve, NearestRow, Task, load_tasks
from benchmarks.search_quality import DATA
from tests.store.toy import LEASE, holder, toy_result, toy_study
from tuner.search.driver import StudyDriver
from tuner.store.database import Database
from tuner.store.records import Outcome
from tuner.study.domains import Range, Value
from tuner.study.plan import Verdict
from tuner.study.space import SearchSpace, StrategySpace
from tuner.study.spec import SearchSpec

KNOBS = {"rate": Range(low=1e-4, high=1.0, log=True), "depth": Range(low=1, high=4, kind="int")}


def toy_task(seed: int = 0, *, rows: int = 60, epochs: int = 9) -> Task:
    """Scores with a peak near a rate of 0.01 that moves with the seed, worth more with every epoch."""
    random = np.random.default_rng(7)  # the same configurations for every task
    units = random.random((rows, 2))
    peak = 0.5 + 0.05 * seed
    final = 1.0 - np.abs(units[:, :1] - peak) - 0.1 * units[:, 1:]
    scores = final * (1.0 - 0.5 ** np.arange(1, epochs + 1))
    seconds = (1.0 + units[:, 1:]) * np.arange(1, epochs + 1)
    return Task(name=f"toy-{seed}", knobs=KNOBS, units=units, scores=scores, test=scores - 0.1, seconds=seconds)


class Listening(Fixed):
    """Trains a list of configurations and writes down what it hears."""

    def __init__(self, values: list[dict[str, Value]]) -> None:
        super().__init__(values)
        self.heard: list[tuple[int, int]] = []
        self.ended: list[tuple[int, Outcome]] = []

    def report(self, trial: int, *, epoch: int, score: float) -> Verdict:
        self.heard.append((trial, epoch))
        return super().report(trial, epoch=epoch, score=score)

    def end(self, trial: int, *, outcome: Outcome, score: float | None) -> None:
        self.ended.append((trial, outcome))


class Written:
    """Curves of one knob's value, as a test writes them down."""

    def __init__(self, curves: Mapping[Value, tuple[list[float], float]]) -> None:
        self._curves = curves

    def curve(self, values: Mapping[str, Value]) -> Curve:
        scores, pace = self._curves[values["x"]]
        seconds = pace * np.arange(1.0, len(scores) + 1)
        return Curve(scores=np.array(scores), test=np.array(scores) / 2, seconds=seconds, row=int(values["x"]))


def test_epochs_are_heard_in_the_order_of_the_clock() -> None:
    search = Listening([{"x": 0}, {"x": 1}, {"x": 0}])
    curves = Written({0: ([0.1, 0.2], 3.0), 1: ([0.3, 0.4], 2.0)})
    trace = replay(search, curves, workers=2, seconds=100.0)
    # Trial 1 ends at 4; its worker begins trial 2 there, which reports at 7 and 10. Trial 0 reports at 3 and 6.
    assert search.heard == [(1, 1), (0, 1), (1, 2), (0, 2), (2, 1), (2, 2)]
    assert search.ended == [(1, Outcome.COMPLETE), (0, Outcome.COMPLETE), (2, Outcome.COMPLETE)]
    assert (trace.instants, trace.best, trace.test) == ([2.0, 4.0], [0.3, 0.4], [0.15, 0.2])
    assert (trace.trials, trace.distinct, trace.completed) == (3, 2, 3)


def test_what_would_end_after_the_clock_stops_is_not_known() -> None:
    curves = Written({0: ([0.1, 0.2], 3.0)})
    trace = replay(Listening([{"x": 0}]), curves, workers=1, seconds=5.9)
    assert trace.best_at(2.9) is None
    assert trace.best_at(3.0) == trace.best_at(5.9) == 0.1


def test_what_diverges_frees_its_worker() -> None:
    search = Listening([{"x": 0}, {"x": 1}])
    curves = Written({0: ([0.1, np.nan, np.nan], 1.0), 1: ([0.5, 0.5, 0.5], 1.0)})
    trace = replay(search, curves, workers=1, seconds=10.0)
    assert search.ended == [(0, Outcome.DIVERGED), (1, Outcome.COMPLETE)]
    assert trace.instants == [1.0, 3.0]


def test_a_paused_trial_goes_on_from_its_checkpoint() -> None:
    task = toy_task()
    search = Screening(task, seed=0, count=6)
    jobs: list[Job] = []

    class Watched:
        def ask(self) -> Job | None:
            job = search.ask()
            if job is not None:
                jobs.append(job)
            return job

        report = staticmethod(search.report)
        end = staticmethod(search.end)

    trainings = NearestRow(task)
    trace = replay(Watched(), trainings, workers=2, seconds=1e9)
    firsts = [float(trainings.curve(job.values).scores[0]) for job in jobs[:6]]
    assert [job.epochs_done for job in jobs] == [0] * 6 + [1] * 6
    assert [job.trial for job in jobs[6:]] == sorted(range(6), key=lambda trial: -firsts[trial])
    assert (trace.trials, trace.completed) == (6, 6)


def test_a_judged_search_is_deterministic_and_finds_the_peak() -> None:
    task = toy_task(rows=400)

    def _run(seed: int) -> list[float]:
        search = JudgedSearch(one_way(task), epochs=task.epochs, search=SearchSpec(seed=seed))
        trace = replay(search, NearestRow(task), workers=4, seconds=10 * task.full_training)
        return [*trace.instants, *trace.best]

    assert _run(1) == _run(1)
    assert _run(1) != _run(2)
    assert _run(1)[-1] > np.quantile(task.scores[:, -1], 0.97)


def test_the_driver_judges_as_the_replay_does(tmp_path: Path) -> None:
    """One worker, the same study once in SQL and once in memory: the same values, the same verdicts."""
    task = toy_task()
    trainings = NearestRow(task)
    block = StrategySpace(strategy="recorded", prior=1.0, domains=KNOBS, recipe={}, is_tried_first=False)
    spec = SearchSpec(seed=3)
    replayed = JudgedSearch(one_way(task), epochs=task.epochs, search=spec)
    with Database.open(f"sqlite:///{tmp_path / 'tuner.db'}", create=True) as db:
        toy_study(
            db,
            name="replay-3",
            space=SearchSpace(strategies=(block,)),
            training={"epochs": task.epochs},
            budget={"trials": 14},
            search=spec.model_dump(),
        )
        driver = StudyDriver(db, name="replay-3")
        pruned = 0
        while (lease := driver.claim(holder())) is not None:
            job = replayed.ask()
            assert lease.params == job.values
            curve = trainings.curve(job.values)
            for epoch, score in enumerate(curve.scores.tolist(), start=1):
                verdict, _ = driver.report(lease, epoch=epoch, metrics={"f1": score}, seconds=1.0, extend=LEASE)
                theirs = replayed.report(job.trial, epoch=epoch, score=score)
                assert verdict is (theirs if epoch < task.epochs else Verdict.GO_ON)
                ended_by = verdict.value if verdict is Verdict.PRUNE else "epochs"
                if verdict is Verdict.PRUNE or epoch == task.epochs:
                    driver.finish(lease, result=toy_result(score, epochs=epoch, ended_by=ended_by))
                    outcome = Outcome.PRUNED if verdict is Verdict.PRUNE else Outcome.COMPLETE
                    replayed.end(job.trial, outcome=outcome, score=score)
                    pruned += verdict is Verdict.PRUNE
                    break
        assert 0 < pruned < 14


def test_recipes_are_learnt_by_coverage() -> None:
    tasks = [toy_task(seed) for seed in (-6, 6)]  # peaks at .2 and .8
    chosen = learn_portfolio(tasks, size=3)
    best = [task.values(int(task.scores[:, -1].argmax())) for task in tasks]
    assert {tuple(values.items()) for values in best} <= {tuple(values.items()) for values in chosen}
    assert len({tuple(values.items()) for values in chosen}) == 3
    assert learn_portfolio([], size=3) == []


def test_interpolation_beats_the_nearest_row() -> None:
    task = toy_task(rows=80)
    fresh = np.random.default_rng(1).random((50, 2))
    fresh[:, 1] = np.round(fresh[:, 1] * 3) / 3  # a depth is a whole number
    truth = (1.0 - np.abs(fresh[:, 0] - 0.5) - 0.1 * fresh[:, 1]) * (1.0 - 0.5**9)
    values = [{"rate": float(1e-4 ** (1 - u)), "depth": round(1 + 3 * d)} for u, d in fresh]
    errors = {
        kind: np.abs([kind(task).curve(v).scores[-1] for v in values] - truth).mean()
        for kind in (NearestRow, Interpolated)
    }
    assert errors[Interpolated] < errors[NearestRow] / 2


def test_lcbench_tables_are_read(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    configs = np.stack([10.0 ** random.uniform(-4, -1, 300), random.integers(1, 6, 300)], axis=1)
    cube = random.random((300, 4, 3))
    cube[:, :, 0] = [4.0, 3.0, 5.0, 6.0]  # the second epoch ends before the first
    path = tmp_path / "table.npz"
    metrics = ["time_cum_s", "val_balanced_accuracy", "test_balanced_accuracy"]
    np.savez(path, tasks=["7"], metrics=metrics, hp_names=["rate", "layers"], configs=configs, task_7=cube)
    (task,) = load_tasks(path)
    assert [(knob.log, knob.kind) for knob in task.knobs.values()] == [(True, "float"), (False, "int")]
    assert task.seconds[0].tolist() == [4.0, 4.0, 5.0, 6.0]
    assert task.full_training == 6.0
    assert task.best == cube[:, :, 1].max()
    assert task.values(5) == pytest.approx({"rate": configs[5, 0], "layers": int(configs[5, 1])})
    assert NearestRow(task).curve(task.values(5)).row == 5


@pytest.mark.parametrize(("folder", "tasks", "knobs", "epochs"), [("lcbench", 6, 7, 52), ("taskset", 12, 8, 51)])
def test_the_tables_of_the_repository_are_read(folder: str, tasks: int, knobs: int, epochs: int) -> None:
    table = load_tasks(DATA / folder / "curves.npz")
    assert len(table) == tasks
    for task in table:
        assert (task.units.shape, task.scores.shape) == ((1000, knobs), (1000, epochs))
        assert task.units.min() == 0.0
        assert task.units.max() == 1.0
        assert task.worst < task.median < task.best
        assert (np.diff(task.seconds, axis=1) >= 0.0).all()
    rate = table[0].knobs["learning_rate"]
    assert rate.log
    assert len({task.name for task in table}) == tasks


def test_taskset_tables_are_read(tmp_path: Path) -> None:
    losses = np.array([[0.7, 0.5, 0.4], [0.7, np.nan, 0.6], [0.7, 1e9, 0.9]])
    path = tmp_path / "table.npz"
    arrays: dict[str, Any] = {"t|valid": losses, "t|test": losses}
    np.savez(path, tasks=["t"], hp_names=["x"], configs=[[0.0], [1.0], [2.0]], **arrays)
    (task,) = load_tasks(path)
    assert task.scores[0].tolist() == [-0.7, -0.5, -0.4]
    assert np.isnan(task.scores[1]).tolist() == [False, True, True]  # what was lost once stays lost
    assert task.scores[2].tolist() == [-0.7, -WORST_LOSS, -0.9]
    assert (task.best, task.worst, task.full_training) == (-0.4, -0.9, 3.0)


def test_other_tables_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    np.savez(path, tasks=["t"], hp_names=["x"], configs=[[0.0], [1.0]])
    with pytest.raises(ValueError, match="neither LCBench's format"):
        load_tasks(path)


def test_recipes_are_learnt_from_what_past_searches_left_behind() -> None:
    tasks = [toy_task(seed, rows=200) for seed in (-2, -1, 1, 2)]
    task = toy_task(0, rows=200)
    learnt = learn_recipes(task, others=tasks, ask=one_way, seed=0, size=4)
    assert learnt == learn_recipes(task, others=tasks, ask=one_way, seed=0, size=4)
    scores = [NearestRow(task).curve(values).scores[-1] for values in learnt]
    assert max(scores) > np.quantile(task.scores[:, -1], 0.95)
    assert len(learnt) == 4
