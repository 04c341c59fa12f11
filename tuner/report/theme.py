"""Colours and the plain look that all figures share.

The strategies' colours follow Okabe & Ito (https://jfly.uni-koeln.de/color/), which stay apart for colour-blind
readers; each strategy has a marker shape too, so that no figure depends on colour alone. A figure is drawn in the light
colours; :data:`DARK` says what each of them becomes on a dark page.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

import plotly.graph_objects as go

INK = "#1c2127"
MUTED = "#5c6670"
GRID = "#e6e9ed"
AXIS = "#c3c9d0"
PAPER = "#ffffff"
ACCENT = "#0a66a8"

STRATEGY_COLOURS = (
    "#0072b2",  # blue
    "#d55e00",  # vermillion
    "#009e73",  # bluish green
    "#cc79a7",  # reddish purple
    "#e69f00",  # orange
    "#56b4e9",  # sky blue
    "#8a7a00",  # Okabe & Ito's yellow, darkened: theirs cannot be read on white
    "#6e6e6e",  # grey in place of black, which is the text's colour
)
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "star", "hexagon")

MATRIX_SCALE = ("#f3f6fa", "#a9cbe8", "#4a92cc", "#0b4f8a")

DARK: Mapping[str, str] = {
    INK: "#e8ebee",
    MUTED: "#9aa5b1",
    GRID: "#262d36",
    AXIS: "#46505b",
    PAPER: "#14191f",
    ACCENT: "#5fb0ee",
    "#0072b2": "#4a9fe0",
    "#d55e00": "#f5834a",
    "#009e73": "#2fc79b",
    "#cc79a7": "#e69bc6",
    "#e69f00": "#f4b740",
    "#56b4e9": "#a5dcff",
    "#8a7a00": "#e8dc4a",
    "#6e6e6e": "#a8a8a8",
    "#f3f6fa": "#1b222b",
    "#a9cbe8": "#1d4a70",
    "#4a92cc": "#2f7fbd",
    "#0b4f8a": "#8cc8f5",
}
"""Light colour to its counterpart on a dark page."""

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif'


OTHERS = "others"
"""What the figures call the strategies that have no colour of their own."""


class StrategyStyle:
    """The colour and marker of each strategy, the same in every figure and table.

    Nobody tells twenty colours apart. Where there are more strategies than colours, those that matter most have one,
    and all others share the last, a grey, and one entry of the legend.
    """

    def __init__(self, names: Sequence[str], *, ranked: Sequence[str] = ()) -> None:
        """Number the strategies in the order of the study file.

        Args:
            names: All of them.
            ranked: The best first: who gets a colour where there are too few; without it, the first of the names.
        """
        most = len(STRATEGY_COLOURS)
        if len(names) > most:
            chosen = list(dict.fromkeys((*ranked, *names)))[: most - 1]
            names = [name for name in names if name in chosen]
        self._index = {name: index for index, name in enumerate(names)}

    def index(self, strategy: str) -> int:
        """Which colour the strategy has; the last one for those without one of their own."""
        return self._index.get(strategy, len(STRATEGY_COLOURS) - 1)

    def has_own(self, strategy: str) -> bool:
        """Whether the strategy has a colour of its own."""
        return strategy in self._index

    def colour(self, strategy: str) -> str:
        """The strategy's colour on a light page."""
        return STRATEGY_COLOURS[self.index(strategy)]

    def symbol(self, strategy: str) -> str:
        """The strategy's marker."""
        return SYMBOLS[self.index(strategy)]

    def legend(self, figure: go.Figure, strategies: Iterable[str], *, line_width: float = 0) -> None:
        """Give a figure its legend: an entry for each strategy with a colour, and one for all others.

        Args:
            figure: Its traces have ``legendgroup=style.group(strategy)`` and ``showlegend=False``.
            strategies: Those that are drawn in it.
            line_width: Of the lines that are drawn; 0 for markers alone.
        """
        for group in sorted(dict.fromkeys(map(self.group, strategies)), key=lambda name: name == safe_text(OTHERS)):
            name = next((strategy for strategy in self._index if self.group(strategy) == group), OTHERS)
            figure.add_scatter(
                x=[None],
                y=[None],
                name=group,
                legendgroup=group,
                mode="lines+markers" if line_width else "markers",
                line={"color": self.colour(name), "width": line_width},
                marker={"color": self.colour(name), "symbol": self.symbol(name), "size": 7},
            )

    def group(self, strategy: str) -> str:
        """The name of the strategy's entry in a legend."""
        return safe_text(strategy if self.has_own(strategy) else OTHERS, limit=24)


def new_figure(*, x_title: str = "", y_title: str = "", height: int = 360) -> go.Figure:
    """An empty figure in the common look: no template, transparent paper, legend above the plot."""
    axis = {
        "gridcolor": GRID,
        "linecolor": AXIS,
        "zeroline": False,
        "showline": True,
        "ticks": "outside",
        "tickcolor": AXIS,
        "ticklen": 4,
        "automargin": True,
        "title": {"font": {"size": 13, "color": MUTED}, "standoff": 10},
        "tickfont": {"size": 12, "color": MUTED},
    }
    figure = go.Figure()
    figure.update_layout(
        template=go.layout.Template(),
        autosize=True,
        height=height,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": FONT, "size": 13, "color": INK},
        margin={"l": 8, "r": 12, "t": 8, "b": 8},
        legend={
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1.02,
            "yanchor": "bottom",
            "font": {"size": 12},
            "bgcolor": "rgba(0,0,0,0)",
            "itemsizing": "trace",
        },
        hoverlabel={"bgcolor": PAPER, "bordercolor": AXIS, "font": {"family": FONT, "size": 12, "color": INK}},
        hovermode="closest",
        dragmode=False,
    )
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    # An empty title would still take its room.
    if x_title:
        figure.update_xaxes(title_text=safe_text(x_title))
    if y_title:
        figure.update_yaxes(title_text=safe_text(y_title))
    return figure


def shorten_middle(text: str, *, limit: int) -> str:
    """The text with its middle left out if it is long: long class names often differ only at their ends."""
    if len(text) <= limit:
        return text
    head = (limit - 1) // 2
    return f"{text[:head]}…{text[head + 1 - limit :]}"


def safe_text(text: str, *, limit: int = 60) -> str:
    """Text of a user for a figure: shortened, and escaped because Plotly reads a subset of HTML."""
    short = text if len(text) <= limit else text[: limit - 1] + "…"
    return html.escape(short, quote=False)
