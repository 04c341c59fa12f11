"""The front of a study with several objectives: one figure for each further objective against the first."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from tuner.report.figures import Drawing
from tuner.report.theme import INK, MUTED, PAPER, StrategyStyle, new_figure, safe_text
from tuner.store.fronts import Front, FrontMember, facts_of
from tuner.store.records import Outcome, TrialRecord
from tuner.study.constraints import Constraint, show_fact
from tuner.study.costs import COSTS
from tuner.study.names import count_noun
from tuner.study.spec import ObjectiveSpec

_WIDE = 20.0  # largest over smallest value from which on an axis is logarithmic


def draw_fronts(
    front: Front | None,
    *,
    trials: Sequence[TrialRecord],
    constraints: Sequence[Constraint],
    style: StrategyStyle,
) -> list[Drawing]:
    """What each further objective is traded for; nothing where one objective counts or no trial is complete.

    Args:
        front: The front and what it dominates.
        trials: All trials: those that broke a constraint after they had a value are shown as crosses.
        constraints: Their bounds are drawn.
        style: Colours of the strategies.
    """
    if front is None or not front.members:
        return []
    broken = [trial for trial in trials if trial.outcome is Outcome.INFEASIBLE and trial.best_epoch is not None]
    return [
        _draw(front, place, broken=broken, constraints=constraints, style=style)
        for place in range(1, len(front.objectives))
    ]


def _draw(
    front: Front, place: int, *, broken: Sequence[TrialRecord], constraints: Sequence[Constraint], style: StrategyStyle
) -> Drawing:
    across, up = front.objectives[place], front.objectives[0]
    figure = new_figure(x_title=f"{across.metric}{_unit(across)}", y_title=up.metric, height=420)
    _lost(figure, front, place, broken=broken)
    _members(figure, front, place, style=style)
    for constraint in constraints:
        line = {"line": {"color": INK, "width": 1, "dash": "dash"}}
        if constraint.name == across.metric:
            figure.add_vline(x=constraint.bound, **line)
        elif constraint.name == up.metric:
            figure.add_hline(y=constraint.bound, **line)
    sizes = [values[place] for _, values in front.dominated] + [member.values[place] for member in front.members]
    if across.metric in COSTS and min(sizes) > 0 and max(sizes) / min(sizes) > _WIDE:
        figure.update_xaxes(type="log", exponentformat="SI", dtick=1 if max(sizes) / min(sizes) > 100 else "D2")
    else:
        figure.update_xaxes(exponentformat="SI", nticks=6)
    return Drawing(
        key=f"front-{place}",
        title=f"{up.metric} against {across.metric}",
        caption=_caption(front, place) + _bounds(constraints, (across, up)),
        figure=figure,
    )


def _lost(figure: go.Figure, front: Front, place: int, *, broken: Sequence[TrialRecord]) -> None:
    """What is dominated, and what broke a constraint."""
    across, up = front.objectives[place], front.objectives[0]
    points = [(trial, values[place], values[0]) for trial, values in front.dominated]
    if points:
        figure.add_scatter(
            x=[x for _, x, _ in points],
            y=[y for *_, y in points],
            customdata=[_words(trial, x, across) for trial, x, _ in points],
            name="dominated",
            mode="markers",
            marker={"symbol": "circle", "size": 6, "color": MUTED, "opacity": 0.45},
            hovertemplate="%{customdata}: %{y:.4f}<extra>dominated</extra>",
        )
    crossed = [(trial, facts) for trial in broken if {across.metric, up.metric} <= (facts := facts_of(trial)).keys()]
    if crossed:
        figure.add_scatter(
            x=[facts[across.metric] for _, facts in crossed],
            y=[facts[up.metric] for _, facts in crossed],
            customdata=[_words(trial, facts[across.metric], across) for trial, facts in crossed],
            name="breaks a constraint",
            mode="markers",
            marker={"symbol": "x-thin", "size": 9, "color": MUTED, "line": {"width": 2, "color": MUTED}},
            hovertemplate="%{customdata}: %{y:.4f}<extra>breaks a constraint</extra>",
        )


def _members(figure: go.Figure, front: Front, place: int, *, style: StrategyStyle) -> None:
    """The front in the strategies' colours, a line along it where two objectives count, and a ring around the knee."""
    across = front.objectives[place]
    members = sorted(front.members, key=lambda member: member.values[place])
    if len(front.objectives) == 2:
        figure.add_scatter(
            x=[member.values[place] for member in members],
            y=[member.values[0] for member in members],
            name="front",
            mode="lines",
            line={"shape": "hv", "width": 1.5, "color": MUTED, "dash": "dot"},
            hoverinfo="skip",
            showlegend=False,
        )
    figure.add_scatter(
        x=[member.values[place] for member in members],
        y=[member.values[0] for member in members],
        customdata=[_words(member.trial, member.values[place], across) for member in members],
        mode="markers",
        marker={
            "symbol": [style.symbol(member.trial.strategy) for member in members],
            "size": 12,
            "color": [style.colour(member.trial.strategy) for member in members],
            "line": {"width": 1, "color": PAPER},
        },
        name="front",
        showlegend=False,
        cliponaxis=False,
        hovertemplate="%{customdata}: %{y:.4f}<extra>front</extra>",
    )
    style.legend(figure, [member.trial.strategy for member in members])
    if front.knee is not None:
        figure.add_scatter(
            x=[front.knee.values[place]],
            y=[front.knee.values[0]],
            name="knee",
            mode="markers",
            marker={"symbol": "circle-open", "size": 22, "color": INK, "line": {"width": 2, "color": INK}},
            cliponaxis=False,
            hoverinfo="skip",
        )


def _caption(front: Front, place: int) -> str:
    across, up = front.objectives[place], front.objectives[0]
    others = len(front.dominated)
    shown = f"The front has {count_noun(len(front.members), 'trial')}"
    shown += f"; {others} more {'is' if others == 1 else 'are'} dominated (grey)" if others else ""
    ends = [("Best by " + up.metric, front.members[0])]
    cheapest = (min if across.goal == "minimize" else max)(front.members, key=lambda member: member.values[place])
    if cheapest is not front.members[0]:
        ends.append((f"best by {across.metric}", cheapest))
    if front.knee is not None and front.knee not in (front.members[0], cheapest):
        ends.append(("the knee (ring)", front.knee))
    words = [f"{name}: {_member(member, place, front)}" for name, member in ends]
    return f"{shown}. {'; '.join(words)}."


def _member(member: FrontMember, place: int, front: Front) -> str:
    across, up = front.objectives[place], front.objectives[0]
    return (
        f"trial {member.trial.number} ({member.trial.strategy}) with {up.metric} {show_fact(up.metric, member.values[0])} "
        f"and {across.metric} {show_fact(across.metric, member.values[place])}"
    )


def _words(trial: TrialRecord, value: float, objective: ObjectiveSpec) -> str:
    return f"trial {trial.number} {safe_text(trial.strategy, limit=24)}, {show_fact(objective.metric, value)}"


def _unit(objective: ObjectiveSpec) -> str:
    return {"seconds": " (device seconds)", "peak_memory": " (bytes)"}.get(objective.metric, "")


def _bounds(constraints: Sequence[Constraint], axes: Sequence[ObjectiveSpec]) -> str:
    drawn = [one.text for one in constraints if one.name in {axis.metric for axis in axes}]
    return f" Dashed: {', '.join(drawn)}." if drawn else ""
