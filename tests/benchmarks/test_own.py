"""The table of our own space: how it is made of recorded lines, and how searches are put to it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from benchmarks.curves_table import METRICS, tabulate
from benchmarks.replay.comparison import Comparison, compare
from benchmarks.replay.methods import STOCK, Setting
from benchmarks.replay.own import NearestUntried, StrategyTask, as_studied, load_table
from benchmarks.replay.stock import draw
from benchmarks.replay.tables import NearestRow
from benchmarks.replay.thrifty import ThriftySearch, expected_gains
from benchmarks.search_quality import DATA
from tests.store.toy import toy_space
from tuner.store.records import Outcome
from tuner.study.domains import Value
from tuner.study.hyperparameters import RELATIVE_LEARNING_RATE
from tuner.study.spec import SearchSpec

EPOCHS = 4


def lines(*, data: str = "a", seeds: int = 2, rows: int = 6) -> list[dict[str, Any]]:
    """Every strategy's recipe, then others; LoRA is better, and best at its own learning rate; the second seed is a little worse."""
    random = np.random.default_rng(0)
    found = []
    for place in range(rows):
        for block in toy_space().strategies:
            proposal: dict[str, Value] = dict(block.recipe)
            if place:
                proposal[RELATIVE_LEARNING_RATE] = float(random.uniform(-1.5, 1.5))
            for seed in range(seeds):
                final = (
                    (0.9 if block.strategy == "lora" else 0.7)
                    - 0.2 * abs(float(proposal[RELATIVE_LEARNING_RATE]))
                    - 0.01 * seed
                )
                curve = [
                    {
                        "macro_f1": final * (1 - 0.5**epoch),
                        "accuracy": final,
                        "loss": 1.0,
                        "train_loss": 1.0,
                        "seconds": float(epoch),
                    }
                    for epoch in range(1, EPOCHS + 1)
                ]
                name = {"data": data, "strategy": block.strategy, "configuration": place, "seed": seed}
                found.append({**name, "proposal": proposal, "curve": curve, "error": ""})
    return found


def write(file: Path, recorded: list[dict[str, Any]]) -> Path:
    np.savez_compressed(file, space=np.array(json.dumps(toy_space().to_json())), **tabulate(recorded, epochs=EPOCHS))
    return file


@pytest.fixture
def task(tmp_path: Path) -> StrategyTask:
    (found,) = load_table(write(tmp_path / "curves.npz", lines()))
    assert isinstance(found, StrategyTask)
    return found


def test_the_recorded_table_has_every_recipe_and_every_strategy() -> None:
    tasks = load_table(DATA / "strategies" / "curves.npz")
    assert tasks[0].name == "reuters-r8"
    for task in tasks:
        assert isinstance(task, StrategyTask)
        strategies = [values["strategy"] for values in task.proposals]
        assert {strategies.count(name) for name in task.space.names} == {len(strategies) // 6}
        assert len(strategies) >= 6 * 20
        assert task.epochs == 9
        assert all(recipe in task.proposals for recipe in task.recipes())
        assert (np.diff(task.seconds, axis=1) > 0).all()
        assert 0 < task.median < task.best < 1


def test_only_seeds_with_all_configurations_are_in_the_table() -> None:
    recorded = [*lines(), *lines(data="b")[:-1], *lines(data="c", seeds=1)[:-1]]
    table = tabulate(recorded, epochs=EPOCHS)
    assert list(table["tasks"]) == ["a", "b"]
    assert table["task_a"].shape == (2, 12, EPOCHS, len(METRICS))
    assert table["task_b"].shape == (1, 12, EPOCHS, len(METRICS))
    with pytest.raises(ValueError, match="no data set has all configurations"):
        tabulate([line for line in recorded if line["data"] == "a" or line["configuration"] < 5][1:11], epochs=EPOCHS)


def test_a_training_that_broke_off_is_not_a_number_from_there(tmp_path: Path) -> None:
    recorded = lines()
    recorded[0]["curve"] = recorded[0]["curve"][:2]
    (task,) = load_table(write(tmp_path / "curves.npz", recorded))
    assert np.isfinite(task.scores[0]).tolist() == [True, True, False, False]
    assert task.seconds[0].tolist() == pytest.approx([1.0, 2.0, 3.0, 4.0])


def test_the_nearest_row_is_of_the_same_strategy_and_other_seeds_say_how_good_it_is(task: StrategyTask) -> None:
    trainings = NearestRow(task)
    for row in range(12):
        assert trainings.curve(task.values(row)).row == row
    odd = {**task.values(0), RELATIVE_LEARNING_RATE: 1.4}
    curve = trainings.curve(odd)
    assert task.values(curve.row)["strategy"] == "lora"
    assert curve.test[-1] == pytest.approx(curve.scores[-1] - 0.01 * (1 - 0.5**EPOCHS), abs=1e-6)


def test_a_search_sees_each_row_of_a_strategy_once_before_it_sees_one_again(task: StrategyTask) -> None:
    mine = [row for row in range(12) if task.values(row)["strategy"] == "lora"]
    trainings = NearestUntried(task)
    seen = [trainings.curve(task.values(mine[0])).row for _ in range(len(mine) + 1)]
    assert seen[0] == seen[-1] == mine[0]
    assert sorted(seen[:-1]) == mine
    apart = ((task.units[seen[:-1]] - task.units[mine[0]]) ** 2).sum(axis=1)
    assert (np.diff(apart) >= 0).all()
    other = next(row for row in range(12) if row not in mine)
    assert trainings.curve(task.values(other)).row == other  # those of other strategies are all left
    assert trainings.anew().curve(task.values(mine[3])).row == mine[3]


@pytest.mark.parametrize("relative", [True, False])
def test_what_is_proposed_is_the_configuration_that_is_looked_up(task: StrategyTask, relative: bool) -> None:
    question = as_studied(task, relative=relative)
    random = np.random.default_rng(1)
    for values in [*task.recipes(), *(draw(task, random) for _ in range(20))]:
        proposal = question.proposal(values)
        strategy = str(proposal.pop("strategy"))
        found = question.recorded(strategy, question.space.absolute(strategy, proposal))
        assert found.keys() == values.keys()
        assert task.unit(found) == pytest.approx(task.unit(values), abs=1e-9)


def test_the_strategies_bring_their_recipes_whatever_other_tasks_say(task: StrategyTask) -> None:
    setting = Setting(task=task, others=[task], seed=0, trainings=5, workers=2, arm="strategy")
    assert setting.portfolio(8) == task.recipes()
    assert setting.portfolio(0) == setting.learnt(0) == []
    assert {str(values["strategy"]) for values in setting.learnt(3)} == {"lora", "full"}


def test_what_is_better_for_its_seconds_is_drawn_more_often(task: StrategyTask) -> None:
    study = optuna.create_study(direction="maximize")
    choices: dict[str, Any] = {"strategy": optuna.distributions.CategoricalDistribution(["lora", "full"])}
    for place in range(20):
        strategy = "lora" if place % 2 else "full"
        study.add_trial(
            optuna.create_trial(
                params={"strategy": strategy}, distributions=choices, value=place + 10.0 * (strategy == "lora")
            )
        )
    lora, full = expected_gains(study, names=["lora", "full"])
    assert lora > 2 * full > 0

    def _drawn(cost: float) -> int:
        search = ThriftySearch(
            as_studied(task, relative=True),
            epochs=EPOCHS,
            search=SearchSpec(seed=0),
            recipes=task.recipes(),
            costs={"lora": cost, "full": 1.0},
            power=1.0,
        )
        jobs = []
        for _ in range(40):
            jobs.append(search.ask())
            search.end(jobs[-1].trial, outcome=Outcome.COMPLETE, score=0.5)
        return sum(job.values["strategy"] == "lora" for job in jobs)

    assert _drawn(0.01) > 30
    assert _drawn(100.0) < 25


def test_searches_are_compared_on_it(tmp_path: Path) -> None:
    plan = Comparison(
        table=write(tmp_path / "curves.npz", [*lines(), *lines(data="b")]),
        methods=[
            "random",
            "1 epoch, then top K",
            STOCK,
            "portfolio only",
            "ours with learnt recipes",
            "ours with gain per second",
            "Syne Tune ASHA",
        ],
        tasks=(),
        seeds=1,
        workers=2,
        lookup="auto",
        against=STOCK,
    )
    result = compare(plan)
    assert (result["lookup"], result["left_out"], result["tasks"]) == ("untried", ["Syne Tune ASHA"], ["a", "b"])
    assert all(cell["found"][-1] is not None for row in result["cells"].values() for cells in row for cell in cells)
