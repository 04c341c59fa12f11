"""The figures of the report: each function draws one computed record and says in words what it shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from tuner.report.comparison import StrategyRow
from tuner.report.curves import BestSoFar, LearningCurve, cut_confusion, top_confusions
from tuner.report.formats import format_score, format_seconds
from tuner.report.theme import INK, MATRIX_SCALE, MUTED, PAPER, StrategyStyle, new_figure, safe_text, shorten_middle
from tuner.report.verdict import FinalistScore
from tuner.store.records import Outcome
from tuner.study.names import count_noun
from tuner.study.plan import Confusion

MOST_CLASSES = 30
"""Classes in the confusion matrix: of more, those with the most mistakes."""
MOST_NAMED = 6
"""Strategies that a caption names: of more, the best."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """A figure and what it says.

    Attributes:
        key: Its name in the page, letters and hyphens.
        title: Its heading.
        caption: What it shows, in words; also its text alternative.
        figure: The Plotly figure in the light colours.
        min_width: Pixels below which it scrolls in its own box instead of shrinking.
    """

    key: str
    title: str
    caption: str
    figure: go.Figure
    min_width: int = 0


def draw_finalists(
    finalists: Sequence[FinalistScore], *, metric: str, maximize: bool, style: StrategyStyle
) -> Drawing | None:
    """Each finalist's claimed value, the fresh scores that choose and the test scores, one dot a seed."""
    shown = [score for score in finalists if score.mean is not None]
    if not shown:
        return None
    labels = [
        f"{'recipe ' if score.is_baseline else ''}#{score.trial.number} {score.trial.strategy}" for score in shown
    ]
    rows = [safe_text(label, limit=24) for label in labels]
    judged = "held back rows" if any(score.held_back for score in shown) else "validation"
    judged = "the other folds" if any(score.folds for score in shown) else judged
    figure = new_figure(x_title=metric, height=150 + 56 * len(shown))
    _dots(
        figure,
        "claimed by the search",
        rows=[
            (row, [score.trial.value if score.trial.outcome is Outcome.COMPLETE else None])
            for row, score in zip(rows, shown, strict=True)
        ],
        marker={"symbol": "diamond-open", "size": 10, "color": MUTED, "line": {"width": 1.5}},
    )
    _dots(
        figure,
        f"{judged}, fresh seed",
        rows=[(row, score.judged) for row, score in zip(rows, shown, strict=True)],
        marker={"symbol": "circle-open", "size": 9, "color": MUTED, "line": {"width": 1.5}},
    )
    if any(score.test for score in shown):
        colours = [style.colour(score.trial.strategy) for score in shown for _ in score.test]
        _dots(
            figure,
            "test, fresh seed",
            rows=[(row, score.test) for row, score in zip(rows, shown, strict=True)],
            marker={"symbol": "circle", "size": 11, "color": colours, "line": {"width": 1, "color": PAPER}},
        )
        _dots(
            figure,
            "test, mean",
            rows=[(row, [score.test_mean]) for row, score in zip(rows, shown, strict=True)],
            marker={"symbol": "line-ns-open", "size": 24, "color": INK, "line": {"width": 2.5, "color": INK}},
        )
    figure.update_yaxes(autorange="reversed", showgrid=False, type="category", tickfont={"color": INK})
    first = shown[0]
    which = "test score" if first.test else f"fresh-seed score on {judged}"
    mean, claimed = first.final_mean, first.trial.value
    caption = f"{count_noun(len(shown), 'finalist')}, the best mean on {judged} on top. Its mean {which} is {format_score(mean)}"
    if first.trial.outcome is Outcome.COMPLETE:
        caption += f"; the search had claimed {format_score(claimed)}"
        if claimed is not None and mean is not None and (claimed > mean if maximize else claimed < mean):
            caption += (
                ". The distance from the diamond to the circles is what choosing the luckiest of many trials adds"
            )
    caption += "."
    return Drawing(key="finalists", title="Finalists, seed by seed", caption=caption, figure=figure)


def draw_strategies(
    rows: Sequence[StrategyRow], *, values: Mapping[str, Sequence[float]], metric: str, style: StrategyStyle
) -> Drawing | None:
    """The strategies one below the other, the best on top: every complete trial, the default recipe, the best.

    Args:
        rows: The strategies, best first.
        values: The complete trials' values of each.
        metric: The objective's metric.
        style: Colours of the strategies.
    """
    ended = [row for row in rows if row.best is not None and row.best.value is not None]
    if not ended:
        return None
    labels = {row.strategy: safe_text(row.strategy, limit=28) for row in ended}
    figure = new_figure(x_title=metric, height=120 + 26 * len(ended))
    colours = [style.colour(row.strategy) for row in ended for _ in values.get(row.strategy, ())]
    _dots(
        figure,
        "each trial",
        rows=[(labels[row.strategy], values.get(row.strategy, ())) for row in ended],
        marker={"symbol": "circle", "size": 6, "color": colours, "opacity": 0.45},
    )
    _dots(
        figure,
        "default recipe",
        rows=[(labels[row.strategy], [row.recipe]) for row in ended],
        marker={"symbol": "diamond-open", "size": 10, "color": MUTED, "line": {"width": 1.5}},
    )
    _dots(
        figure,
        "best",
        rows=[(labels[row.strategy], [row.best.value if row.best else None]) for row in ended],
        marker={
            "symbol": "circle",
            "size": 11,
            "color": [style.colour(row.strategy) for row in ended],
            "line": {"width": 1, "color": PAPER},
        },
    )
    figure.update_yaxes(autorange="reversed", type="category", tickfont={"color": INK}, dtick=1)
    figure.update_layout(legend={"itemsizing": "constant"})
    named = [f"{row.strategy} {format_score(row.best.value if row.best else None)}" for row in ended[:MOST_NAMED]]
    which = f"; the first {len(named)} of {len(ended)}" if len(named) < len(ended) else ""
    caption = f"Validation {metric} of every complete trial, the strategy with the best one on top{which}: {', '.join(named)}."
    return Drawing(key="strategies", title="Strategies, trial by trial", caption=caption, figure=figure)


def draw_best(
    traces: Sequence[BestSoFar], *, against: str, metric: str, maximize: bool, style: StrategyStyle
) -> Drawing | None:
    """Best value so far of each strategy.

    Args:
        traces: One for each strategy with a complete trial.
        against: ``trials`` or ``seconds``: what the x axis counts.
        metric: The objective's metric.
        maximize: Whether more of it is better.
        style: Colours of the strategies.
    """
    if not traces:
        return None
    title = "trials of the strategy" if against == "trials" else "device seconds spent on the strategy"
    figure = new_figure(x_title=title, y_title=metric, height=380)
    for trace in sorted(traces, key=lambda trace: style.has_own(trace.strategy)):  # the grey ones lie below
        x: Sequence[float] = trace.trials if against == "trials" else trace.seconds
        figure.add_scatter(
            x=_rounded(x),
            y=_rounded(trace.values),
            customdata=trace.numbers,
            name=safe_text(trace.strategy, limit=24),
            legendgroup=style.group(trace.strategy),
            showlegend=False,
            mode="lines+markers",
            line={"shape": "hv", "width": 2, "color": style.colour(trace.strategy)},
            marker={"symbol": style.symbol(trace.strategy), "size": _step_sizes(trace), "opacity": 1},
            hovertemplate="%{y:.4f} after %{x:.4~g}<br>held by trial %{customdata}<extra>%{fullData.name}</extra>",
        )
    style.legend(figure, [trace.strategy for trace in traces], line_width=2)
    figure.update_xaxes(rangemode="tozero")
    if against == "trials":
        most = max(trace.trials[-1] for trace in traces)
        figure.update_xaxes(tickformat="d", dtick=1 if most <= 10 else None)
    best = sorted(traces, key=lambda trace: -trace.values[-1] if maximize else trace.values[-1])[:MOST_NAMED]
    ends = [f"{trace.strategy} {format_score(trace.values[-1])} in {_spent(trace, against)}" for trace in best]
    what = "number of its trials" if against == "trials" else "device time spent on it"
    which = f", the first {len(best)} of {len(traces)}" if len(best) < len(traces) else ""
    caption = f"Best validation value of each strategy against the {what}{which}: {'; '.join(ends)}."
    name = "trials" if against == "trials" else "device time"
    return Drawing(key=f"best-{against}", title=f"Best so far against {name}", caption=caption, figure=figure)


def draw_learning(curves: Sequence[LearningCurve], *, metric: str, style: StrategyStyle) -> Drawing | None:
    """Every trial's curve in its strategy's colour, a cross where it was pruned, a ring where it was resumed."""
    if not curves:
        return None
    figure = new_figure(x_title="epoch", y_title=metric, height=440)
    width, opacity = (1.8, 0.8) if len(curves) <= 60 else (1.0, 0.35)
    strategies = sorted(dict.fromkeys(curve.strategy for curve in curves), key=style.has_own)
    for strategy in strategies:
        x: list[int | None] = []
        y: list[float | None] = []
        numbers: list[int | None] = []
        for curve in curves:
            if curve.strategy == strategy:
                x += [*curve.epochs, None]
                y += [*_rounded(curve.values), None]
                numbers += [curve.number] * len(curve.epochs) + [None]
        single = all(len(curve.epochs) == 1 for curve in curves if curve.strategy == strategy)
        figure.add_scatter(
            x=x,
            y=y,
            customdata=numbers,
            name=safe_text(strategy, limit=24),
            legendgroup=style.group(strategy),
            showlegend=False,
            mode="lines+markers" if single or len(curves) <= 60 else "lines",
            opacity=opacity,
            line={"width": width, "color": style.colour(strategy)},
            marker={"symbol": style.symbol(strategy), "size": 4},
            hovertemplate="trial %{customdata}, epoch %{x}: %{y:.4f}<extra>%{fullData.name}</extra>",
        )
    style.legend(figure, dict.fromkeys(curve.strategy for curve in curves), line_width=2)
    pruned = [curve for curve in curves if curve.outcome is Outcome.PRUNED]
    resumed = [(curve, epoch) for curve in curves for epoch in curve.resumed if epoch in curve.epochs]
    ends = [(curve.number, curve.epochs[-1], curve.values[-1], style.colour(curve.strategy)) for curve in pruned]
    _marks(figure, "pruned", marks=ends, marker={"symbol": "x-thin", "size": 9, "line": {"width": 2}})
    rings = [(c.number, epoch, c.values[c.epochs.index(epoch)], INK) for c, epoch in resumed]
    _marks(figure, "resumed", marks=rings, marker={"symbol": "circle-open", "size": 13, "line": {"width": 1.5}})
    figure.update_xaxes(tickformat="d", dtick=1 if max(curve.epochs[-1] for curve in curves) <= 15 else None)
    restarts = (
        count_noun(len({curve.number for curve, _ in resumed}), "trial") + " resumed after an interruption (ring)"
    )
    caption = (
        f"Validation {metric} after every epoch of {count_noun(len(curves), 'trial')}: "
        f"{len(pruned)} pruned (cross)" + (f", {restarts}." if resumed else ".")
    )
    return Drawing(key="learning", title="Learning curves", caption=caption, figure=figure)


def draw_confusion(confusion: Confusion, *, where: str, winner: str) -> Drawing | None:
    """Rows by true and predicted class; the colour is the share of the true class, the text the count."""
    if not any(map(sum, confusion.counts)):
        return None
    totals = dict(zip(confusion.labels, map(sum, confusion.counts), strict=True))
    shown = cut_confusion(confusion, classes=MOST_CLASSES)
    labels = [safe_text(shorten_middle(label, limit=22)) for label in shown.labels]
    size = len(labels)
    figure = new_figure(x_title="predicted", y_title="true", height=170 + max(24 * size, 240))
    figure.add_heatmap(
        z=[
            [round(count / max(1, totals[label]), 4) for count in row]
            for label, row in zip(shown.labels, shown.counts, strict=True)
        ],
        x=list(range(size)),
        y=list(range(size)),
        customdata=[
            [[labels[i], labels[j], count] for j, count in enumerate(row)] for i, row in enumerate(shown.counts)
        ],
        text=[[str(count) if count else "" for count in row] for row in shown.counts],
        texttemplate="%{text}",
        textfont={"size": 12 if size <= 12 else 10},
        zmin=0,
        zmax=1,
        colorscale=[[index / (len(MATRIX_SCALE) - 1), colour] for index, colour in enumerate(MATRIX_SCALE)],
        colorbar={"tickformat": ".0%", "thickness": 10, "outlinewidth": 0, "len": 0.9, "tickfont": {"color": MUTED}},
        xgap=1,
        ygap=1,
        hovertemplate="true %{customdata[0]}, predicted %{customdata[1]}: %{customdata[2]} rows, %{z:.1%}<extra></extra>",
    )
    # Positions, not names, on the axes: two long labels may be cut to the same text.
    ticks = {"tickvals": list(range(size)), "ticktext": labels, "showgrid": False, "showline": False}
    small = {"tickfont": {"size": 11 if size <= 20 else 10}, "tickcolor": "rgba(0,0,0,0)", "ticklen": 6}
    figure.update_xaxes(**ticks, **small, tickangle=-45)
    figure.update_yaxes(**ticks, **small, autorange="reversed")
    caption = _describe_confusion(confusion, where=where, winner=winner)
    if size < len(confusion.labels):
        caption += f" Shown are the {size} of {len(confusion.labels)} classes with the most mistakes."
    width = min(1000, 150 + 26 * size) if size > 8 else 0
    return Drawing(key="confusion", title="Mistakes, class by class", caption=caption, figure=figure, min_width=width)


def _describe_confusion(confusion: Confusion, *, where: str, winner: str) -> str:
    rows = sum(map(sum, confusion.counts))
    right = sum(row[index] for index, row in enumerate(confusion.counts))
    caption = f"{winner} on the {where}: {right:,} of {count_noun(rows, 'row')} right. "
    mistakes = [
        f"{true} taken for {predicted} ({count_noun(count, 'row')})"
        for true, predicted, count in top_confusions(confusion, limit=3)
    ]
    return caption + (f"Most frequent mistakes: {'; '.join(mistakes)}." if mistakes else "No mistake.")


def _dots(
    figure: go.Figure, name: str, *, rows: Sequence[tuple[str, Sequence[float | None]]], marker: dict[str, Any]
) -> None:
    figure.add_scatter(
        x=[round(value, 6) for _, values in rows for value in values if value is not None],
        y=[row for row, values in rows for value in values if value is not None],
        name=name,
        mode="markers",
        marker=marker,
        cliponaxis=False,
        hovertemplate="%{y}: %{x:.4f}<extra>%{fullData.name}</extra>",
    )


def _marks(
    figure: go.Figure, name: str, *, marks: Sequence[tuple[int, int, float, str]], marker: dict[str, Any]
) -> None:
    """Marks as (trial, epoch, value, colour), with a legend entry in a neutral colour."""
    if not marks:
        return
    neutral = {**marker, "color": MUTED, "line": {**marker["line"], "color": MUTED}}
    figure.add_scatter(x=[None], y=[None], name=name, legendgroup=name, mode="markers", marker=neutral)
    colours = [colour for *_, colour in marks]
    line = {**marker["line"], "color": colours}
    figure.add_scatter(
        x=[epoch for _, epoch, _, _ in marks],
        y=[round(value, 6) for _, _, value, _ in marks],
        customdata=[number for number, *_ in marks],
        name=name,
        legendgroup=name,
        showlegend=False,
        mode="markers",
        marker={**marker, "color": colours, "line": line},
        hovertemplate="trial %{customdata} " + name + " at epoch %{x}: %{y:.4f}<extra></extra>",
    )


def _step_sizes(trace: BestSoFar) -> list[int]:
    """A marker where the best changed and at the end; between them the line says enough."""
    last = len(trace.numbers) - 1
    changed = [index == 0 or trace.numbers[index] != trace.numbers[index - 1] for index in range(last + 1)]
    return [8 if new else 5 if index == last else 0 for index, new in enumerate(changed)]


def _rounded(values: Sequence[float]) -> list[float]:
    """Six decimals: the page stays small and nobody sees more."""
    return [round(value, 6) for value in values]


def _spent(trace: BestSoFar, against: str) -> str:
    if against == "trials":
        return count_noun(trace.trials[-1], "trial")
    return format_seconds(trace.seconds[-1])
