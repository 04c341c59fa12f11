"""Looks at a replayed study: what the forecast saw, and what came."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.outlooks import LOOKS, PARTS, Case, Look, Recorded, looks_at, rows
from benchmarks.replay.judged import JudgedSearch
from benchmarks.replay.methods import Setting
from benchmarks.replay.own import load_table
from benchmarks.replay.simulator import replay
from tests.source_tree import ROOT
from tuner.store.records import Outcome
from tuner.study.outlook import Span
from tuner.study.spec import SearchSpec

TABLE: Path = ROOT / "benchmarks" / "data" / "strategies" / "curves.npz"
CASE = Case(workers=2, trials=14, pruner="auto", is_rough=True)


def test_a_study_is_cut_as_the_store_would_have_had_it() -> None:
    task = load_table(TABLE)[0]
    setting = Setting(task=task, others=[], seed=0, trainings=14, workers=2)
    search = JudgedSearch(
        setting.question(relative=True), epochs=task.epochs, search=SearchSpec(), recipes=setting.defaults()
    )
    recorded = Recorded(search, task=task, case=CASE, seed=0)
    replay(recorded, recorded, workers=2, seconds=float("inf"))
    whole = recorded.trials_at(recorded.now, recipes=6)
    assert [trial.number for trial in whole] == list(range(14))
    assert {trial.outcome for trial in whole} <= {Outcome.COMPLETE, Outcome.PRUNED}
    assert all(len(trial.epochs) == task.epochs for trial in whole if trial.outcome is Outcome.COMPLETE)
    half = recorded.trials_at(recorded.now / 2, recipes=6)
    running = [trial for trial in half if trial.outcome is Outcome.RUNNING]
    assert len(running) == 2
    assert sum(trial.seconds for trial in half) == pytest.approx(recorded.now)  # two workers, half of the time
    for trial in running:
        later = whole[trial.number]
        assert trial.seconds < later.seconds
        assert trial.epochs == later.epochs[: len(trial.epochs)]
        assert all(epoch.seconds <= trial.seconds for epoch in trial.epochs)


def test_looks_are_in_units_of_what_came() -> None:
    looks = looks_at(load_table(TABLE)[0], others=[], case=replace(CASE, workers=1, is_rough=False), seed=0)
    assert 0 < len(looks) <= LOOKS
    assert {look.part for look in looks} <= {words for _, words in PARTS}
    assert looks[-1].device.low > 0.9  # most is known by then
    held = Look(part="the rest", device=Span(low=0.9, high=0.99), hours=Span(low=1.0, high=2.0))
    missed = replace(held, hours=Span(low=1.1, high=2.0))
    assert (held.holds, missed.holds) == (True, False)
    assert [(row["looks"], row["holds"]) for row in rows({"x": [held, missed]})] == [(2, 0.5)]
