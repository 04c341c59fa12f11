"""The functions of ``import tuner`` that change a study while it runs; the command line calls the same ones.

Each writes to the database what is asked, and who asks; workers on any box see it before their next claim or at their next sign of life.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuner.store.records import Outcome, StudyRecord, StudyState, WorkerRecord
    from tuner.study.domains import Value


def pause_study(name: str, *, now: bool = False, reason: str = "", storage: str | None = None) -> StudyRecord:
    """Let nothing of a study be claimed until it is resumed; what runs goes on.

    Args:
        name: The study.
        now: What runs is given back, too, at the next sign of life of its worker and with its last checkpoint.
        reason: Why, for the others.
        storage: Database URL; else ``TUNER_STORAGE``, else ``sqlite:///tuner.db``.

    Raises:
        NotFoundError: If there is no such study.
        ConflictError: If it is finished or stopped.
        UnavailableError: If the database cannot be reached.

    Example:
        >>> import tuner
        >>> tuner.pause_study("example", reason="the disk is being swapped", storage="sqlite:///tuner.db").state.value
        'paused'
    """
    from tuner.store import control, location
    from tuner.store.database import Database

    with Database.open(location.storage_url(storage)) as database:
        return control.pause(database, name, who=control.this_person(), reason=reason, now=now)


def resume_study(name: str, *, storage: str | None = None) -> StudyRecord:
    """Let workers go on with a study that was paused or stopped, or that ended early by its ``stop_when``, which is taken back.

    Args:
        name: The study.
        storage: Database URL; else ``TUNER_STORAGE``, else ``sqlite:///tuner.db``.

    Raises:
        NotFoundError: If there is no such study.
        ConflictError: If it is finished, and its budget is used.
        UnavailableError: If the database cannot be reached.

    Example:
        >>> import tuner
        >>> tuner.resume_study("example", storage="sqlite:///tuner.db").state.value
        'searching'
    """
    from tuner.store import control, location
    from tuner.store.database import Database

    with Database.open(location.storage_url(storage)) as database:
        return control.resume(database, name, who=control.this_person())


def stop_study(name: str, *, now: bool = False, reason: str = "", storage: str | None = None) -> StudyRecord:
    """End a study where it is: nothing more of it is claimed, its confirmation neither. :func:`resume_study` takes it back.

    Args:
        name: The study.
        now: What runs is given back, too, at the next sign of life of its worker and with its last checkpoint.
        reason: Why, for the others.
        storage: Database URL; else ``TUNER_STORAGE``, else ``sqlite:///tuner.db``.

    Raises:
        NotFoundError: If there is no such study.
        ConflictError: If it is finished.
        UnavailableError: If the database cannot be reached.

    Example:
        >>> import tuner
        >>> tuner.stop_study("example", storage="sqlite:///tuner.db").state.value
        'stopped'
    """
    from tuner.store import control, location
    from tuner.store.database import Database

    with Database.open(location.storage_url(storage)) as database:
        return control.stop(database, name, who=control.this_person(), reason=reason, now=now)


def enqueue_trial(
    name: str, *, values: Mapping[str, Value], strategy: str | None = None, storage: str | None = None
) -> int:
    """Add a trial with values of one's own; it runs before any that is sampled.

    Args:
        name: The study.
        values: Absolute values by name, such as ``{"learning_rate": 3e-4}``; what is left out is sampled.
        strategy: The trial's strategy; None where the study has only one.
        storage: Database URL; else ``TUNER_STORAGE``, else ``sqlite:///tuner.db``.

    Returns:
        The trial's number.

    Raises:
        NotFoundError: If there is no such study.
        UsageError: If the values are not in the study's space; the message has all mistakes.
        ConflictError: If the study is over, or its budget has no room.
        UnavailableError: If the database cannot be reached.

    Example:
        >>> import tuner
        >>> tuner.enqueue_trial("example", strategy="head", values={"learning_rate": 1e-3}, storage="sqlite:///tuner.db")
        2
    """
    from tuner.search.budget import why_no_new_trial
    from tuner.store import control, location
    from tuner.store.database import Database

    with Database.open(location.storage_url(storage)) as database:
        who = control.this_person()
        return control.enqueue(database, name, strategy=strategy, values=values, who=who, quota=why_no_new_trial)


def change_study(
    name: str,
    *,
    trials: int | None = None,
    epochs: int | None = None,
    gpu_hours: float | None = None,
    hours: float | None = None,
    money: float | None = None,
    price_per_hour: float | None = None,
    priority: int | None = None,
    storage: str | None = None,
) -> StudyRecord:
    """Give a study another budget or priority; one that is finished goes on where that makes room for trials.

    Args:
        name: The study.
        trials: Trials, the pruned ones included; never less than it has.
        epochs: Epochs over all trials.
        gpu_hours: Device hours, the confirmation's part included.
        hours: Hours by the clock since the first trial began.
        money: What device hours may cost.
        price_per_hour: What an hour of one slot costs.
        priority: Studies with a higher one are served first; 0 is the usual one.
        storage: Database URL; else ``TUNER_STORAGE``, else ``sqlite:///tuner.db``.

    Raises:
        NotFoundError: If there is no such study.
        UsageError: If a number is out of its range, or none is given.
        ConflictError: If the study has used more already.
        UnavailableError: If the database cannot be reached.

    Example:
        >>> import tuner
        >>> tuner.change_study("example", trials=3, priority=5, storage="sqlite:///tuner.db").spec.budget.trials
        3
    """
    from tuner.search.budget import least_limits, why_no_new_trial
    from tuner.store import control, location
    from tuner.store.database import Database

    wishes = control.Wishes(
        trials=trials,
        epochs=epochs,
        gpu_hours=gpu_hours,
        hours=hours,
        money=money,
        price_per_hour=price_per_hour,
        priority=priority,
    )
    with Database.open(location.storage_url(storage)) as database:
        return control.change(
            database,
            name,
            wishes=wishes,
            who=control.this_person(),
            quota=why_no_new_trial,
            least=least_limits,
        )


def stop_trial(name: str, *, number: int, reason: str = "", storage: str | None = None) -> Outcome:
    """End one trial as pruned: what it has reported counts.

    Args:
        name: The study.
        number: The trial.
        reason: Why, for the others.
        storage: Database URL; else ``TUNER_STORAGE``, else ``sqlite:///tuner.db``.

    Returns:
        PRUNED where it waited and is ended now; RUNNING where its worker ends it at the next sign of life.

    Raises:
        NotFoundError: If there is no such study or trial.
        ConflictError: If the trial has ended already.
        UnavailableError: If the database cannot be reached.

    Example:
        >>> import tuner
        >>> tuner.stop_trial("example", number=2, storage="sqlite:///tuner.db").value
        'pruned'
    """
    from tuner.store import control, location, trial_control
    from tuner.store.database import Database

    with Database.open(location.storage_url(storage)) as database:
        return trial_control.stop_trial(database, name, number, who=control.this_person(), reason=reason)


def retry_trials(name: str, *, numbers: Sequence[int], storage: str | None = None) -> StudyState:
    """Let trials run again that are errored, infeasible or diverged: each under its number, with its values, from its beginning.

    Of a trial that has a result, the re-trainings that ended badly run again.

    Args:
        name: The study; one that is finished goes on.
        numbers: The trials.
        storage: Database URL; else ``TUNER_STORAGE``, else ``sqlite:///tuner.db``.

    Returns:
        The study's state then: a paused or stopped one stays so.

    Raises:
        NotFoundError: If there is no such study or trial.
        ConflictError: If one of the trials has not ended badly, or the budget has no room; then nothing is changed.
        UnavailableError: If the database cannot be reached.

    Example:
        >>> import tuner
        >>> failed = [trial.number for trial in tuner.load_study("example", storage="sqlite:///tuner.db").trials
        ...           if trial.outcome.value == "errored"]
        >>> tuner.retry_trials("example", numbers=failed, storage="sqlite:///tuner.db").value
        'stopped'
    """
    from tuner.search.budget import why_not_again
    from tuner.store import control, location, trial_control
    from tuner.store.database import Database

    with Database.open(location.storage_url(storage)) as database:
        who = control.this_person()
        return trial_control.retry_trials(database, name, numbers, who=who, limit=why_not_again)


def drain_workers(
    *, worker: str | None = None, host: str | None = None, everyone: bool = False, storage: str | None = None
) -> list[WorkerRecord]:
    """Ask workers to give back what they run, with its checkpoints, and to end.

    Args:
        worker: The worker's id, or the beginning of it.
        host: All workers of this host.
        everyone: All workers.
        storage: Database URL; else ``TUNER_STORAGE``, else ``sqlite:///tuner.db``.

    Returns:
        Those that were asked; they see it at their next sign of life.

    Raises:
        UsageError: If not exactly one of the three is given, or several workers' ids begin so.
        NotFoundError: If there is no such worker.
        UnavailableError: If the database cannot be reached.

    Example:
        >>> import tuner
        >>> tuner.drain_workers(everyone=True, storage="sqlite:///tuner.db")
        []
    """
    from tuner.store import control, location, workers
    from tuner.store.database import Database

    with Database.open(location.storage_url(storage)) as database:
        who = control.this_person()
        return workers.ask_to_drain(database, worker=worker, host=host, everyone=everyone, who=who)
