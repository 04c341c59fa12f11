"""What a supervisor does about each word of a runner, and about its death.

Every function either stores what was said or raises :class:`tuner.errors.UnavailableError`, after which it is called again with
the same message: nothing is half done.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tuner.errors import LeaseLost, TrialError
from tuner.store import leases
from tuner.store.database import Database
from tuner.store.records import Outcome
from tuner.study.plan import TrialResult, Verdict
from tuner.worker import protocol
from tuner.worker.events import EpochReported, Event, RunEnded, RunProgress
from tuner.worker.slot import Job, Slot, describe_death


@dataclass(frozen=True, kw_only=True, slots=True)
class Desk:
    """What dealing with messages needs.

    Attributes:
        db: The database.
        show: Takes events.
        lease: Seconds by which a report extends a lease.
    """

    db: Database
    show: Callable[[Event], None]
    lease: float


def deal(desk: Desk, slot: Slot, message: protocol.Message, *, is_draining: bool) -> None:
    """Act on one message of a slot's runner.

    Raises:
        UnavailableError: If the database cannot be reached; deal with the same message again later.
    """
    job = slot.job
    match message:
        case protocol.Ready():
            slot.is_ready = slot.was_ready = True
            slot.failed_starts = 0
        case protocol.Started(key=key, facts=facts) if _is_of(job, key):
            assert job is not None
            _unless_lost(job, lambda: leases.store_facts(desk.db, job.lease, facts))
        case protocol.Progress(key=key, epoch=epoch, fraction=fraction) if _is_of(job, key):
            assert job is not None
            desk.show(
                RunProgress(
                    study=job.driver.study.name,
                    number=job.lease.number,
                    slot=slot.name,
                    epoch=epoch,
                    fraction=fraction,
                )
            )
        case protocol.Report():
            _report(desk, slot, message, is_draining=is_draining)
        case protocol.Finished(key=key, result=result) if _is_of(job, key):
            assert job is not None
            _finished(desk, slot, job=job, result=TrialResult.from_json(result))
        case protocol.Failed(key=key) if _is_of(job, key):
            assert job is not None
            _failed(desk, slot, job=job, message=message)
        case _:
            pass  # about a run that this slot no longer has


def deal_with_death(desk: Desk, slot: Slot) -> None:
    """Act on a runner that ended without a word about its run, or with one.

    Raises:
        UnavailableError: If the database cannot be reached; call again later.
    """
    if slot.process is not None:
        slot.exit_status = slot.reap()
    job = slot.job
    if job is None:
        return
    reason = job.kill_reason or describe_death(slot.exit_status)
    outcome = Outcome.LOST
    if not job.is_lost:
        tail = slot.log_tail(job.log_start)
        try:
            if job.prune_reason:
                job.driver.cut(job.lease, reason=job.prune_reason, seconds=job.seconds)
                outcome, reason = Outcome.PRUNED, job.prune_reason
            elif job.stop_asked_at is not None and not job.kill_reason:
                leases.release(desk.db, job.lease, reason=reason, seconds=job.seconds)
                outcome = Outcome.RELEASED
            else:
                outcome = leases.lose(desk.db, job.lease, reason=reason, seconds=job.seconds, log_tail=tail)
                if outcome is Outcome.WAITING:
                    outcome = Outcome.LOST
        except LeaseLost:
            pass
    _ended(desk, slot, job, outcome=outcome, reason=reason)


def _is_of(job: Job | None, key: str) -> bool:
    return job is not None and job.key == key


def _unless_lost(job: Job, write: Callable[[], None]) -> None:
    if job.is_lost:
        return
    try:
        write()
    except LeaseLost:
        job.is_lost = True


def _report(desk: Desk, slot: Slot, message: protocol.Report, *, is_draining: bool) -> None:
    job = slot.job
    verdict = Verdict.STOP
    if job is not None and job.key == message.key and not job.is_lost:
        verdict = _judge(desk, slot, job=job, message=message)
        if is_draining and verdict is Verdict.GO_ON:
            verdict = Verdict.RELEASE
    slot.send(protocol.Answer(key=message.key, epoch=message.epoch, verdict=verdict.value))


def _judge(desk: Desk, slot: Slot, *, job: Job, message: protocol.Report) -> Verdict:
    driver = job.driver
    try:
        verdict, why = driver.report(
            job.lease, epoch=message.epoch, metrics=message.metrics, seconds=message.seconds, extend=desk.lease
        )
    except LeaseLost:
        job.is_lost = True
        return Verdict.STOP
    except TrialError as error:
        driver.fail(
            job.lease,
            outcome=Outcome.FAILED,
            reason=str(error),
            seconds=message.seconds,
            log_tail=slot.log_tail(job.log_start),
        )
        job.is_lost = True
        job.kill_reason = str(error)
        return Verdict.STOP
    if verdict is Verdict.PRUNE:
        job.prune_reason = why
    desk.show(
        EpochReported(
            study=driver.study.name,
            number=job.lease.number,
            seed=job.seed,
            slot=slot.name,
            epoch=message.epoch,
            epochs=driver.study.spec.training.epochs,
            metric=driver.study.metric,
            value=float(message.metrics[driver.study.metric]),
            seconds=message.seconds,
        )
    )
    return verdict


def _finished(desk: Desk, slot: Slot, *, job: Job, result: TrialResult) -> None:
    outcome, reason, value = Outcome.LOST, "the run has another owner now", None
    if result.ended_by == Verdict.STOP.value and job.prune_reason:  # stopped within an epoch, for its budget
        result = replace(result, ended_by=Verdict.PRUNE.value)
    try:
        if job.is_lost or result.ended_by == Verdict.STOP.value:
            reason = job.kill_reason or reason
        elif result.ended_by == Verdict.RELEASE.value:
            outcome, reason = Outcome.RELEASED, "the worker was told to stop"
            leases.release(desk.db, job.lease, reason=reason, seconds=result.seconds)
        else:
            outcome, value = job.driver.finish(job.lease, result=result, reason=job.prune_reason)
            reason = job.prune_reason
            _clear_attempts(job, kept=result.checkpoint)
    except LeaseLost:
        outcome, reason, value = Outcome.LOST, "the run has another owner now", None
    _ended(desk, slot, job, outcome=outcome, reason=reason, value=value)


def _failed(desk: Desk, slot: Slot, *, job: Job, message: protocol.Failed) -> None:
    outcome = Outcome(message.outcome)
    log_tail = message.traceback or slot.log_tail(job.log_start)
    try:
        if not job.is_lost:
            job.driver.fail(
                job.lease, outcome=outcome, reason=message.reason, seconds=message.seconds, log_tail=log_tail
            )
            _clear_attempts(job, kept="")
    except LeaseLost:
        outcome = Outcome.LOST
    if message.recycle:
        slot.is_ready = False  # it ends itself; a fresh one follows
    _ended(desk, slot, job, outcome=outcome, reason=message.reason)


def _clear_attempts(job: Job, *, kept: str) -> None:
    """Remove the checkpoints of a finished run's attempts, but the one folder that its result names."""
    for folder in job.folder.parent.glob("attempt-*"):
        if not kept or not Path(kept).is_relative_to(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _ended(desk: Desk, slot: Slot, job: Job, *, outcome: Outcome, reason: str, value: float | None = None) -> None:
    slot.job = None
    desk.show(
        RunEnded(
            study=job.driver.study.name,
            number=job.lease.number,
            seed=job.seed,
            slot=slot.name,
            outcome=outcome,
            reason=reason,
            metric=job.driver.study.metric,
            value=value,
            seconds=job.seconds,
        )
    )
