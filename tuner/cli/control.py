"""``tuner study pause``, ``resume``, ``stop``, ``set`` and ``enqueue``: what a person changes while a study runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuner.cli.options import Json, Reason, Storage, StudyName
from tuner.cli.output import emit, message, next_steps
from tuner.errors import UsageError

if TYPE_CHECKING:
    from tuner.store.records import StudyRecord
    from tuner.study.domains import Value

Now = Annotated[bool, typer.Option("--now", help="running trials are given back, too, with their last checkpoints")]


def pause(*, name: StudyName, now: Now = False, reason: Reason = "", storage: Storage = None) -> None:
    """Let nothing of a study be claimed until it is resumed; its running trials finish.

    With --now they are given back at their workers' next sign of life, with their last checkpoints.

    \b
    Examples:
      tuner study pause my-study
      tuner study pause my-study --now --reason "the cluster is needed"
    """
    from tuner import live

    study = live.pause_study(name, now=now, reason=reason, storage=storage)
    _say_halted(study, now=now)
    next_steps(f"tuner study resume {name}", storage=storage)


def resume(*, name: StudyName, storage: Storage = None) -> None:
    """Let workers go on with a study that was paused or stopped, or that "stop_when" ended early: it goes on to its budget.

    Studies are also paused by themselves, for example because their first trials all failed.

    \b
    Examples:
      tuner study resume my-study
    """
    from tuner import live

    study = live.resume_study(name, storage=storage)
    message(f"study {name} is {study.state.value}")
    next_steps(f"tuner worker start --study {name} --until-done", storage=storage)


def stop(*, name: StudyName, now: Now = False, reason: Reason = "", storage: Storage = None) -> None:
    """End a study where it is; its running trials finish, and the best so far are not confirmed.

    To end only the search, and have the finalists confirmed, lower its budget to what it has: tuner study set NAME --trials N.
    "tuner study resume" takes a stop back.

    \b
    Examples:
      tuner study stop my-study
      tuner study stop my-study --now --reason "wrong data"
    """
    from tuner import live

    study = live.stop_study(name, now=now, reason=reason, storage=storage)
    _say_halted(study, now=now)
    next_steps(f"tuner study best {name}", f"tuner study resume {name}", storage=storage)


def _say_halted(study: StudyRecord, *, now: bool) -> None:
    message(f"study {study.name} is {study.state.value}")
    if running := study.counts["running"]:
        one = running == 1
        whose = "its worker's" if one else "their workers'"
        end = f"given back at {whose} next sign of life" if now else "left to finish"
        more = "" if now else f"; with --now {'it is' if one else 'they are'} given back"
        message(f"{running} running trial{' is' if one else 's are'} {end}{more}")


def _limit(option: str, number: str, help_: str) -> Any:
    """An option that changes nothing where it is left out."""
    return typer.Option(option, metavar=number, show_default=False, help=help_)


def change(
    *,
    name: StudyName,
    trials: Annotated[int | None, _limit("--trials", "N", "trials")] = None,
    epochs: Annotated[int | None, _limit("--epochs", "N", "epochs over all trials")] = None,
    gpu_hours: Annotated[float | None, _limit("--gpu-hours", "X", "device hours, the confirmation's included")] = None,
    hours: Annotated[float | None, _limit("--hours", "X", "hours by the clock since the first trial began")] = None,
    money: Annotated[float | None, _limit("--money", "X", "what device hours may cost")] = None,
    price_per_hour: Annotated[float | None, _limit("--price-per-hour", "X", "what an hour of one slot costs")] = None,
    priority: Annotated[int | None, _limit("--priority", "P", "higher is served first; 0 is the usual one")] = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Change the budget or the priority of a study, also while it runs.

    A budget is never lower than what is used. A finished study whose budget is raised goes on searching, and its finalists are chosen
    anew. Studies of one priority share the workers evenly; one of a higher priority takes all that get free.

    \b
    Examples:
      tuner study set my-study --trials 60
      tuner study set my-study --gpu-hours 12 --priority 5
      tuner study set my-study --money 40 --price-per-hour 2.5
    """
    from tuner import live
    from tuner.cli.documents import study_row
    from tuner.cli.views import budget_words
    from tuner.search.budget import why_no_new_trial
    from tuner.store.records import StudyState

    study = live.change_study(
        name,
        trials=trials,
        epochs=epochs,
        gpu_hours=gpu_hours,
        hours=hours,
        money=money,
        price_per_hour=price_per_hour,
        priority=priority,
        storage=storage,
    )
    if as_json:
        emit({"study": study_row(study)})
        return
    message(f"study {name} is {study.state.value}, priority {study.priority}: {budget_words(study)}")
    if study.state.is_open:
        next_steps(f"tuner worker start --study {name} --until-done", f"tuner study watch {name}", storage=storage)
    elif study.state is StudyState.FINISHED:
        used = why_no_new_trial(study.spec, study.used)
        message(f"it stays finished: {used or study.state_reason}")
        if not used and study.spec.search.stop_when is not None:
            next_steps(f"tuner study resume {name}", storage=storage)


def enqueue(
    *,
    name: StudyName,
    strategy: Annotated[
        str | None,
        typer.Option("--strategy", metavar="NAME", show_default=False, help="needed where the study has several"),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", show_default=False, help="a value, absolute (again for more)"),
    ] = None,
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Add a trial with values of your own; it runs before any that is sampled.

    Values stand as in "tuner study trials"; what is left out is sampled. The trial is one of the study's budget.

    \b
    Examples:
      tuner study enqueue my-study --strategy lora --set learning_rate=3e-4
      tuner study enqueue my-study --strategy lora --set learning_rate=3e-4 --set lora.r=16
    """
    from tuner import live

    number = live.enqueue_trial(name, strategy=strategy, values=_read_values(values or []), storage=storage)
    if as_json:
        emit({"name": name, "trial": number})
        return
    message(f"trial {number} of study {name} waits for a worker")
    next_steps(f"tuner study watch {name}", storage=storage)


def _read_values(words: list[str]) -> dict[str, Value]:
    found: dict[str, Value] = {}
    for word in words:
        name, equals, value = word.partition("=")
        name = name.strip()
        if not equals or not name or not value.strip():
            raise UsageError(f'--set: NAME=VALUE expected, got "{word}"', fix="as in --set learning_rate=3e-4")
        if name in found:
            raise UsageError(f"--set: {name} is given twice")
        found[name] = value.strip()
    return found
