from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.report.samples import KINDS, make_snapshot
from tuner.report.curves import list_parameters, list_points, trace_best, trace_learning
from tuner.report.figures import (
    MOST_CLASSES,
    Drawing,
    draw_best,
    draw_confusion,
    draw_finalists,
    draw_learning,
    draw_strategies,
)
from tuner.report.space_figures import draw_importance, draw_parallel, draw_slice, log_ticks
from tuner.report.summary import summarise
from tuner.report.theme import DARK, STRATEGY_COLOURS, StrategyStyle, new_figure, safe_text, shorten_middle
from tuner.store.records import Outcome, StudySnapshot
from tuner.study.plan import Confusion

STYLE = StrategyStyle(tuple(KINDS))


@pytest.fixture(scope="module")
def snapshot() -> StudySnapshot:
    return make_snapshot()


def traces(drawing: Drawing | None) -> list[dict[str, Any]]:
    assert drawing is not None
    data: list[dict[str, Any]] = json.loads(drawing.figure.to_json())["data"]
    return data


def test_finalists_show_every_seed(snapshot: StudySnapshot) -> None:
    summary = summarise(snapshot)
    drawing = draw_finalists(summary.finalists, metric="macro_f1", maximize=True, style=STYLE)
    data = {trace["name"]: trace for trace in traces(drawing)}
    assert len(data["test, fresh seed"]["x"]) == 3 * len(summary.finalists)
    assert data["test, mean"]["x"][0] == pytest.approx(summary.finalists[0].test_mean, abs=1e-6)
    assert draw_finalists([], metric="macro_f1", maximize=True, style=STYLE) is None


def test_luck_is_told_of_a_claim_that_was_too_good_alone(snapshot: StudySnapshot) -> None:
    first = summarise(snapshot).finalists[0]
    assert first.final_mean is not None
    for gap in (0.01, -0.01):
        trial = replace(first.trial, value=first.final_mean + gap)
        for maximize in (True, False):
            drawing = draw_finalists([replace(first, trial=trial)], metric="macro_f1", maximize=maximize, style=STYLE)
            assert drawing is not None
            assert ("luckiest" in drawing.caption) == ((gap > 0) == maximize)


def test_strategies_stand_one_below_the_other_the_best_on_top(snapshot: StudySnapshot) -> None:
    rows = summarise(snapshot).strategies
    values = {row.strategy: [row.best.value] for row in rows if row.best and row.best.value is not None}
    data = traces(draw_strategies(rows, values=values, metric="macro_f1", style=STYLE))
    best = next(trace for trace in data if trace["name"] == "best")
    assert best["x"] == sorted(best["x"], reverse=True)
    assert set(best["y"]) == set(values)
    assert draw_strategies([replace(row, best=None) for row in rows], values={}, metric="loss", style=STYLE) is None


def test_every_strategy_keeps_its_colour(snapshot: StudySnapshot) -> None:
    best = traces(draw_best(trace_best(snapshot), against="seconds", metric="macro_f1", maximize=True, style=STYLE))
    learning = traces(draw_learning(trace_learning(snapshot), metric="macro_f1", style=STYLE))
    for data in (best, learning):
        lines = {trace["name"]: trace["line"]["color"] for trace in data if "line" in trace}
        assert lines == {name: STRATEGY_COLOURS[index] for index, name in enumerate(KINDS)}


def test_prunes_and_resumes_are_marked(snapshot: StudySnapshot) -> None:
    data = traces(draw_learning(trace_learning(snapshot), metric="macro_f1", style=STYLE))
    marks = {trace["name"]: trace for trace in data if trace.get("showlegend") is False and "line" not in trace}
    pruned = [trial for trial in snapshot.trials if trial.outcome is Outcome.PRUNED]
    assert sorted(marks["pruned"]["customdata"]) == [trial.number for trial in pruned]
    assert marks["resumed"]["customdata"] == [2, 10]
    assert marks["resumed"]["x"] == [5, 5]


def test_confusion_is_coloured_by_the_true_class() -> None:
    confusion = Confusion(labels=("a", "b"), counts=((3, 1), (0, 0)))
    drawing = draw_confusion(confusion, where="test rows", winner="Trial 1 (lora)")
    assert drawing is not None
    assert traces(drawing)[0]["z"] == [[0.75, 0.25], [0.0, 0.0]]
    assert drawing.caption == (
        "Trial 1 (lora) on the test rows: 3 of 4 rows right. Most frequent mistakes: a taken for b (1 row)."
    )
    empty = Confusion(labels=("a",), counts=((0,),))
    assert draw_confusion(empty, where="test rows", winner="Trial 1 (lora)") is None


def test_a_matrix_of_many_classes_is_cut() -> None:
    size = 200
    counts = tuple(tuple(5 if row == column else int(row < 3) for column in range(size)) for row in range(size))
    confusion = Confusion(labels=tuple(f"class {index}" for index in range(size)), counts=counts)
    drawing = draw_confusion(confusion, where="test rows", winner="Trial 1 (lora)")
    assert drawing is not None
    assert len(traces(drawing)[0]["z"]) == MOST_CLASSES
    assert traces(drawing)[0]["z"][0][0] == pytest.approx(5 / 204, abs=1e-4)  # of the whole class, not of what is shown
    assert "30 of 200 classes" in drawing.caption


def test_slices_and_parallel_coordinates(snapshot: StudySnapshot) -> None:
    points = list_points(snapshot)
    parameters = list_parameters(snapshot, points)
    complete = [point for point in points if not point.pruned]
    own = next(parameter for parameter in parameters if parameter.name == "lora.r")
    data = traces(draw_slice(own, points, metric="macro_f1", maximize=True, style=STYLE, key="slice-0"))
    assert {trace["name"] for trace in data} == {"lora", "pruned"}
    drawn = sum(len(trace["x"]) for trace in data if trace["name"] == "lora")
    assert drawn == sum(point.strategy == "lora" for point in complete)

    parallel = traces(draw_parallel(points, parameters, metric="macro_f1", maximize=True, style=STYLE))
    drawn_numbers = {number for trace in parallel for number in trace.get("customdata", []) if number is not None}
    assert drawn_numbers == {point.number for point in complete}
    best = max(complete, key=lambda point: point.value).number
    strong = [trace for trace in parallel if trace.get("opacity") == 1.0]
    assert any(best in trace["customdata"] for trace in strong)


def test_importance_is_a_bar_for_each_name() -> None:
    (bars,) = traces(draw_importance({"learning_rate": 0.7, "strategy": 0.3}, trials=30))
    assert bars["y"] == ["learning_rate (relative)", "strategy"]
    assert bars["x"] == [0.7, 0.3]
    assert draw_importance({}, trials=30) is None


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (2e-4, 5e-3, [3e-4, 1e-3, 3e-3]),
        (1e-5, 1e-1, [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]),
        (1e-12, 1.0, [1e-12, 1e-9, 1e-6, 1e-3, 1.0]),
    ],
)
def test_log_axes_have_few_round_ticks(low: float, high: float, ticks: list[float]) -> None:
    assert log_ticks(low, high) == pytest.approx(ticks)


def test_every_colour_has_a_dark_counterpart_and_users_text_is_escaped() -> None:
    assert set(STRATEGY_COLOURS) <= set(DARK)
    assert safe_text("<b>&") == "&lt;b&gt;&amp;"
    assert len(safe_text("x" * 500)) == 60
    assert shorten_middle("card_payment_fee_charged", limit=11) == "card_…arged"


def test_of_many_strategies_the_best_have_colours_and_the_others_share_one() -> None:
    names = [str(index) for index in range(20)]
    style = StrategyStyle(names, ranked=["17", "3"])
    own = [name for name in names if style.has_own(name)]
    assert own == ["0", "1", "2", "3", "4", "5", "17"]  # the best two, then the first that were named
    assert len({(style.colour(name), style.symbol(name)) for name in names}) == len(STRATEGY_COLOURS)
    few = StrategyStyle(names[:8])
    assert all(few.has_own(name) for name in names[:8])
    figure = new_figure()
    style.legend(figure, names)
    assert [trace.name for trace in figure.data][-1] == "others"
    assert len(figure.data) == len(STRATEGY_COLOURS)
