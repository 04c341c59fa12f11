"""One HTML file that holds the whole report and asks the network for nothing.

The page allows no script and no style but its own, by their hashes (Content Security Policy); every text of a user is
escaped by the template, by :func:`tuner.report.theme.safe_text` inside figures, and once more in the JSON island.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs

from tuner.contest import TRUST
from tuner.errors import ConflictError, UnavailableError
from tuner.report import formats
from tuner.report.comparison import OUTCOMES, TrialRow
from tuner.report.curves import (
    Point,
    list_parameters,
    list_points,
    pick_confusion,
    strategy_names,
    trace_best,
    trace_learning,
)
from tuner.report.facts import NO_MOVE, name_trial
from tuner.report.figures import (
    Drawing,
    draw_best,
    draw_confusion,
    draw_finalists,
    draw_learning,
    draw_strategies,
)
from tuner.report.front_figure import draw_fronts
from tuner.report.importance import measure_importance
from tuner.report.outlook import spending_words
from tuner.report.space_figures import draw_importance, draw_parallel, draw_slice
from tuner.report.summary import Summary, summarise
from tuner.report.theme import DARK, OTHERS, STRATEGY_COLOURS, StrategyStyle
from tuner.report.verdict import Basis
from tuner.store.fronts import find_front
from tuner.store.records import StudySnapshot
from tuner.study.constraints import read_constraints, show_fact
from tuner.study.names import count_noun

MOST_ROWS = 800
"""Trials in the table of trials: the page stays under 6 MB."""

MOST_CURVES = 600
"""Learning curves, the last ones: more cannot be told apart."""

MOST_POINTS = 800
"""Trials in the figures of the search space: half of them the best, half of them the last."""

MOST_OWN_COLUMNS = 6
"""Columns of the table of best values that only one strategy fills; of more, all share one."""

MOST_SLICES = 12
"""Hyperparameters with a figure of their own, the most tried first."""


def write_page(snapshot: StudySnapshot, path: str | Path) -> Path:
    """Write the report; see :func:`tuner.report.write_report`.

    Raises:
        ConflictError: If ``path`` is a symbolic link or a folder.
        UnavailableError: If its folder does not exist, or the file cannot be written.
    """
    target = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow the link that is refused below
    if target.is_symlink():
        raise ConflictError(f"{target} is a symbolic link", why="a report never writes through one", fix="remove it")
    if target.is_dir():
        raise ConflictError(f"{target} is a folder", fix="name a file in it, such as report.html")
    folder = target.parent
    if not os.path.lexists(folder):
        raise UnavailableError(
            f"cannot write {target}", why=f"the folder {folder} does not exist", fix=f"mkdir -p {folder}"
        )
    text = render_page(snapshot)
    try:
        _replace_file(target, text)
    except OSError as error:
        raise UnavailableError(f"cannot write {target}", why=error.strerror or str(error)) from error
    return target


def render_page(snapshot: StudySnapshot) -> str:
    """The report as HTML text."""
    summary = summarise(snapshot)
    style = StrategyStyle(strategy_names(snapshot), ranked=[row.strategy for row in summary.strategies if row.strategy])
    drawings = draw_all(snapshot, summary, style=style)
    script = _asset("page.js")
    sheet = _asset("page.css") + _strategy_css()
    island = {
        "dark": dict(DARK),
        "figures": {
            drawing.key: json.loads(drawing.figure.to_json()) for group in drawings.values() for drawing in group
        },
    }
    template = _environment().get_template("page.html.j2")
    return template.render(
        summary=summary,
        rows=pick_rows(summary),
        front=find_front(snapshot.trials, spec=snapshot.study.spec),
        thinned=len(summary.trials) > MOST_POINTS,
        study=summary.study,
        spec=summary.study.spec,
        spending=spending_words(snapshot),
        retrained=sum(run.seconds > 0.0 for finalist in snapshot.finalists for run in finalist.runs),
        drawings=drawings,
        style=style,
        best_names=pick_columns(summary),
        legend=list(
            dict.fromkeys(row.strategy if style.has_own(row.strategy) else OTHERS for row in summary.strategies)
        ),
        comparisons={comparison.other: comparison for comparison in summary.comparisons},
        outcomes=[outcome.value for outcome in OUTCOMES],
        Basis=Basis,
        sign=1.0 if summary.study.maximize else -1.0,
        sheet=sheet,
        script=script,
        plotly=get_plotlyjs(),
        markers=_stylesheet_markers(get_plotlyjs()),
        island=_island(island),
        policy=_policy(scripts=[get_plotlyjs(), script], sheets=[sheet]),
    )


def pick_columns(summary: Summary) -> list[str]:
    """The hyperparameters with a column of their own in the table of best values.

    All of them, or where too many belong to one strategy alone, those that strategies share.
    """
    names = list(dict.fromkeys(name for row in summary.strategies for name in row.best_params))
    own = [name for name in names if "." in name]
    return names if len(own) <= MOST_OWN_COLUMNS else [name for name in names if name not in own]


def pick_rows(summary: Summary) -> list[TrialRow]:
    """The trials in the table: all of them, or the first of them and the finalists."""
    return [row for place, row in enumerate(summary.trials) if place < MOST_ROWS or row.is_finalist]


def pick_points(points: Sequence[Point], *, maximize: bool) -> list[Point]:
    """The trials in the figures of the search space: all of them, or the best and the last, in their order."""
    ranked = sorted(points, key=lambda point: -point.value if maximize else point.value)
    kept = {point.number for point in (*ranked[: MOST_POINTS // 2], *points[-MOST_POINTS // 2 :])}
    return [point for point in points if len(points) <= MOST_POINTS or point.number in kept]


def draw_all(snapshot: StudySnapshot, summary: Summary, *, style: StrategyStyle) -> dict[str, list[Drawing]]:
    """All figures that the study has something to show in, by section of the page."""
    study = snapshot.study
    traces, curves, points = trace_best(snapshot), trace_learning(snapshot), list_points(snapshot)
    parameters = list_parameters(snapshot, points)
    shares = measure_importance(points, parameters, space=study.space, maximize=study.maximize)
    shown = pick_points(points, maximize=study.maximize)
    values: dict[str, list[float]] = {}
    for point in points:
        if not point.pruned:
            values.setdefault(point.strategy, []).append(point.value)
    confusion = pick_confusion(snapshot, summary.winner.trial if summary.winner else None)
    winner = name_trial(summary.winner.trial).capitalize() if summary.winner else ""
    common: dict[str, Any] = {"metric": study.metric, "style": style}
    found: dict[str, list[Drawing | None]] = {
        "front": [
            *draw_fronts(
                find_front(snapshot.trials, spec=study.spec),
                trials=snapshot.trials,
                constraints=read_constraints(study.spec.constraints),
                style=style,
            )
        ],
        "finalists": [draw_finalists(summary.finalists, maximize=summary.study.maximize, **common)],
        "strategies": [draw_strategies(summary.strategies, values=values, **common)],
        "best": [
            draw_best(traces, against=against, maximize=study.maximize, **common) for against in ("trials", "seconds")
        ],
        "learning": [draw_learning(curves[-MOST_CURVES:], **common)],
        "importance": [draw_importance(shares, trials=len(points))],
        "slices": [
            draw_slice(parameter, shown, maximize=study.maximize, key=f"slice-{index}", **common)
            for index, parameter in enumerate(parameters[:MOST_SLICES])
        ],
        "parallel": [draw_parallel(shown, parameters[:MOST_SLICES], maximize=study.maximize, **common)],
        "confusion": [draw_confusion(confusion[0], where=confusion[1], winner=winner)] if confusion else [],
    }
    return {section: [drawing for drawing in group if drawing is not None] for section, group in found.items()}


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tuner.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        "score": formats.format_score,
        "difference": formats.format_difference,
        "probability": formats.format_probability,
        "seconds": formats.format_seconds,
        "count": formats.format_count,
        "value": formats.format_value,
        "fact": lambda value, name: show_fact(name, value),
        "moment": _moment,
    }
    environment.globals |= {"share": formats.format_share, "noun": count_noun, "TRUST": TRUST, "NO_MOVE": NO_MOVE}
    return environment


def _moment(seconds: float) -> str:
    """A time of the database's clock for people."""
    return f"{datetime.fromtimestamp(seconds, tz=UTC):%Y-%m-%d %H:%M} UTC"


def _asset(name: str) -> str:
    return files("tuner.report").joinpath(name).read_text(encoding="utf-8")


def _strategy_css() -> str:
    """The strategies' colours as classes, for light and dark pages."""
    light = "".join(f".s{index}{{--strategy:{colour}}}" for index, colour in enumerate(STRATEGY_COLOURS))
    dark = "".join(f".s{index}{{--strategy:{DARK[colour]}}}" for index, colour in enumerate(STRATEGY_COLOURS))
    return f"{light}\n@media screen and (prefers-color-scheme:dark){{{dark}}}\n"


def _policy(*, scripts: list[str], sheets: list[str]) -> str:
    """A Content Security Policy that lets these texts run and nothing else, and lets nothing be loaded."""
    script_hashes = " ".join(_hash(text) for text in scripts)
    # Plotly keeps its rules in a style element that is empty in the text, and sets style attributes on SVG text; an
    # attribute can load nothing, as nothing may be loaded.
    style_hashes = " ".join(_hash(text) for text in (*sheets, ""))
    return (
        f"default-src 'none'; script-src {script_hashes}; style-src {style_hashes}; style-src-attr 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _stylesheet_markers(plotly: str) -> list[str]:
    """Ids of the style sheets that Plotly adds for its maps unless an element with that id is there already.

    The page shows no map and its policy would refuse the sheet, with a complaint in the console.
    """
    return re.findall(r'if\(!document\.getElementById\("([0-9a-f]{64})"\)\)', plotly)


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _island(data: dict[str, Any]) -> str:
    """JSON that can stand inside a script element: nothing in it can end the element or open a comment."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _replace_file(target: Path, text: str) -> None:
    """Write beside the target and rename, so that no reader ever sees half a report."""
    draft = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        with draft.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
