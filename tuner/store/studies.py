"""Studies: created, found, listed, moved from state to state, deleted."""

from __future__ import annotations

import contextlib
import difflib
import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from sqlalchemy import ColumnElement, Select, delete, func, insert, select, update
from sqlalchemy.engine import Connection, Row

from tuner.errors import ConfigurationError, ConflictError, NotFoundError
from tuner.source import this_code
from tuner.store import events, optuna_rows
from tuner.store.database import Database
from tuner.store.records import BudgetUse, Outcome, RunGroup, StudyRecord, StudyState
from tuner.store.tables import attempts, db_now, metrics, runs, studies
from tuner.store.tables import events as events_table
from tuner.study.space import SearchSpace
from tuner.study.spec import BudgetSpec, StudySpec

COUNTED = ("complete", "pruned", "diverged", "errored", "infeasible", "running", "waiting")
"""The outcomes that a trial may have, in the order in which people read them."""


def create_study(db: Database, *, spec: StudySpec, space: SearchSpace, maximize: bool) -> StudyRecord:
    """Store a study, for Optuna and for us, in one transaction.

    Args:
        spec: What is asked; paths are absolute.
        space: The resolved search space.
        maximize: Whether more of the objective's metric is better.

    Returns:
        The stored study. If the same study is stored already, that one.

    Raises:
        ConflictError: If a study of this name asks something else.
    """

    def _create(tx: Connection) -> None:
        row = tx.execute(select(studies).where(studies.c.name == spec.name)).first()
        if row is not None:
            _require_same(row, spec=spec, space=space, maximize=maximize)
            _stamp(tx, row)
            return
        if optuna_rows.study_exists(tx, spec.name):
            raise ConflictError(
                f'study "{spec.name}" exists in this database but was not made by tuner', fix="choose another name"
            )
        _purge_orphans(tx)
        more = [one.goal == "maximize" for one in spec.objectives[1:]]  # each has its goal, see tuner.study.aims
        study_id = optuna_rows.create_study(tx, name=spec.name, maximize=[maximize, *more])
        if spec.has_front:
            optuna_rows.name_objectives(tx, study_id, [one.metric for one in spec.objectives])
        tx.execute(
            insert(studies).values(
                study_id=study_id,
                name=spec.name,
                uid=uuid.uuid4().hex,
                spec=_dump(spec.model_dump(mode="json")),
                space=_dump(space.to_json()),
                code=this_code(),
                metric=spec.lead.metric,
                maximize=maximize,
                state=StudyState.SEARCHING.value,
                state_reason="",
                search_over="",
                priority=0,
                created_at=db_now(),
            )
        )
        events.record(tx, "study_created", f"study {spec.name} created", study_id=study_id)

    db.write(_create)
    return find_study(db, spec.name)


def _stamp(tx: Connection, row: Row[Any]) -> None:
    """Note which code asks for the study again: while it has no trial, there is nothing that could not be compared."""
    has_runs = select(runs.c.run_id).where(runs.c.study_id == row.study_id).limit(1)
    if row.code != this_code() and tx.execute(has_runs).first() is None:
        tx.execute(update(studies).where(studies.c.study_id == row.study_id).values(code=this_code()))


def _require_same(row: Row[Any], *, spec: StudySpec, space: SearchSpace, maximize: bool) -> None:
    """Refuse to take one study for another: Optuna ignores such differences silently."""
    there, space_there = read_settings(row)  # an older one has not every key; its defaults are meant
    stored, asked = _flat(there.model_dump(mode="json")), _flat(spec.model_dump(mode="json"))
    different = [
        f"{key} is {stored.get(key)!r} there and {asked.get(key)!r} here"
        for key in sorted(stored.keys() | asked.keys())
        if stored.get(key) != asked.get(key)
    ]
    if bool(row.maximize) != maximize and not any(text.startswith("objective.") for text in different):
        different.append("the objective's goal is another")
    # What was learnt when it was created stays, whatever could be learnt now.
    if not different and space_there.strategies != space.strategies:
        different = ["this version of tuner resolves its space differently"]
    if different:
        more = f" and {len(different) - 3} more" if len(different) > 3 else ""
        fix = "give the new question another name"
        if all(text.startswith("budget.") for text in different):
            words = "".join(
                f" --{key.removeprefix('budget.').replace('_', '-')} {asked[key]}"
                for key in sorted(stored.keys() | asked.keys())
                if stored.get(key) != asked.get(key) and asked.get(key) is not None
            )
            fix = f"its budget is changed by: tuner study set {spec.name}{words}"
        raise ConflictError(
            f'study "{spec.name}" exists and asks something else', why="; ".join(different[:3]) + more, fix=fix
        )


def _flat(data: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    if not isinstance(data, dict) or not data:
        return {prefix: data}
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= _flat(value, f"{prefix}.{key}" if prefix else str(key))
    return flat


def find_study(db: Database, name: str) -> StudyRecord:
    """The study of this name.

    Raises:
        NotFoundError: If there is none; the message names a close match.
        ConfigurationError: If this code cannot read it.
    """
    return db.read(lambda tx: read_study(tx, name))


def read_study(tx: Connection, name: str) -> StudyRecord:
    """As :func:`find_study`, inside a transaction of the caller."""
    return _record(tx, _row(tx, name))


def _row(tx: Connection, name: str) -> Row[Any]:
    row = tx.execute(select(studies).where(studies.c.name == name)).first()
    if row is None:
        names = [other for (other,) in tx.execute(select(studies.c.name))]
        close = difflib.get_close_matches(name, names, n=1)
        hint = f'did you mean "{close[0]}"? (tuner study list)' if close else "see: tuner study list"
        raise NotFoundError(f'no study "{name}"', fix=hint)
    return row


def read_settings(row: Row[Any]) -> tuple[StudySpec, SearchSpace]:
    """What a study asks and what it searches, from its row.

    Raises:
        ConfigurationError: If this code does not understand it: a newer one made the study.
    """
    with _told_if_unreadable(row.name, code=row.code):
        return StudySpec.model_validate(json.loads(row.spec)), SearchSpace.from_json(json.loads(row.space))


@contextlib.contextmanager
def _told_if_unreadable(name: str, *, code: str, section: str = "") -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        why = f"it was made by tuner {code or 'of another version'}, this is {this_code()}"
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            place = ".".join(str(part) for part in (section, *first["loc"]) if part != "")
            why += f": {place}: {first['msg']}"
        raise ConfigurationError(
            f'study "{name}" cannot be read', why=why, fix="install that tuner here, or serve the study where it is"
        ) from error


def list_studies(db: Database) -> list[StudyRecord]:
    """All studies that this code can read, oldest first; the others: :func:`list_unreadable`."""

    def _list(tx: Connection) -> list[StudyRecord]:
        found = []
        for row in tx.execute(select(studies).order_by(studies.c.study_id)).all():
            with contextlib.suppress(ConfigurationError):
                found.append(_record(tx, row))
        return found

    return db.read(_list)


def list_unreadable(db: Database) -> list[ConfigurationError]:
    """Why each study that this code cannot read cannot be, oldest first."""

    def _list(tx: Connection) -> list[ConfigurationError]:
        found = []
        for row in tx.execute(select(studies).order_by(studies.c.study_id)).all():
            try:
                read_settings(row)
            except ConfigurationError as error:
                found.append(error)
        return found

    return db.read(_list)


def open_studies(db: Database, names: tuple[str, ...] = ()) -> list[str]:
    """Names of the studies that workers may claim from, in the order in which a free slot should look there.

    A higher priority comes first. Equals share: first the study with the fewest running runs, then the one whose last run began the
    longest ago, so that also a single slot serves them in turn.

    Args:
        names: Only these; empty: all.
    """
    is_served: ColumnElement[bool] = studies.c.state.in_([state.value for state in StudyState if state.is_open])
    is_served &= optuna_rows.has_study(studies.c.study_id)
    if names:
        is_served &= studies.c.name.in_(names)

    def _names(tx: Connection) -> list[str]:
        served = list(tx.execute(select(studies.c.name).where(is_served)).scalars())
        # Who runs how much is counted only where that matters: this is asked every second by every idle worker.
        return served if len(served) < 2 else list(tx.execute(_by_share(is_served)).scalars())

    return db.read(_names)


def _by_share(is_served: ColumnElement[bool]) -> Select[Any]:
    is_running = (runs.c.study_id == studies.c.study_id) & (runs.c.outcome == Outcome.RUNNING.value)
    running = select(func.count()).select_from(runs).where(is_running).scalar_subquery()
    begun = (
        select(func.coalesce(func.max(attempts.c.started_at), 0.0))
        .join(runs, runs.c.run_id == attempts.c.run_id)
        .where(runs.c.study_id == studies.c.study_id)
        .scalar_subquery()
    )
    order = (studies.c.priority.desc(), running, begun, studies.c.study_id)
    return select(studies.c.name).where(is_served).order_by(*order)


def move_study(
    tx: Connection,
    *,
    study_id: int,
    source: StudyState,
    target: StudyState,
    reason: str,
    who: str | None = None,
) -> bool:
    """Move a study from one state to another; False if it was not in the source state (somebody was faster)."""
    values: dict[str, Any] = {"state": target.value, "state_reason": reason}
    values["finished_at"] = db_now() if target is StudyState.FINISHED else None
    moved = tx.execute(
        update(studies).where(studies.c.study_id == study_id, studies.c.state == source.value).values(values)
    )
    if moved.rowcount != 1:
        return False
    events.record(tx, f"study_{target.value}", reason, study_id=study_id, who=who)
    return True


def delete_study(db: Database, name: str) -> None:
    """Delete a study with its trials, for Optuna and for us; checkpoints on disk stay.

    A worker that still trains one of its trials finds its lease gone at the next heartbeat and drops the trial.

    Raises:
        NotFoundError: If there is none.
    """

    def _delete(tx: Connection) -> None:
        study_id = _row(tx, name).study_id
        delete_ours(tx, study_id)
        optuna_rows.delete_study(tx, study_id)

    db.write(_delete)


def delete_ours(tx: Connection, study_id: int) -> None:
    """Delete our half of a study; Optuna's stays.

    Locked first: whatever a claim or a report adds while its children are deleted would keep the study itself from being deleted.
    """
    lock_study(tx, study_id)
    its_runs = select(runs.c.run_id).where(runs.c.study_id == study_id).order_by(runs.c.run_id)
    tx.execute(its_runs.with_for_update()).all()
    run_ids = select(runs.c.run_id).where(runs.c.study_id == study_id).scalar_subquery()
    for table in (metrics, attempts):
        tx.execute(delete(table).where(table.c.run_id.in_(run_ids)))
    for table in (runs, events_table, studies):
        tx.execute(delete(table).where(table.c.study_id == study_id))


def _purge_orphans(tx: Connection) -> None:
    """Forget studies that were deleted with Optuna's own tools: their ids may be used again."""
    for (study_id,) in tx.execute(select(studies.c.study_id).where(~optuna_rows.has_study(studies.c.study_id))).all():
        delete_ours(tx, study_id)


def lock_study(tx: Connection, study_id: int, *, uid: str | None = None) -> StudyState | None:
    """Take the study's lock until the end of the transaction.

    Args:
        tx: The transaction.
        study_id: The study.
        uid: Its uid, where another study may have got its id.

    Returns:
        Its state, or None if it was deleted.
    """
    row = tx.execute(
        select(studies.c.state, studies.c.uid).where(studies.c.study_id == study_id).with_for_update()
    ).first()
    return StudyState(row.state) if row is not None and uid in (None, row.uid) else None


def end_search(db: Database, study_id: int, *, reason: str) -> None:
    """Let no new trial start, whatever is left of the budget; the open ones go on."""
    db.write(lambda tx: _end_search(tx, study_id, reason=reason))


def end_settled_search(db: Database, study_id: int, *, reason: str) -> None:
    """As :func:`end_search`, because the study asks for an early end; nothing where somebody has taken that back by now."""

    def _end(tx: Connection) -> None:
        lock_study(tx, study_id)
        spec = tx.execute(select(studies.c.spec).where(studies.c.study_id == study_id)).scalar_one_or_none()
        # Not as a whole: a newer code may have written it.
        if spec is not None and json.loads(spec).get("search", {}).get("stop_when") is not None:
            _end_search(tx, study_id, reason=reason)

    db.write(_end)


def _end_search(tx: Connection, study_id: int, *, reason: str) -> None:
    ended = tx.execute(
        update(studies).where(studies.c.study_id == study_id, studies.c.search_over == "").values(search_over=reason)
    )
    if ended.rowcount == 1:
        events.record(tx, "search_over", reason, study_id=study_id)


def why_search_is_over(tx: Connection, study_id: int) -> str:
    """What :func:`end_search` said, or an empty string."""
    return str(tx.execute(select(studies.c.search_over).where(studies.c.study_id == study_id)).scalar_one())


def pause_study(db: Database, study_id: int, *, reason: str) -> bool:
    """Let nothing of an open study be claimed until it is resumed; False if it was not open."""

    def _pause(tx: Connection) -> bool:
        state = lock_study(tx, study_id)
        return (
            state is not None
            and state.is_open
            and move_study(tx, study_id=study_id, source=state, target=StudyState.PAUSED, reason=reason)
        )

    return db.write(_pause)


def read_budget(tx: Connection, study_id: int) -> BudgetSpec:
    """A study's budget as it is now: people change it while it runs.

    Raises:
        ConfigurationError: If this code does not understand it: a newer one changed it.
    """
    budget = budget_now(tx, study_id)
    assert budget is not None, "the study's lock is held"
    return budget


def budget_now(tx: Connection, study_id: int, *, uid: str | None = None) -> BudgetSpec | None:
    """As :func:`read_budget`, of a study that may be gone.

    Args:
        tx: The transaction.
        study_id: The study.
        uid: Its uid, where another study may have got its id.

    Returns:
        The budget, or None if the study was deleted.

    Raises:
        ConfigurationError: If this code does not understand it.
    """
    query = select(studies.c.name, studies.c.uid, studies.c.code, studies.c.spec).where(studies.c.study_id == study_id)
    row = tx.execute(query).first()
    if row is None or uid not in (None, row.uid):
        return None
    with _told_if_unreadable(row.name, code=row.code, section="budget"):
        return BudgetSpec.model_validate(json.loads(row.spec)["budget"])


def budget_use(tx: Connection, study_id: int) -> BudgetUse:
    """What a study has used of its budget: one pass over its runs and their attempts."""
    alike = (runs.c.purpose, runs.c.strategy, runs.c.outcome, runs.c.epochs_done, runs.c.reserved_epochs)
    rows = tx.execute(
        select(
            *alike,
            func.count(runs.c.run_id.distinct()).label("runs"),
            func.coalesce(func.sum(attempts.c.seconds), 0.0).label("seconds"),
            func.min(attempts.c.started_at).label("began_at"),
        )
        .select_from(runs.outerjoin(attempts, attempts.c.run_id == runs.c.run_id))
        .where(runs.c.study_id == study_id)
        .group_by(*alike)
    ).all()
    groups = tuple(
        RunGroup(
            in_search=row.purpose == "search",
            strategy=row.strategy or "",
            outcome=Outcome(row.outcome),
            runs=int(row.runs),
            epochs=int(row.epochs_done),
            reserved=int(row.reserved_epochs),
            seconds=float(row.seconds),
        )
        for row in rows
    )
    search = [group for group in groups if group.in_search]
    began = min((row.began_at for row in rows if row.began_at is not None), default=None)
    now = tx.execute(select(db_now())).scalar_one() if began is not None else 0.0
    return BudgetUse(
        trials=sum(group.runs for group in search),
        epochs=sum(group.runs * (group.reserved if group.is_open else group.epochs) for group in search),
        gpu_seconds=sum(group.seconds for group in groups),
        confirm_seconds=sum(group.seconds for group in groups if not group.in_search),
        began_at=began,
        wall_seconds=max(0.0, float(now) - float(began)) if began is not None else 0.0,
        groups=groups,
    )


def count_trials(db: Database, name: str) -> Mapping[str, int]:
    """How many trials of a study have each outcome; also of one that this code cannot read.

    Raises:
        NotFoundError: If there is none; the message names a close match.
    """
    return db.read(lambda tx: _count(tx, _row(tx, name).study_id))


def _count(tx: Connection, study_id: int) -> Mapping[str, int]:
    counted = tx.execute(
        select(runs.c.outcome, func.count())
        .where(runs.c.study_id == study_id, runs.c.purpose == "search")
        .group_by(runs.c.outcome)
    )
    return dict.fromkeys(COUNTED, 0) | dict(counted.all())


def _record(tx: Connection, row: Row[Any]) -> StudyRecord:
    spec, space = read_settings(row)
    return StudyRecord(
        study_id=row.study_id,
        uid=row.uid,
        name=row.name,
        spec=spec,
        space=space,
        metric=row.metric,
        maximize=bool(row.maximize),
        state=StudyState(row.state),
        state_reason=row.state_reason,
        created_at=row.created_at,
        finished_at=row.finished_at,
        counts=_count(tx, row.study_id),
        used=budget_use(tx, row.study_id),
        priority=row.priority,
        code=row.code,
        search_over=row.search_over,
    )


def _dump(data: Any) -> str:
    return json.dumps(data, allow_nan=False, ensure_ascii=False)
