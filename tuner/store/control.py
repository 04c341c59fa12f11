"""What a person asks of a study while it runs, from any box: pause, resume, stop, another budget, a trial of one's own.

Everything is written to the database, where the workers see it: before a claim, or at their next sign of life. Each change is one
transaction under the study's lock, with an event that says who did it and when.
"""

from __future__ import annotations

import getpass
import itertools
import json
import math
import os
import socket
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.engine import Connection

from tuner.errors import ConflictError, UsageError
from tuner.store import confirmation, events, optuna_rows
from tuner.store.costs import Least
from tuner.store.database import Database
from tuner.store.records import EXHAUSTED, Asked, BudgetUse, Outcome, StudyRecord, StudyState
from tuner.store.studies import find_study, lock_study, move_study, read_study, why_search_is_over
from tuner.store.tables import db_now, runs, studies
from tuner.study.domains import Value
from tuner.study.names import count_noun
from tuner.study.proposals import as_proposal, choose_strategy
from tuner.study.spec import LIMITS, BudgetSpec, StudySpec

MOST_PRIORITY = 1000
"""Priorities are whole numbers from minus this to this."""

Quota = Callable[[StudySpec, BudgetUse], str]
"""Says why no new trial may start, or an empty string if one may."""


def this_person() -> str:
    """Who sits here, as ``user@host``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"uid-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"[:200]


_OF_BUDGET = (*LIMITS, "price_per_hour")


@dataclass(frozen=True, kw_only=True, slots=True)
class Wishes:
    """What shall be other in a study; None stays.

    Attributes:
        trials: Trials, the pruned ones included.
        epochs: Epochs over all trials.
        gpu_hours: Device hours, the confirmation's fifth included.
        hours: Hours by the clock since the first trial began.
        money: What device hours may cost.
        price_per_hour: What an hour of one slot costs.
        priority: Studies with a higher one are served first.
    """

    trials: int | None = None
    epochs: int | None = None
    gpu_hours: float | None = None
    hours: float | None = None
    money: float | None = None
    price_per_hour: float | None = None
    priority: int | None = None


def pause(db: Database, name: str, *, who: str, reason: str = "", now: bool = False) -> StudyRecord:
    """Let nothing of a study be claimed until it is resumed; what runs goes on.

    Args:
        name: The study.
        who: Who asks, as :func:`this_person` says it.
        reason: Why, for the others.
        now: What runs is given back, too, with its last checkpoint.

    Raises:
        NotFoundError: If there is no such study.
        ConflictError: If it is finished or stopped.
    """
    return _halt(db, name, target=StudyState.PAUSED, who=who, reason=reason, now=now)


def stop(db: Database, name: str, *, who: str, reason: str = "", now: bool = False) -> StudyRecord:
    """End a study where it is: nothing more of it is claimed, its confirmation neither; :func:`resume` takes it back.

    Args:
        name: The study.
        who: Who asks.
        reason: Why, for the others.
        now: What runs is given back, too, with its last checkpoint.

    Raises:
        NotFoundError: If there is no such study.
        ConflictError: If it is finished.
    """
    return _halt(db, name, target=StudyState.STOPPED, who=who, reason=reason, now=now)


def _halt(db: Database, name: str, *, target: StudyState, who: str, reason: str, now: bool) -> StudyRecord:
    def _change(tx: Connection) -> None:
        study = locked(tx, name)
        if study.state is StudyState.FINISHED:
            raise ConflictError(f'study "{name}" is finished', why=study.state_reason)
        if study.state is StudyState.STOPPED and target is StudyState.PAUSED:
            raise ConflictError(f'study "{name}" is stopped', why=study.state_reason, fix=f"tuner study resume {name}")
        if study.state is not target:
            text = f"by {who}{f': {reason}' if reason else ''}"
            move_study(tx, study_id=study.study_id, source=study.state, target=target, reason=text, who=who)
        if now:
            asked = tx.execute(
                update(runs)
                .where(runs.c.study_id == study.study_id, runs.c.outcome == Outcome.RUNNING.value, runs.c.asked == "")
                .values(asked=Asked.RELEASE.value)
            )
            text = f"{asked.rowcount} running trials shall be given back"
            events.record(tx, "release_asked", text, study_id=study.study_id, who=who)

    db.write(_change)
    return find_study(db, name)


def resume(db: Database, name: str, *, who: str) -> StudyRecord:
    """Let workers go on with a study that was paused or stopped, or that ended early by its ``stop_when``, which is taken back.

    Args:
        name: The study.
        who: Who asks.

    Raises:
        NotFoundError: If there is no such study.
        ConflictError: If it is finished, and its budget is used.
    """

    def _resume(tx: Connection) -> None:
        study = locked(tx, name)
        if study.state is StudyState.FINISHED:
            _go_on_unsettled(tx, study, who=who)
        if not study.state.is_open:
            target = StudyState.CONFIRMING if _only_confirms(tx, study.study_id) else StudyState.SEARCHING
            reason = f"resumed by {who}"
            move_study(tx, study_id=study.study_id, source=study.state, target=target, reason=reason, who=who)
        tx.execute(
            update(runs)
            .where(runs.c.study_id == study.study_id, runs.c.asked == Asked.RELEASE.value)
            .values(asked="")  # what no worker has seen yet
        )

    db.write(_resume)
    return find_study(db, name)


def _go_on_unsettled(tx: Connection, study: StudyRecord, *, who: str) -> None:
    """Let a finished study search to the end of its budget, which ``stop_when`` had spared.

    Raises:
        ConflictError: If that is not why it ended; says how it can go on.
    """
    over, more = why_search_is_over(tx, study.study_id), _larger_budget(study)
    fix = f"for more, raise its budget: tuner study set {study.name} {more}"
    if study.counts.get(Outcome.ERRORED.value):
        errored = select(runs.c.number).where(
            runs.c.study_id == study.study_id, runs.c.purpose == "search", runs.c.outcome == Outcome.ERRORED.value
        )
        numbers = [str(number) for number in tx.execute(errored.order_by(runs.c.number).limit(20)).scalars()]
        fix = f"to run again what errored: tuner trial retry {study.name} {' '.join(numbers)}; {fix}"
    if over == EXHAUSTED:
        fix = "for more, create a study with a wider space"
    elif over and study.spec.search.stop_when is not None:
        if not _is_used(study):
            search = study.spec.search.model_copy(update={"stop_when": None})
            spec = _dumped(study.spec.model_copy(update={"search": search}))
            tx.execute(update(studies).where(studies.c.study_id == study.study_id).values(spec=spec, search_over=""))
            reopen(tx, study, reason=f"resumed by {who}, without stop_when", who=who)
            return
        fix += f", then tuner study resume {study.name}"
    raise ConflictError(f'study "{study.name}" is finished', why=study.state_reason, fix=fix)


def _is_used(study: StudyRecord) -> bool:
    """Whether no trial more fits the limits that are counted; those of time are judged when one starts."""
    budget, used, epochs = study.spec.budget, study.used, study.spec.training.epochs
    return (budget.trials is not None and used.trials >= budget.trials) or (
        budget.epochs is not None and used.epochs + epochs > budget.epochs
    )


def _larger_budget(study: StudyRecord) -> str:
    """Options of ``tuner study set`` that give room for about ten trials, or twice the time."""
    budget, used, epochs = study.spec.budget, study.used, study.spec.training.epochs
    words = []
    if budget.trials is not None and used.trials >= budget.trials:
        words.append(f"--trials {used.trials + 10}")
    if budget.epochs is not None and used.epochs + epochs > budget.epochs:
        words.append(f"--epochs {max(budget.epochs, used.epochs) + 10 * epochs}")
    if words:
        return " ".join(words)
    hours, spent = budget.hours, used.wall_seconds / 3600.0
    limits = {
        "--gpu-hours": None if budget.gpu_hours is None else 2.0 * budget.gpu_hours,
        "--money": None if budget.money is None else 2.0 * budget.money,
        "--hours": None if hours is None else math.ceil(spent + hours),
    }
    words = [f"{option} {_plainly(limit)}".replace(",", "") for option, limit in limits.items() if limit is not None]
    return " ".join(words) or f"--trials {used.trials + 10}"


def _only_confirms(tx: Connection, study_id: int) -> bool:
    """Whether what is left to run are re-trainings."""
    is_open = runs.c.outcome.in_((Outcome.WAITING.value, Outcome.RUNNING.value))
    query = select(runs.c.purpose).where(runs.c.study_id == study_id, is_open).distinct()
    return [purpose for (purpose,) in tx.execute(query)] == ["confirm"]


def change(
    db: Database,
    name: str,
    *,
    wishes: Wishes,
    who: str,
    quota: Quota,
    least: Callable[[StudySpec, BudgetUse], Least],
) -> StudyRecord:
    """Give a study another budget or priority; one that is finished goes on where that makes room for trials.

    Args:
        name: The study.
        wishes: What shall be other.
        who: Who asks.
        quota: Judges the budget.
        least: The limits below which the study would have used too much already.

    Raises:
        NotFoundError: If there is no such study.
        UsageError: If a number is out of its range, or none is given.
        ConflictError: If the study has used more already.
    """

    def _change(tx: Connection) -> None:
        study = locked(tx, name)
        budget = study.spec.budget
        _require_above_use(study, wishes, least=least(study.spec, study.used))
        asked = {key: getattr(wishes, key) for key in _OF_BUDGET}
        changed = {key: value for key, value in asked.items() if value is not None and value != getattr(budget, key)}
        texts = [f"{key} {_shown(getattr(budget, key))} -> {_shown(value)}" for key, value in changed.items()]
        spec = study.spec.model_copy(update={"budget": budget.model_copy(update=changed)})
        values: dict[str, Any] = {}
        if changed:
            values["spec"] = _dumped(spec)
        if wishes.priority is not None and wishes.priority != study.priority:
            values["priority"] = wishes.priority
            texts.append(f"priority {study.priority} -> {wishes.priority}")
        text = ", ".join(texts) or "the budget has room"
        if values:
            tx.execute(update(studies).where(studies.c.study_id == study.study_id).values(values))
            events.record(tx, "study_changed", text, study_id=study.study_id, who=who)
        if study.state is StudyState.FINISHED and any(value is not None for value in asked.values()):
            over = quota(spec, study.used) or why_search_is_over(tx, study.study_id)
            _go_on(tx, study, spec, can_search=not over, reason=f"{text} by {who}", who=who)

    _require_sensible(wishes)
    db.write(_change)
    return find_study(db, name)


def _dumped(spec: StudySpec) -> str:
    return json.dumps(spec.model_dump(mode="json"), allow_nan=False, ensure_ascii=False)


def _go_on(tx: Connection, study: StudyRecord, spec: StudySpec, *, can_search: bool, reason: str, who: str) -> None:
    """Let a finished study search again, or where only hours were added, complete the confirmation that they had cut."""
    if can_search:
        reopen(tx, study, reason=reason, who=who)
        return
    why = f"waiting again: {reason}"
    if _has_more_time(spec.budget, study.spec.budget) and confirmation.reopen_cut(tx, study.study_id, reason=why):
        target = StudyState.CONFIRMING
        move_study(tx, study_id=study.study_id, source=study.state, target=target, reason=reason, who=who)


def _has_more_time(budget: BudgetSpec, before: BudgetSpec) -> bool:
    return any(
        old is not None and (new is None or new > old)
        for new, old in ((budget.device_hours, before.device_hours), (budget.hours, before.hours))
    )


def reopen(tx: Connection, study: StudyRecord, *, reason: str, who: str) -> None:
    """Let a study search again that was finished, or had begun its confirmation."""
    target = StudyState.SEARCHING
    move_study(tx, study_id=study.study_id, source=study.state, target=target, reason=reason, who=who)


def _require_sensible(wishes: Wishes) -> None:
    limits = {
        "trials": (1, 100_000),
        "epochs": (1, 2**31 - 1),
        "gpu_hours": (1e-6, 1e9),
        "hours": (1e-6, 1e9),
        "money": (1e-6, 1e12),
        "price_per_hour": (1e-6, 1e9),
        "priority": (-MOST_PRIORITY, MOST_PRIORITY),
    }
    given = {key: value for key in limits if (value := getattr(wishes, key)) is not None}
    if not given:
        raise UsageError(
            "nothing to change", fix="give --trials, --epochs, --gpu-hours, --hours, --money or --priority"
        )
    for key, value in given.items():
        low, high = limits[key]
        if not low <= value <= high:  # false for nan, too
            option = f"--{key.replace('_', '-')}"
            raise UsageError(f"{option} must be {_plainly(low)} to {_plainly(high)}, got {_plainly(value)}")


def _require_above_use(study: StudyRecord, wishes: Wishes, *, least: Least) -> None:
    used = study.used
    if wishes.trials is not None and wishes.trials < used.trials:
        raise ConflictError(
            f'study "{study.name}" has {count_noun(used.trials, "trial")} already',
            fix=f"--trials {used.trials} starts no new one",
        )
    if wishes.epochs is not None and wishes.epochs < used.epochs:
        raise ConflictError(
            f'study "{study.name}" has used or promised {count_noun(used.epochs, "epoch")} already',
            fix=f"--epochs {used.epochs} starts no new trial",
        )
    kept = ", a part kept for the confirmation" if study.spec.confirm.finalists else ""
    stop = f"--trials {used.trials} starts no new one"
    if wishes.gpu_hours is not None and wishes.gpu_hours < least.gpu_hours:
        raise ConflictError(
            f'study "{study.name}" has used {used.gpu_seconds / 3600.0:.2f} device hours already{kept}',
            fix=f"--gpu-hours {least.gpu_hours:.2f} is the least; {stop}",
        )
    if wishes.hours is not None and wishes.hours < least.hours:
        raise ConflictError(
            f'study "{study.name}" began {used.wall_seconds / 3600.0:.2f} hours ago{kept}',
            fix=f"--hours {least.hours:.2f} is the least; {stop}",
        )
    _require_affordable(study, wishes, least=least, kept=kept, stop=stop)


def _require_affordable(study: StudyRecord, wishes: Wishes, *, least: Least, kept: str, stop: str) -> None:
    if wishes.money is None and wishes.price_per_hour is None:
        return
    price = wishes.price_per_hour or study.spec.budget.price_per_hour
    if price is None:
        raise UsageError(f'study "{study.name}" has no price of a device hour', fix="give --price-per-hour, too")
    money = wishes.money or study.spec.budget.money
    if money is not None and money < least.gpu_hours * price:
        raise ConflictError(
            f'study "{study.name}" has cost {study.used.gpu_seconds / 3600.0 * price:.2f} already{kept}',
            fix=f"--money {math.ceil(least.gpu_hours * price * 100.0) / 100.0:.2f} is the least; {stop}",
        )


def _plainly(number: float) -> str:
    return f"{number:,.6f}".rstrip("0").rstrip(".")


def _shown(limit: float | None) -> str:
    return "no limit" if limit is None else f"{limit:g}"


def enqueue(
    db: Database, name: str, *, strategy: str | None, values: Mapping[str, Value], who: str, quota: Quota
) -> int:
    """Add a trial with values of one's own; it runs before any that is sampled.

    Args:
        name: The study.
        strategy: Its strategy; None where the study has only one.
        values: Absolute values by name, as ``tuner study trials`` shows them; what is left out is sampled.
        who: Who asks.
        quota: Judges the budget: the trial is one of it.

    Returns:
        The trial's number.

    Raises:
        NotFoundError: If there is no such study.
        UsageError: If the values are not in the study's space; the message has all mistakes.
        ConflictError: If the study is over, or its budget has no room.
    """
    request = uuid.uuid4().hex
    tries = itertools.count()

    def _enqueue(tx: Connection) -> int:
        study = locked(tx, name)
        if next(tries) and (known := optuna_rows.changed_by(tx, study.study_id, request)) is not None:
            return known  # an earlier try took effect although its connection broke
        chosen = choose_strategy(study.space, strategy)
        proposal = as_proposal(study.space.block(chosen), values)
        _require_room(study, quota(study.spec, study.used))
        trial_id, number = optuna_rows.create_trial(
            tx, study_id=study.study_id, fixed_params={"strategy": chosen, **proposal}
        )
        optuna_rows.set_state(tx, trial_id, Outcome.WAITING)
        optuna_rows.set_user_attributes(tx, trial_id, {"tuner:enqueued_by": who})
        words = "".join(f" {key}={value}" for key, value in values.items())
        text = f"enqueued by {who}: {chosen}{words}"
        optuna_rows.note_request(tx, trial_id, request)
        _insert_run(tx, study, trial_id=trial_id, number=number, reason=text)
        events.record(tx, "trial_enqueued", text, study_id=study.study_id, number=number, who=who)
        return number

    return db.write(_enqueue)


def _insert_run(tx: Connection, study: StudyRecord, *, trial_id: int, number: int, reason: str) -> None:
    tx.execute(
        insert(runs).values(
            study_id=study.study_id,
            trial_id=trial_id,
            number=number,
            purpose="search",
            seed=study.spec.training.seed,
            outcome=Outcome.WAITING.value,
            reason=reason,
            is_recipe=False,
            learnt_from="",
            attempt=0,
            token="",
            losses=0,
            asked="",
            reserved_epochs=study.spec.training.epochs,
            epochs_done=0,
            checkpoint="",
            is_baseline=False,
            created_at=db_now(),
        )
    )


def _require_room(study: StudyRecord, over: str) -> None:
    more = f"tuner study set {study.name} --trials {study.used.trials + 1}"
    if study.state is StudyState.STOPPED:
        raise ConflictError(
            f'study "{study.name}" is stopped', why=study.state_reason, fix=f"tuner study resume {study.name}"
        )
    if over:
        raise ConflictError(f'study "{study.name}" has no room for another trial', why=over, fix=more)
    if study.search_over and study.search_over != EXHAUSTED:
        more = f"tuner study resume {study.name}{'' if study.state is StudyState.FINISHED else ', once it is finished'}"
    if study.state in (StudyState.CONFIRMING, StudyState.FINISHED):
        raise ConflictError(f'study "{study.name}" does not search any more', why=study.state_reason, fix=more)


def locked(tx: Connection, name: str) -> StudyRecord:
    """The study of this name, locked until the end of the transaction, as it is then.

    Raises:
        NotFoundError: If there is none.
    """
    study_id = tx.execute(select(studies.c.study_id).where(studies.c.name == name)).scalar_one_or_none()
    if study_id is not None:
        lock_study(tx, study_id)
    return read_study(tx, name)
