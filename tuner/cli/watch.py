"""Following a study: a page that refreshes on a terminal, one line for each change elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from tuner.cli.documents import counts_words, study_document
from tuner.cli.output import emit, line, message, next_steps, storage_option
from tuner.cli.views import budget_words, clock, is_interrupted, running_lines, study_lines, worker_command
from tuner.errors import UnavailableError
from tuner.store.records import Outcome, StudyRecord, StudySnapshot, StudyState, TrialRecord
from tuner.terminal import clean

if TYPE_CHECKING:
    from tuner.store.database import Database
    from tuner.study.spec import BudgetSpec

Show = Callable[[StudySnapshot | None, str], None]
"""Shows what was read, or None and why nothing could be read."""


def follow(name: str, *, until_done: bool, interval: float, storage: str | None, as_json: bool) -> StudyRecord:
    """Show a study until it is finished.

    Args:
        name: The study.
        until_done: Return also when it is paused or stopped.
        interval: Seconds between two looks.
        storage: Database URL, or None for the default.
        as_json: One JSON document on a line for each change.

    Raises:
        NotFoundError: If there is no such study, or it is deleted meanwhile.
        UnavailableError: If the database cannot be reached at the start; later outages are waited out.
    """
    from tuner.store import location
    from tuner.store.database import Database

    with Database.open(location.storage_url(storage)) as database:
        if as_json:
            return _poll(database, name, until_done=until_done, interval=interval, show=_json_stream())
        if not sys.stdout.isatty():
            return _poll(database, name, until_done=until_done, interval=interval, show=_line_stream(storage))
        return _on_terminal(database, name, until_done=until_done, interval=interval, storage=storage)


def _poll(database: Database, name: str, *, until_done: bool, interval: float, show: Show) -> StudyRecord:
    from tuner.store import queries

    first = True
    while True:
        try:
            snapshot = queries.load_snapshot(database, name)
        except UnavailableError as error:
            if first:
                raise
            show(None, str(error))
        else:
            first = False
            show(snapshot, "")
            state = snapshot.study.state
            if state is StudyState.FINISHED or (until_done and not state.is_open):
                return snapshot.study
        time.sleep(interval)


def _on_terminal(
    database: Database, name: str, *, until_done: bool, interval: float, storage: str | None
) -> StudyRecord:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    with Live(console=Console(), auto_refresh=False, transient=False) as live:
        last: list[StudySnapshot] = []

        def _show(snapshot: StudySnapshot | None, trouble: str) -> None:
            last[:] = [snapshot] if snapshot is not None else last
            page = [*study_lines(last[0]), "", *running_lines(last[0]), ""]
            if last[0].study.state.is_open and is_interrupted(last[0]):
                page += [f"  next: {worker_command(last[0])}{storage_option(storage)}", ""]
            page.append(f"  {clock(last[0].read_at)}{f'  out of reach, trying again: {trouble}' if trouble else ''}")
            live.update(Text(clean("\n".join(page)), overflow="ellipsis", no_wrap=True), refresh=True)

        return _poll(database, name, until_done=until_done, interval=interval, show=_show)


def _json_stream() -> Show:
    last: dict[str, object] = {}

    def _show(snapshot: StudySnapshot | None, trouble: str) -> None:
        if snapshot is None:
            message(f"database out of reach, trying again: {trouble}")
            return
        document = study_document(snapshot)
        changed = {key: value for key, value in document.items() if key not in {"read_at", "workers", "forecast"}}
        used = {
            key: value for key, value in document["budget"]["used"].items() if key != "hours"
        }  # time alone is no news
        changed["budget"] = {**document["budget"], "used": used}
        if changed != last:
            last.clear()
            last.update(changed)
            emit(document, compact=True)

    return _show


def _line_stream(storage: str | None) -> Show:
    seen: dict[int, tuple[Outcome, int, bool]] = {}
    states: list[str] = []
    advised: list[bool] = []
    wishes: list[tuple[BudgetSpec, int]] = []

    def _show(snapshot: StudySnapshot | None, trouble: str) -> None:
        if snapshot is None:
            message(f"database out of reach, trying again: {trouble}")
            return
        study, at = snapshot.study, clock(snapshot.read_at)
        interrupted = is_interrupted(snapshot)
        for trial in snapshot.trials:
            now = (trial.outcome, len(trial.epochs), interrupted and trial.outcome is Outcome.RUNNING)
            if seen.get(trial.number) != now:
                seen[trial.number] = now
                line(f"{at}  {_trial_line(trial, study.metric, interrupted=interrupted)}")
        if interrupted and study.state.is_open and advised[-1:] != [True]:
            next_steps(worker_command(snapshot), storage=storage)
        advised[:] = [interrupted]
        if states[-1:] != [study.state.value]:
            states.append(study.state.value)
            why = f" ({study.state_reason})" if study.state_reason and not study.state.is_open else ""
            line(f"{at}  study {study.name} is {study.state.value}{why}: {counts_words(study.counts)}")
        wanted = (study.spec.budget, study.priority)
        if wishes and wishes[-1] != wanted:
            line(f"{at}  study {study.name} has {budget_words(study)}, priority {study.priority}")
        wishes[:] = [wanted]
        sys.stdout.flush()

    return _show


def _trial_line(trial: TrialRecord, metric: str, *, interrupted: bool) -> str:
    head = f"trial {trial.number} {trial.strategy}".rstrip()
    if trial.outcome is Outcome.RUNNING:
        if interrupted:
            head += " interrupted" + (" after" if trial.epochs else "")
        if not trial.epochs:
            return head if interrupted else f"{head} started"
        last = trial.epochs[-1]
        value = f"  {metric} {last.metrics[metric]:.4f}" if metric in last.metrics else ""
        return f"{head} epoch {last.epoch}{value}"
    value = f"  {metric} {trial.value:.4f}" if trial.value is not None else ""
    return f"{head} {trial.outcome.value}{value}{f'  ({trial.reason})' if trial.reason else ''}"
