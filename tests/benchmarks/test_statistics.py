"""What the benchmark says about many replays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.replay.statistics import first_as_good, holm, interval, normalised_regret, summarise, wilcoxon
from benchmarks.search_quality import main


def test_regret_is_a_share_of_the_way_to_the_best() -> None:
    assert normalised_regret(0.9, best=0.9, reference=0.5) == 0.0
    assert normalised_regret(0.8, best=0.9, reference=0.5) == pytest.approx(0.25)
    assert normalised_regret(None, best=0.9, reference=0.5) == 1.0


def test_many_tests_are_corrected_for() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.9]) == [1.0, 1.0]


def test_equal_methods_do_not_differ() -> None:
    cells = np.array([0.1, 0.2, 0.3])
    assert wilcoxon(cells, cells) == 1.0


def test_the_interval_is_wider_where_tasks_differ_than_where_seeds_do() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(size=(6, 10))
    by_task = np.repeat(random.normal(size=(6, 1)), 10, axis=1)
    low, high = interval(noise)
    assert low < noise.mean() < high
    wide = interval(by_task)
    assert wide[1] - wide[0] > 1.5 * (high - low)


def test_the_first_moment_at_the_goal_is_what_is_needed() -> None:
    regrets = np.array([0.9, 0.5, 0.2, 0.2])
    assert first_as_good(regrets, moments=(1.0, 2.0, 3.0, 4.0), goal=0.2) == 3.0
    assert first_as_good(regrets, moments=(1.0, 2.0, 3.0, 4.0), goal=0.1) is None


def test_ranks_wins_and_tests_are_paired() -> None:
    random = np.random.default_rng(1)
    stock = random.random((4, 10))
    summaries = summarise({"stock": stock, "better": stock - 0.01, "same": stock}, against="stock")
    assert [summaries[name].rank for name in ("stock", "better", "same")] == [2.5, 1.0, 2.5]
    assert (summaries["better"].wins, summaries["better"].losses) == (40, 0)
    assert summaries["better"].p is not None
    assert summaries["better"].p < 1e-6
    assert (summaries["same"].p, summaries["stock"].p) == (1.0, None)
    assert summaries["better"].mean == pytest.approx(stock.mean() - 0.01)


def test_the_benchmark_prints_a_table_and_writes_its_cells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    table, results = tmp_path / "table.npz", tmp_path / "results.json"
    losses = np.sort(random.uniform(0.2, 0.7, (40, 9)), axis=1)[:, ::-1]
    arrays: dict[str, Any] = {f"{task}|{part}": losses for task in ("a", "b") for part in ("valid", "test")}
    np.savez(table, tasks=["a", "b"], hp_names=["x", "y"], configs=random.random((40, 2)), **arrays)
    methods = ["random", "1 epoch, then top K", "stock Optuna", "portfolio only", "ours"]
    options = ["--table", str(table), "--seeds", "2", "--lookup", "nearest", "--json", str(results)]
    assert main([*options, "--methods", *methods]) == 0
    with pytest.raises(ValueError, match="has none of the tasks c"):
        main([*options, "--tasks", "c"])
    (result,) = json.loads(results.read_text(encoding="utf-8"))
    printed = capsys.readouterr().out
    for name in methods:
        assert np.shape(result["cells"][name]) == (2, 2)
        at = [result["regret"]["worst"][str(budget)][name]["mean"] for budget in (5, 10, 20, 50)]
        assert 0.0 <= at[3] <= 1.0
        if name != "1 epoch, then top K":  # each of its budgets is a run of its own
            assert at == sorted(at, reverse=True)
        assert any(line.startswith(name) and f"{at[3]:.3f}" in line for line in printed.splitlines())
    # The reference is as good as itself at the end when it improves for the last time.
    needed = result["trainings_needed"]
    last = max(cell["improvements"][-1][0] for row in result["cells"]["stock Optuna"] for cell in row)
    assert needed["stock Optuna"] - 0.25 < last <= needed["stock Optuna"] <= 50
    assert needed["portfolio only"] < needed["stock Optuna"]
    # The recipes of a twin task are the best there are.
    assert result["regret"]["worst"]["10"]["portfolio only"]["mean"] == 0.0
