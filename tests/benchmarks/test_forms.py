"""How a recorded task is asked about, and that no run is run twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.replay.comparison import Comparison, compare
from benchmarks.replay.forms import by_strategy
from benchmarks.replay.portfolio import learn_portfolio
from benchmarks.replay.tables import Task
from tuner.study.domains import Range

KNOBS = {"learning_rate": Range(low=1e-4, high=1e-1, log=True), "layers": Range(low=1, high=3, kind="int")}


def layered(seed: int = 0) -> Task:
    random = np.random.default_rng(seed)
    units = np.stack([random.random(30), np.repeat([0.0, 0.5, 1.0], 10)], axis=1)
    scores = units[:, :1] * np.arange(1.0, 4.0) / 3
    seconds = np.broadcast_to(np.arange(1.0, 4.0), scores.shape)
    return Task(name="toy", knobs=KNOBS, units=units, scores=scores, test=scores, seconds=seconds)


@pytest.mark.parametrize("relative", [True, False])
def test_a_strategy_s_proposal_is_a_configuration_of_the_table(relative: bool) -> None:
    task = layered()
    question = by_strategy(task, arm="layers", relative=relative)
    assert question.space.names == ("layers-1", "layers-2", "layers-3")
    for row in (0, 12, 29):
        proposal = question.proposal(task.values(row))
        strategy = str(proposal.pop("strategy"))
        absolute = question.space.absolute(strategy, proposal)
        shift = 10.0 ** (int(strategy[-1]) - 2)  # each a decade above the one before
        assert absolute["learning_rate"] == pytest.approx(float(task.values(row)["learning_rate"]) * shift)
        assert question.recorded(strategy, absolute) == pytest.approx(task.values(row))


def test_each_strategy_has_a_recipe_before_any_has_two() -> None:
    chosen = learn_portfolio([layered(1), layered(2)], size=4, arm="layers")
    assert {values["layers"] for values in chosen[:3]} == {1, 2, 3}


def test_what_was_run_is_not_run_again(tmp_path: Path) -> None:
    task, table, kept = layered(), tmp_path / "table.npz", tmp_path / "kept"
    rows = [list(task.values(row).values()) for row in range(30)]
    arrays = {"t|valid": -task.scores, "t|test": -task.scores}
    np.savez(table, tasks=["t"], hp_names=list(KNOBS), configs=rows, allow_pickle=False, **arrays)
    plan = Comparison(
        table=table,
        methods=("random", "Syne Tune ASHA"),
        tasks=(),
        seeds=2,
        workers=2,
        lookup="nearest",
        against="random",
        keep=kept,
    )
    first = compare(plan)
    assert first["left_out"] == ["Syne Tune ASHA"]  # no environment has it
    written = {path: path.stat().st_mtime_ns for path in kept.glob("*.json")}
    assert len(written) == 2
    assert compare(plan)["cells"] == first["cells"]
    assert {path: path.stat().st_mtime_ns for path in kept.glob("*")} == written
