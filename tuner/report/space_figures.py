"""Figures of the search space: which hyperparameters mattered, and which of their values did well."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from tuner.report.curves import Parameter, Point
from tuner.report.figures import Drawing
from tuner.report.formats import format_score, format_value
from tuner.report.theme import ACCENT, AXIS, INK, MUTED, PAPER, StrategyStyle, new_figure, safe_text
from tuner.study.domains import Value
from tuner.study.names import count_noun

HIGHLIGHTED = 5
"""How many of the best trials stand out among the parallel coordinates."""

ABSENT = -0.13
"""Height at which a trial passes the axis of a hyperparameter that it does not have."""


def draw_importance(shares: Mapping[str, float], *, trials: int) -> Drawing | None:
    """Shares of importance as bars, the largest on top."""
    if not shares:
        return None
    names = [_importance_label(name) for name in shares]
    figure = new_figure(height=70 + 34 * len(shares))
    figure.add_bar(
        x=[round(share, 4) for share in shares.values()],
        y=names,
        orientation="h",
        marker={"color": ACCENT, "cornerradius": 3},
        width=0.62,
        text=[f"{share * 100:.0f} %" for share in shares.values()],
        textposition="outside",
        cliponaxis=False,
        textfont={"color": INK},
        hovertemplate="%{y}: %{text}<extra></extra>",
    )
    figure.update_yaxes(autorange="reversed", showgrid=False, ticks="", tickfont={"color": INK})
    figure.update_xaxes(tickformat=".0%", range=[0, 1.14 * max(shares.values())], nticks=5)
    top = list(shares.items())[:3]
    listed = ", ".join(f"{name} {share * 100:.0f} %" for name, share in top)
    caption = f"What the best trials have in common that others do not (PED-ANOVA over {trials} trials): {listed}. " + (
        "With so few trials read it as a hint." if trials < 50 else "It says what mattered, not which value is best."
    )
    return Drawing(key="importance", title="Importance", caption=caption, figure=figure)


def draw_slice(
    parameter: Parameter, points: Sequence[Point], *, metric: str, maximize: bool, style: StrategyStyle, key: str
) -> Drawing | None:
    """The result against one hyperparameter; pruned trials are crosses on the bottom edge."""
    having = [point for point in points if parameter.name in point.params]
    complete = [point for point in having if not point.pruned]
    pruned = [point for point in having if point.pruned]
    if not complete:
        return None
    figure = new_figure(y_title=metric, height=300)
    values = [point.value for point in complete]
    span = (max(values) - min(values)) or abs(max(values)) * 0.1 or 1.0
    floor = min(values) - 0.16 * span
    for strategy in dict.fromkeys(point.strategy for point in complete):
        mine = [point for point in complete if point.strategy == strategy]
        _slice_points(figure, parameter, mine, y=[point.value for point in mine]).update(
            name=safe_text(strategy, limit=24),
            marker={
                "symbol": style.symbol(strategy),
                "size": 9 if len(points) < 150 else 5,
                "color": style.colour(strategy),
                "opacity": 0.85,
                "line": {"width": 1, "color": PAPER},
            },
        )
    if pruned:
        colours = [style.colour(point.strategy) for point in pruned]
        _slice_points(figure, parameter, pruned, y=[floor] * len(pruned)).update(
            name="pruned",
            marker={"symbol": "x-thin", "size": 7, "line": {"width": 1.5, "color": colours}, "color": colours},
        )
    figure.update_yaxes(range=[floor - 0.1 * span, max(values) + 0.1 * span])
    figure.update_layout(showlegend=False)
    if parameter.options:
        count = len(parameter.options)
        labels = [_category(option) for option in parameter.options]
        figure.update_xaxes(tickvals=list(range(count)), ticktext=labels, range=[-0.5, count - 0.5])
    elif parameter.log:
        ticks = log_ticks(parameter.low, parameter.high)
        figure.update_xaxes(type="log", tickvals=ticks, ticktext=[format_value(tick) for tick in ticks])
    best = (max if maximize else min)(complete, key=lambda point: point.value)
    caption = (
        f"{parameter.name}: the best of {count_noun(len(complete), 'complete trial')}, {format_score(best.value)}, "
        f"is at {format_value(best.params[parameter.name])} ({best.strategy})."
    )
    return Drawing(key=key, title=parameter.name, caption=caption, figure=figure)


def draw_parallel(
    points: Sequence[Point], parameters: Sequence[Parameter], *, metric: str, maximize: bool, style: StrategyStyle
) -> Drawing | None:
    """One line a trial through its values; the best few stand out.

    Plotly's own parallel coordinates (and so Optuna's) need WebGL and generated code, which the page's security policy
    forbids, and leave out every trial that lacks one of the axes. Here a line passes below an axis it does not have.
    """
    complete = [point for point in points if not point.pruned]
    if len(complete) < 2 or not parameters:
        return None
    best = sorted(complete, key=lambda point: -point.value if maximize else point.value)[:HIGHLIGHTED]
    values = [point.value for point in complete]
    result = Parameter(name=metric, log=False, options=(), low=min(values), high=max(values))
    axes = [*parameters, result]
    figure = new_figure(height=420)
    faint = 0.45 if len(complete) <= 60 else 0.2
    for strategy in dict.fromkeys(point.strategy for point in complete):
        mine = [point for point in complete if point.strategy == strategy]
        for chosen, opacity, width in ((False, faint, 1.2), (True, 1.0, 2.6)):
            lines = [point for point in mine if (point in best) is chosen]
            if lines:
                _parallel_lines(figure, lines, axes=axes, name=strategy).update(
                    opacity=opacity,
                    line={"color": style.colour(strategy), "width": width},
                    legendgroup=style.group(strategy),
                    showlegend=False,
                )
    style.legend(figure, dict.fromkeys(point.strategy for point in complete), line_width=2.6)
    for position, axis in enumerate(axes):
        _parallel_axis(figure, axis, position=position)
    figure.update_xaxes(visible=False, range=[-0.35, len(axes) - 0.45])
    figure.update_yaxes(visible=False, range=[-0.2, 1.16])
    figure.update_layout(margin={"t": 8, "b": 0})
    caption = (
        f"One line for each of {count_noun(len(complete), 'complete trial')}, from its values to its {metric}; the best "
        f"{len(best)} are drawn strongly. A line passes below the axis of a hyperparameter that its strategy lacks."
    )
    return Drawing(
        key="parallel",
        title="All values at once",
        caption=caption,
        figure=figure,
        min_width=max(560, 130 * len(axes)),
    )


def log_ticks(low: float, high: float) -> list[float]:
    """At most six round positions on a logarithmic axis, with a step of a factor of 3, 10, 100 or more.

    Args:
        low: Smallest value shown, above zero.
        high: Largest value shown.
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    fine = [digit * 10.0**power for power in range(first, last + 1) for digit in (1, 3)]
    inside = [tick for tick in fine if low / 1.3 <= tick <= high * 1.3]
    if len(inside) <= 5:
        return inside
    step = 1 + (last - first) // 6
    return [10.0**power for power in range(first, last + 1, step) if low / 1.3 <= 10.0**power <= high * 1.3]


def _parallel_lines(figure: go.Figure, points: Sequence[Point], *, axes: Sequence[Parameter], name: str) -> go.Scatter:
    x: list[float | None] = []
    y: list[float | None] = []
    numbers: list[int | None] = []
    for point in points:
        for position, axis in enumerate(axes):
            value = point.value if position == len(axes) - 1 else point.params.get(axis.name)
            x.append(position)
            y.append(ABSENT if value is None else round(axis.position(value), 4))
            numbers.append(point.number)
        x.append(None)
        y.append(None)
        numbers.append(None)
    figure.add_scatter(
        x=x,
        y=y,
        customdata=numbers,
        mode="lines",
        name=safe_text(name, limit=24),
        hovertemplate="trial %{customdata}<extra>%{fullData.name}</extra>",
    )
    return figure.data[-1]


def _parallel_axis(figure: go.Figure, axis: Parameter, *, position: int) -> None:
    figure.add_shape(type="line", x0=position, x1=position, y0=0, y1=1, line={"color": AXIS, "width": 1})
    figure.add_annotation(
        x=position,
        y=1.1,
        text=f"<b>{safe_text(axis.name, limit=18)}</b>",
        showarrow=False,
        font={"size": 12, "color": INK},
    )
    if axis.options:
        shown = axis.options if len(axis.options) <= 8 else (axis.options[0], axis.options[-1])
        ticks = [(axis.position(option), safe_text(format_value(option), limit=12)) for option in shown]
    elif axis.high == axis.low:
        ticks = [(0.5, format_value(axis.low))]
    else:
        middle = (axis.low * axis.high) ** 0.5 if axis.log else (axis.low + axis.high) / 2
        ticks = [(axis.position(value), format_value(float(value))) for value in (axis.low, middle, axis.high)]
    for height, text in ticks:
        figure.add_annotation(
            x=position,
            y=height,
            text=text,
            showarrow=False,
            xanchor="left",
            xshift=5,
            font={"size": 11, "color": MUTED},
            bgcolor=PAPER,
            borderpad=1,
            opacity=0.9,
        )


def _slice_points(
    figure: go.Figure, parameter: Parameter, points: Sequence[Point], *, y: Sequence[float]
) -> go.Scatter:
    values = [point.params[parameter.name] for point in points]
    x: list[Value] = list(values)
    if parameter.options:
        # Trials with the same choice are spread a little, always in the same way, so that none hides another.
        spread = [0.4 * ((point.number * 0.618034) % 1.0 - 0.5) for point in points]
        x = [round(parameter.options.index(v) + offset, 3) for v, offset in zip(values, spread, strict=True)]
    figure.add_scatter(
        x=x,
        y=[round(value, 6) for value in y],
        customdata=[
            [point.number, format_score(point.value), _category(value)]
            for point, value in zip(points, values, strict=True)
        ],
        mode="markers",
        hovertemplate="trial %{customdata[0]}: %{customdata[1]} at %{customdata[2]}<extra>%{fullData.name}</extra>",
    )
    return figure.data[-1]


def _category(value: Value) -> str:
    return safe_text(format_value(value), limit=20)


def _importance_label(name: str) -> str:
    """The learning rate is measured relative to each strategy's default."""
    return "learning_rate (relative)" if name == "learning_rate" else safe_text(name, limit=26)
