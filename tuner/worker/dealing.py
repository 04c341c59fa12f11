"""What a supervisor does about each word of a runner, and about its death.

What is said of the end of a run waits for the database: the function raises :class:`tuner.errors.UnavailableError` and is called
again with the same message; nothing is half done. What is said while a run goes on is answered at once, so that no device waits for a
database, and told to it by :func:`catch_up` when it is back.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tuner.errors import ConfigurationError, LeaseLost, TrialError, UnavailableError
from tuner.source import this_code
from tuner.store import fits, leases
from tuner.store.database import Database
from tuner.store.records import Outcome
from tuner.store.rows import first_facts
from tuner.study.plan import TrialResult, Verdict
from tuner.worker import protocol
from tuner.worker.events import EpochReported, Event, Notice, RunEnded, RunProgress
from tuner.worker.health import Health, kernel_kills
from tuner.worker.outage import Outage
from tuner.worker.room import Room
from tuner.worker.slot import Job, Slot, describe_death
from tuner.worker.verdicts import judge

_MOST_LOG = 16_000  # characters that are kept of a log
_ANOTHER_OWNER = "the run has another owner now, or is gone"


@dataclass(frozen=True, kw_only=True, slots=True)
class Desk:
    """What dealing with messages needs.

    Attributes:
        db: The database.
        show: Takes events.
        lease: Seconds by which a report extends a lease.
        outage: Whether the database can be reached.
        health: Of the devices.
        room: Whether there is room for what runs write.
        refuse: Takes the name of a study that this worker shall serve no more, and why; None serves it whatever its rows are.
    """

    db: Database
    show: Callable[[Event], None]
    lease: float
    outage: Outage
    health: Health
    room: Room
    refuse: Callable[[str, ConfigurationError], None] | None = None


def deal(desk: Desk, slot: Slot, message: protocol.Message, *, is_draining: bool) -> None:
    """Act on one message of a slot's runner.

    Raises:
        UnavailableError: If the database cannot be reached; deal with the same message again later.
    """
    job = slot.job
    match message:
        case protocol.Ready(device=device):
            slot.is_ready = slot.was_ready = True
            shares = slot.place.shares
            slot.device = f"{device}, shared by {shares}" if device and shares > 1 else device
            slot.failed_starts = 0
        case protocol.Started(key=key) | protocol.Fit(key=key) | protocol.Recall(key=key) if _is_of(job, key):
            assert job is not None
            verdict = _store_or_keep(desk, slot, job=job, message=message)
            if verdict is not Verdict.GO_ON and job.stop_asked_at is None:
                interrupt(slot, job, verdict)
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
        case protocol.Finished(key=key, result=result, leak=leak) if _is_of(job, key):
            assert job is not None
            _finished(desk, slot, job=job, result=TrialResult.from_json(result))
            desk.health.worked(slot)
            if leak:
                _replace(desk, slot, leak=leak)
        case protocol.Failed(key=key) if _is_of(job, key):
            assert job is not None
            _failed(desk, slot, job=job, message=message)
        case protocol.NoRoom(key=key) if _is_of(job, key):
            assert job is not None
            _no_room(desk, slot, job=job, message=message)
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
    catch_up(desk, slot)
    short = slot.exit_status == -signal.SIGKILL and not job.kill_reason and _kernel_killed(job)
    reason = slot.cannot_start or job.kill_reason or describe_death(slot.exit_status, by_kernel=short)
    outcome = job.ended_as
    if not job.is_lost:
        try:
            if job.prune_reason:
                job.driver.cut(job.lease, reason=job.prune_reason, seconds=job.seconds)
                outcome, reason = Outcome.PRUNED, job.prune_reason
            elif slot.cannot_start or (job.stop_asked_at is not None and not job.kill_reason):
                leases.release(desk.db, job.lease, reason=reason, seconds=job.seconds)
                outcome = Outcome.PREEMPTED
            elif short:
                less = max(job.micro_batch // 2, 1)
                outcome, reason = _try_with_less(desk, slot, job, reason=reason, seconds=job.seconds, micro_batch=less)
            else:
                outcome, reason = _try_again(desk, slot, job, reason=reason, seconds=job.seconds)
                if not job.kill_reason and slot.exit_status != -signal.SIGKILL:  # that somebody sent
                    desk.health.died(slot, run=job.lease.run_id)
        except LeaseLost:
            pass
    _ended(desk, slot, job, outcome=outcome, reason=reason)


def _try_again(
    desk: Desk, slot: Slot, job: Job, *, reason: str, seconds: float, ended: Outcome = Outcome.LOST, traceback: str = ""
) -> tuple[Outcome, str]:
    """End an attempt after which another one may succeed; what became of it, or ERRORED where it was the last, and why.

    Raises:
        LeaseLost: If the run is no longer ours.
    """
    log_tail = _last_words(slot, job, traceback)
    outcome = leases.lose(desk.db, job.lease, reason=reason, seconds=seconds, log_tail=log_tail, ended=ended)
    if outcome is Outcome.WAITING:
        return ended, f"{reason}; it waits for another attempt"
    _clear_attempts(job, kept="")
    return outcome, f"{reason}; given up"


def _try_with_less(
    desk: Desk, slot: Slot, job: Job, *, reason: str, seconds: float, micro_batch: int, traceback: str = ""
) -> tuple[Outcome, str]:
    """End an attempt whose memory ran out: once there is another in a fresh process; what became of it, and why.

    Raises:
        LeaseLost: If the run is no longer ours.
    """
    log_tail = _last_words(slot, job, traceback)
    end: dict[str, Any] = {"seconds": seconds, "log_tail": log_tail}
    if fits.try_with_less(desk.db, job.lease, micro_batch=micro_batch, reason=reason, **end):
        return Outcome.INFEASIBLE, f"{reason}; it waits for another attempt in a fresh process"
    reason = f"{reason}; so it did before in another process"
    job.driver.fail(job.lease, outcome=Outcome.INFEASIBLE, reason=reason, **end)
    _clear_attempts(job, kept="")
    return Outcome.INFEASIBLE, reason


def _kernel_killed(job: Job) -> bool | None:
    """Whether the kernel has killed a process for lack of memory since the run began; None if it does not tell."""
    now = kernel_kills()
    return None if now is None or job.kills_before is None else now > job.kills_before


def _replace(desk: Desk, slot: Slot, *, leak: str) -> None:
    """A runner that keeps too much ends itself; a fresh one follows."""
    slot.is_ready = False
    if slot.leaks == 0:
        desk.show(Notice(level="warning", text=f"{slot.name}: its runner is replaced between trials: {leak}"))
    slot.leaks += 1


def _last_words(slot: Slot, job: Job, traceback: str = "") -> str:
    """What is kept of a runner's log where a run ends badly, and the traceback of what ended it."""
    return "\n".join(part for part in (slot.log_tail(job.log_start), traceback) if part)[-_MOST_LOG:]


def _is_of(job: Job | None, key: str) -> bool:
    return job is not None and job.key == key


def _unless_lost(job: Job, write: Callable[[], None]) -> None:
    if job.is_lost:
        return
    try:
        write()
    except LeaseLost:
        job.is_lost = True


def needs_database(message: protocol.Message) -> bool:
    """Whether a message can only be dealt with while the database is there."""
    return isinstance(message, protocol.Finished | protocol.Failed | protocol.NoRoom)


def catch_up(desk: Desk, slot: Slot) -> None:
    """Tell the database what a runner said while it was gone, in order.

    Raises:
        UnavailableError: If it is gone again; what was told is not told twice.
    """
    job = slot.job
    while job is not None and job.backlog and not job.is_lost:
        verdict = _store(desk, slot, job=job, message=job.backlog[0])
        job.backlog.popleft()
        if verdict is not Verdict.GO_ON and job.stop_asked_at is None:
            # Of a loser the reason is kept with the job; the runner has trained on since and need only end.
            interrupt(slot, job, verdict if verdict is Verdict.RELEASE else Verdict.STOP)


def interrupt(slot: Slot, job: Job, verdict: Verdict) -> None:
    """Tell a runner to end its run within a step."""
    job.stop_asked_at = time.monotonic()
    slot.send(protocol.Interrupt(key=job.key, verdict=verdict.value))


def _report(desk: Desk, slot: Slot, message: protocol.Report, *, is_draining: bool) -> None:
    job = slot.job
    verdict = Verdict.STOP
    if job is not None and job.key == message.key and not job.is_lost:
        verdict = _store_or_keep(desk, slot, job=job, message=message)
        if is_draining and verdict is Verdict.GO_ON:
            verdict = Verdict.RELEASE
        job.heard_at = time.monotonic()  # it was waiting for us
    slot.send(protocol.Answer(key=message.key, epoch=message.epoch, verdict=verdict.value))


def _store_or_keep(
    desk: Desk, slot: Slot, *, job: Job, message: protocol.Started | protocol.Fit | protocol.Recall | protocol.Report
) -> Verdict:
    """Store what was said, or keep it for later; a device never waits for a database."""
    if not desk.outage.is_on and not job.backlog:
        try:
            return _store(desk, slot, job=job, message=message)
        except UnavailableError as error:
            desk.outage.begin(error)
    job.backlog.append(message)
    return Verdict.GO_ON


def _store(
    desk: Desk, slot: Slot, *, job: Job, message: protocol.Started | protocol.Fit | protocol.Recall | protocol.Report
) -> Verdict:
    match message:
        case protocol.Report():
            return _judge(desk, slot, job=job, message=message)
        case protocol.Started(facts=facts):
            _unless_lost(job, lambda: leases.store_facts(desk.db, job.lease, {**facts, "code": this_code()}))
            return _compare_with_first(desk, job, facts=facts)
        case protocol.Fit(micro_batch=micro_batch):
            job.micro_batch = micro_batch
            if slot.device:
                key = fits.FitKey.of(job.driver.study.spec, strategy=job.lease.strategy or "", device=slot.device)
                fits.remember(desk.db, key, micro_batch)
        case protocol.Recall(epoch=epoch, metrics=metrics):
            _unless_lost(job, lambda: job.driver.recall(job.lease, epoch=epoch, metrics=metrics))
    return Verdict.GO_ON


def _compare_with_first(desk: Desk, job: Job, *, facts: Mapping[str, Any]) -> Verdict:
    """Give a run back, and its study up, that learns from other rows or weights here than the study's first trial did: their scores cannot be compared."""
    study = job.driver.study
    if desk.refuse is None or job.is_lost:
        return Verdict.GO_ON
    # Digest, what it is of, and what to do: of the rows that a confirmation has where they are divided into folds there is no first.
    has_own_rows = bool(study.spec.data.folds) and job.lease.purpose != "search"
    compared = (
        ("data", f"the rows of {study.spec.data.train} or of its validation", "put the old file back", "rows"),
        ("weights", f"the pretrained weights of {study.spec.model}", "put the old files back", "weights"),
        ("teacher", "the weights of the teacher, or the order of its labels,", "put the old files back", "teacher"),
    )
    here = {name: str(facts.get(name) or "") for name, *_ in compared if not (name == "data" and has_own_rows)}
    if not any(here.values()):
        return Verdict.GO_ON
    number, first = first_facts(desk.db, job.lease)
    for name, what, fix, new in compared:
        there = str(first.get(name) or "")
        if not there or here.get(name, "") in ("", there):
            continue
        error = ConfigurationError(
            f"{what} are others here than those of trial {number}",
            why=f"digest {there[:12]} there, {here[name][:12]} here",
            fix=f"{fix}, or create a study for the new {new}",
        )
        job.release_reason = str(error)
        desk.refuse(study.name, error)
        return Verdict.RELEASE
    return Verdict.GO_ON


def _judge(desk: Desk, slot: Slot, *, job: Job, message: protocol.Report) -> Verdict:
    driver = job.driver
    try:
        verdict, why = driver.report(
            job.lease,
            epoch=message.epoch,
            metrics=message.metrics,
            seconds=message.seconds,
            extend=desk.lease,
            peak_memory=message.peak_memory,
        )
    except LeaseLost:
        job.is_lost = True
        return Verdict.STOP
    except TrialError as error:
        _end_badly(slot, job, error, seconds=message.seconds)
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


def _end_badly(slot: Slot, job: Job, error: TrialError, *, seconds: float) -> None:
    """Store the end of a run whose numbers mean nothing.

    Raises:
        LeaseLost: If the run is no longer ours.
    """
    job.ended_as = Outcome(judge(error).outcome)
    job.driver.fail(
        job.lease, outcome=job.ended_as, reason=str(error), seconds=seconds, log_tail=_last_words(slot, job)
    )
    _clear_attempts(job, kept="")


def _finished(desk: Desk, slot: Slot, *, job: Job, result: TrialResult) -> None:
    catch_up(desk, slot)
    if result.ended_by == Verdict.STOP.value and job.prune_reason:  # stopped within an epoch, for its budget
        result = replace(result, ended_by=Verdict.PRUNE.value)
    try:
        outcome, reason, value = _store_end(desk, slot, job=job, result=result)
        if outcome is not Outcome.PREEMPTED:
            desk.room.was_there()
    except LeaseLost:
        outcome, reason, value = Outcome.LOST, _ANOTHER_OWNER, None
    _ended(desk, slot, job, outcome=outcome, reason=reason, value=value)


def _store_end(desk: Desk, slot: Slot, *, job: Job, result: TrialResult) -> tuple[Outcome, str, float | None]:
    """Store what the training answered; what became of the run, why, and its value.

    Raises:
        LeaseLost: If the run is no longer ours.
    """
    if job.is_lost or result.ended_by == Verdict.STOP.value:
        return job.ended_as, job.kill_reason or _ANOTHER_OWNER, None
    if result.ended_by == Verdict.RELEASE.value:
        leases.release(desk.db, job.lease, reason=job.release_reason, seconds=result.seconds)
        return Outcome.PREEMPTED, job.release_reason, None
    reason = job.prune_reason if result.ended_by == Verdict.PRUNE.value else ""
    try:
        outcome, value, reason = job.driver.finish(job.lease, result=result, reason=reason)
    except TrialError as error:
        _end_badly(slot, job, error, seconds=result.seconds)
        return job.ended_as, str(error), None
    _clear_attempts(job, kept="" if outcome is Outcome.INFEASIBLE else result.checkpoint)
    return outcome, reason, value


def _failed(desk: Desk, slot: Slot, *, job: Job, message: protocol.Failed) -> None:
    catch_up(desk, slot)
    outcome, reason, seconds = Outcome(message.outcome), message.reason, message.seconds
    try:
        if job.is_lost:
            outcome, reason = job.ended_as, job.kill_reason or reason
        elif message.cause == protocol.MEMORY:
            less, said = message.micro_batch, message.traceback
            outcome, reason = _try_with_less(
                desk, slot, job, reason=reason, seconds=seconds, micro_batch=less, traceback=said
            )
        elif message.may_pass:
            said = message.traceback
            outcome, reason = _try_again(
                desk, slot, job, reason=reason, seconds=seconds, ended=Outcome.ERRORED, traceback=said
            )
        else:
            log_tail = _last_words(slot, job, message.traceback)
            job.driver.fail(job.lease, outcome=outcome, reason=reason, seconds=seconds, log_tail=log_tail)
            _clear_attempts(job, kept="")
    except LeaseLost:
        outcome = Outcome.LOST
    if message.cause == protocol.DEVICE:
        desk.health.broke(slot, run=job.lease.run_id, reason=message.reason)
    if message.recycle:
        slot.is_ready = False  # it ends itself; a fresh one follows
    _ended(desk, slot, job, outcome=outcome, reason=reason)


def _no_room(desk: Desk, slot: Slot, *, job: Job, message: protocol.NoRoom) -> None:
    """Give back a run that finds no room here."""
    catch_up(desk, slot)
    outcome, reason = job.ended_as, job.kill_reason or message.reason
    if not job.is_lost:
        try:
            leases.release(desk.db, job.lease, reason=message.reason, seconds=message.seconds)
            outcome, reason = Outcome.PREEMPTED, message.reason
        except LeaseLost:
            outcome, reason = Outcome.LOST, _ANOTHER_OWNER
    desk.room.ran_out(message.reason, place=message.place, needed=message.needed)
    _ended(desk, slot, job, outcome=outcome, reason=reason)


def _clear_attempts(job: Job, *, kept: str) -> None:
    """Remove the checkpoints of a finished run's attempts, but the one folder that its result names."""
    job.shelf.clear(job.place, kept=kept, newest=job.lease.attempt)


def _ended(desk: Desk, slot: Slot, job: Job, *, outcome: Outcome, reason: str, value: float | None = None) -> None:
    slot.job = None
    job.shelf.left(job.key)
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
