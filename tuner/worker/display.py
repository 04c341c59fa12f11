"""How a worker shows what it does: a live board on a terminal, one line for each change elsewhere.

Both write to the stream they are given and never raise; a display that fails must not stop a training.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from tuner.store.records import Outcome
from tuner.study.domains import Value
from tuner.study.names import count_noun
from tuner.terminal import clean, duration
from tuner.worker.events import (
    Display,
    EpochReported,
    Event,
    Notice,
    RunClaimed,
    RunEnded,
    RunProgress,
    StudySeen,
    WorkerStarted,
)

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

_COUNTED = ("complete", "pruned", "diverged", "errored", "infeasible", "running", "waiting")
_STYLES = {
    "complete": "green",
    "pruned": "yellow",
    "diverged": "magenta",
    "errored": "red",
    "infeasible": "magenta",
    "running": "cyan",
}
_REDRAW_SECONDS = 0.1
_RECENT = 6


def choose_display(stream: TextIO) -> Display:
    """A live board if the stream is a terminal that can show one, else plain lines."""
    if stream.isatty() and os.environ.get("TERM", "dumb") != "dumb":
        return LiveDisplay(stream)
    return PlainDisplay(stream)


class PlainDisplay:
    """One line for each change, with the time of day."""

    def __init__(self, stream: TextIO) -> None:
        """Write to this stream."""
        self._stream = stream
        self._lines = _Lines()

    def show(self, event: Event) -> None:
        """Write what the event changed, if anything."""
        for text in self._lines.of(event):
            with contextlib.suppress(OSError, ValueError):  # a full disk or a closed pipe is no reason to stop
                self._stream.write(f"{time.strftime('%H:%M:%S')}  {clean(text)}\n")
                self._stream.flush()

    def close(self) -> None:
        """Nothing to restore."""


class _Lines:
    """Events as lines; remembers what was said last, so that nothing is said twice."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}
        self._best: dict[str, tuple[int | None, float | None]] = {}
        self._strategies: dict[tuple[str, int], str] = {}

    def of(self, event: Event) -> list[str]:
        """The lines of an event; none if it changes nothing that a line should say."""
        match event:
            case WorkerStarted():
                return [f"worker {event.worker} on {event.host}: {', '.join(event.slots)}; database {event.storage}"]
            case StudySeen():
                return self._study(event)
            case RunClaimed():
                self._strategies[event.study, event.number] = event.strategy
                again = f", attempt {event.attempt}" if event.attempt > 1 else ""
                return [f"{self._name(event)} on {event.slot}{again}: {_params(event.params)}"]
            case EpochReported():
                value = f"{event.metric} {event.value:.4f}"
                time_used = f"{duration(event.seconds)} so far"
                return [f"{self._name(event)} epoch {event.epoch} of {event.epochs}: {value}, {time_used}"]
            case RunEnded():
                return [f"{self._name(event)} {_ended(event)}"]
            case Notice():
                return [event.text if event.level == "info" else f"{event.level}: {event.text}"]
            case RunProgress():
                return []

    def _name(self, event: RunClaimed | EpochReported | RunEnded) -> str:
        study = f"{event.study} " if len(self._states) > 1 else ""  # one study needs no name on every line
        strategy = self._strategies.get((event.study, event.number), "")
        seed = f" again with seed {event.seed}" if event.seed is not None else ""
        return f"{study}trial {event.number} {strategy}".rstrip() + seed

    def _study(self, event: StudySeen) -> list[str]:
        lines = []
        if self._states.get(event.study) != event.state.value:
            self._states[event.study] = event.state.value
            lines.append(f"study {event.study} is {event.state.value}: {_trials(event)}")
        best = (event.best_number, event.best_value)
        if event.best_number is not None and self._best.get(event.study) != best:
            self._best[event.study] = best
            lines.append(f"study {event.study}: best so far {_best(event)}")
        return lines


def _ended(event: RunEnded) -> str:
    """How a run ended: ``complete: macro_f1 0.9100, 12 s``, or why it did not: ``pruned: below the best third, 4.0 s``."""
    value = f"{event.metric} {event.value:.4f}" if event.value is not None else ""
    words = [word for word in (event.reason or value, duration(event.seconds)) if word]
    return f"{event.outcome.value}: {', '.join(words)}"


def _params(params: Mapping[str, Value]) -> str:
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in params.items()
    )


def _trials(event: StudySeen) -> str:
    done = sum(event.counts.values())
    limit = event.budget_trials
    return count_noun(done, "trial") if limit is None else f"{done} of {count_noun(limit, 'trial')}"


def _best(event: StudySeen) -> str:
    value = f" {event.best_value:.4f}" if event.best_value is not None else ""
    return f"trial {event.best_number} {event.best_strategy or ''}: {event.metric}{value}"


@dataclass(kw_only=True, slots=True)
class _Slot:
    """What one device share does now."""

    run: RunClaimed | None = None
    epoch: int = 0
    fraction: float = 0.0
    value: float | None = None
    since: float = 0.0


@dataclass(kw_only=True, slots=True)
class _Board:
    """What the live display knows."""

    worker: WorkerStarted | None = None
    studies: dict[str, StudySeen] = field(default_factory=dict)
    first: dict[str, tuple[float, float]] = field(default_factory=dict)  # time and used share when first seen
    slots: dict[str, _Slot] = field(default_factory=dict)
    recent: deque[tuple[str, bool]] = field(default_factory=lambda: deque(maxlen=_RECENT))

    def take(self, event: Event, *, now: float) -> None:
        """Remember what an event changed."""
        match event:
            case WorkerStarted():
                self.worker = event
                self.slots = {slot: _Slot() for slot in event.slots}
            case StudySeen():
                self.studies[event.study] = event
                self.first.setdefault(event.study, (now, event.used_share))
            case RunClaimed():
                self.slots[event.slot] = _Slot(run=event, epoch=1, since=now)
            case RunProgress():
                slot = self.slots.setdefault(event.slot, _Slot())
                slot.epoch, slot.fraction = event.epoch, event.fraction
            case EpochReported():
                slot = self.slots.setdefault(event.slot, _Slot())
                slot.epoch, slot.fraction, slot.value = event.epoch, 1.0, event.value
            case RunEnded():
                self.slots[event.slot] = _Slot()
            case Notice():
                pass

    def remaining(self, study: StudySeen, *, now: float) -> float | None:
        """Seconds until the budget is used at the pace seen here; None while that is a mere guess."""
        start, share = self.first[study.study]
        gained = study.used_share - share
        if gained < 0.02 or now - start < 2.0 or not study.state.is_open:
            return None
        return (now - start) * (1.0 - study.used_share) / gained


class LiveDisplay:
    """A board that is redrawn in place: the studies, a row for each slot, and the last events."""

    def __init__(self, stream: TextIO, *, width: int | None = None) -> None:
        """Take the terminal over until :meth:`close`.

        Args:
            stream: The terminal.
            width: Columns; None: as wide as the terminal is.
        """
        from rich.console import Console
        from rich.live import Live

        self._board = _Board()
        self._lines = _Lines()
        self._drawn = 0.0
        # No refresh thread: the supervisor sends an event at least every few seconds, and owns this process's threads.
        self._live = Live(console=Console(file=stream, width=width), auto_refresh=False, transient=False)
        self._live.start()

    def show(self, event: Event) -> None:
        """Take one event; the board is redrawn at most ten times a second."""
        now = time.monotonic()
        self._board.take(event, now=now)
        lines = self._lines.of(event)
        if isinstance(event, RunEnded | Notice):  # the rest stands on the board itself
            at = time.strftime("%H:%M:%S")
            is_good = isinstance(event, RunEnded) and event.outcome in (Outcome.COMPLETE, Outcome.PRUNED)
            self._board.recent.extend((f"{at}  {text}", not is_good) for text in lines)
        if now - self._drawn >= _REDRAW_SECONDS or not isinstance(event, RunProgress):
            self._draw(now)

    def close(self) -> None:
        """Draw the board once more and give the terminal back."""
        self._draw(time.monotonic())
        with contextlib.suppress(OSError, ValueError):
            self._live.stop()

    def _draw(self, now: float) -> None:
        self._drawn = now
        with contextlib.suppress(OSError, ValueError):
            self._live.update(_picture(self._board, now=now), refresh=True)


def _picture(board: _Board, *, now: float) -> Group:
    from rich.console import Group
    from rich.text import Text

    parts: list[Text | Table] = []
    if board.worker is not None:
        parts.append(_text(f"worker {board.worker.worker} on {board.worker.host}  {board.worker.storage}", style="dim"))
    for study in board.studies.values():
        parts += [Text(), *_study_picture(study, board.remaining(study, now=now))]
    parts += [Text(), _slots_picture(board, now=now)]
    if board.recent:
        parts += [Text(), *(_text(line, style="dim", whole=whole) for line, whole in board.recent)]
    return Group(*parts)


def _text(text: str, *, style: str = "", whole: bool = False) -> Text:
    """A text on one line, cut where it does not fit; on as many as it needs if it must be read ``whole``."""
    from rich.text import Text

    return Text(clean(text), style=style, no_wrap=not whole, overflow="fold" if whole else "ellipsis")


def _study_picture(study: StudySeen, remaining: float | None) -> list[Text | Table]:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    head = Table.grid(expand=True, padding=(0, 1))
    head.add_column(ratio=1)
    head.add_column(justify="right", no_wrap=True)
    finished, planned = study.confirmations
    if planned:
        tail = f"{finished} of {planned} confirmation runs"
    elif remaining is not None:
        tail = f"about {duration(remaining)} left"
    else:
        tail = ""
    title = _text(study.study, style="bold")
    title.append(f"  {study.state.value}", style="not bold")
    head.add_row(title, Text(tail))
    bar = Table.grid(expand=True, padding=(0, 1))
    bar.add_column(ratio=1)
    bar.add_column(justify="right", no_wrap=True)
    bar.add_row(ProgressBar(total=1.0, completed=study.used_share), Text(_trials(study)))
    counts = Text(no_wrap=True, overflow="ellipsis")
    for outcome in _COUNTED:
        if study.counts.get(outcome):
            counts.append(f"{study.counts[outcome]} {outcome}  ", style=_STYLES.get(outcome, ""))
    best = f"best  {_best(study)}" if study.best_number is not None else "best  none yet"
    return [head, bar, counts, _text(best, style="bold" if study.best_number is not None else "dim")]


def _slots_picture(board: _Board, *, now: float) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table.grid(expand=True, padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, max_width=24)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(ratio=1)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(no_wrap=True, justify="right")
    several = len(board.studies) > 1
    table.add_row(*(_text(word, style="dim") for word in ("SLOT", "TRIAL", "STRATEGY", "EPOCH", "", "SCORE", "TIME")))
    for name, slot in board.slots.items():
        run = slot.run
        if run is None:
            table.add_row(_text(name), _text("free", style="dim"))
            continue
        trial = f"{run.study} {run.number}" if several else str(run.number)
        done = (max(slot.epoch, 1) - 1 + slot.fraction) / max(run.epochs, 1)
        table.add_row(
            _text(name),
            _text(trial if run.seed is None else f"{trial} seed {run.seed}"),
            _text(run.strategy),
            _text(f"{slot.epoch}/{run.epochs}"),
            ProgressBar(total=1.0, completed=min(done, 1.0)),
            _text("-" if slot.value is None else f"{slot.value:.4f}"),
            _text(duration(now - slot.since)),
        )
    return table
