"""The supervisor: one for each box. It claims runs for its free slots, forwards reports, and outlives its runners.

One thread does everything but the heartbeat, in rounds: read what the runners said, deal with it, claim for free slots, show. While
the database is gone training goes on, and what was said waits with its job or in the slots' inboxes. It never imports torch.
"""

from __future__ import annotations

import contextlib
import selectors
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

from tuner.errors import ConfigurationError, LeaseLost, NotFoundError, TemporaryError, UnavailableError
from tuner.files.disk import is_full
from tuner.search.driver import StudyDriver
from tuner.source import this_code
from tuner.store import devices, leases, studies, workers
from tuner.store.database import Database
from tuner.store.leases import Beats
from tuner.store.records import Asked, StudyState
from tuner.study.plan import Verdict
from tuner.worker.claiming import Claiming, refuse_other_code
from tuner.worker.dealing import Desk, catch_up, deal, deal_with_death, interrupt, needs_database
from tuner.worker.devices import find_slots
from tuner.worker.events import Display, Notice, WorkerStarted
from tuner.worker.health import Health
from tuner.worker.heartbeat import Heartbeat, Held
from tuner.worker.logs import log_file
from tuner.worker.options import WorkerOptions
from tuner.worker.outage import Outage
from tuner.worker.room import Room
from tuner.worker.shelf import Shelf
from tuner.worker.showing import Showing
from tuner.worker.signals import StopSignals
from tuner.worker.slot import Slot
from tuner.worker.watchdog import end_hung, why_hung

_ROUND_SECONDS = 0.2
_BUDGET_SECONDS = 1.0
_DRAIN_SECONDS = 15.0  # then runners are killed; their last checkpoints are whole
_STOP_SECONDS = 30.0  # a runner that was told to drop its run and does not is killed
_START_SECONDS = 600.0  # imports from a slow network disk take minutes; a runner that is not ready then never will be
_MOST_FAILED_STARTS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerSummary:
    """What a worker did.

    Attributes:
        trials: Runs that it ended, confirmation runs included.
        studies: The studies that it served, each with its state at the end.
        interrupted: Whether it was stopped at once by a second Ctrl-C.
    """

    trials: int
    studies: Mapping[str, StudyState] = field(default_factory=dict)
    interrupted: bool = False


def run_worker(options: WorkerOptions, *, display: Display) -> WorkerSummary:
    """Serve studies until they are done, the limit of trials is reached, or a signal asks for the end.

    The first SIGTERM, SIGINT or SIGHUP drains: runs stop within a step, their checkpoints let any worker go on, and the function
    returns within :data:`_DRAIN_SECONDS` and a little. The second ends everything at once.

    Raises:
        NotFoundError: If a named study does not exist.
        ConfigurationError: If the database's schema or a named study's settings are wrong, or other code made it.
        UnavailableError: If the database or a device cannot be reached.
        UsageError: If the devices cannot be read.
    """
    slots = find_slots(options.devices, per_device=options.per_device)
    with Database.open(options.storage) as db:
        for name in options.studies:
            refuse_other_code(studies.find_study(db, name), allow=options.allow_skew)
        supervisor = Supervisor(db, options=options, display=display, places=[place.name for place in slots])
        supervisor.slots = [
            Slot(
                place=place,
                log=log_file(options.files, worker=supervisor.identity.worker, slot=place.name),
                cache=options.files / "cache",
                runner=options.runner,
            )
            for place in slots
        ]
        return supervisor.run()


class Supervisor:
    """The rounds of one worker."""

    def __init__(self, db: Database, *, options: WorkerOptions, display: Display, places: list[str]) -> None:
        """Prepare; :meth:`run` starts. See :func:`run_worker`."""
        self.identity = workers.Identity.of_this_process(uuid.uuid4().hex[:12])
        self.slots: list[Slot] = []
        self._db = db
        self._options = options
        self._display = display
        self._places = places
        self._outage = Outage(show=display.show, budget=options.outage)
        self._health = Health(module=options.checker, show=display.show, tell=self._tell_of_devices)
        self._room = Room(files=options.files, show=display.show)
        self._shelf = Shelf(
            options.checkpoint_place, files=options.files, worker=self.identity.worker, show=display.show
        )
        self._beats = Beats()
        self._claiming = Claiming(
            db,
            options=options,
            identity=self.identity,
            beats=self._beats,
            outage=self._outage,
            room=self._room,
            shelf=self._shelf,
            show=display.show,
        )
        self._desk = Desk(
            db=db,
            show=display.show,
            lease=options.lease,
            outage=self._outage,
            health=self._health,
            room=self._room,
            refuse=None if options.allow_skew else self._claiming.refuse,
        )
        self._showing = Showing(
            db,
            drivers=self._claiming.drivers,
            show=display.show,
            is_busy=self._is_busy,
            refuse=self._claiming.refuse,
        )
        self._ended = 0
        self._signals = StopSignals()
        self._draining_since: float | None = None
        self._gave_up = False
        self._next_budget = 0.0

    def run(self) -> WorkerSummary:
        """Go round until there is a reason to stop."""
        self._shelf.open()
        self._register(self.identity)
        self._display.show(
            WorkerStarted(
                worker=self.identity.worker,
                host=self.identity.host,
                slots=tuple(self._places),
                storage=self._db.safe_url,
            )
        )
        self._health.watch(self.slots)
        heartbeat = Heartbeat(
            self._db,
            worker=self.identity.worker,
            beats=self._beats,
            interval=self._options.heartbeat,
            lease=self._options.lease,
            held=self._held,
        )
        try:
            with self._signals.caught():
                while not self._is_over():
                    self._round(heartbeat)
            if self._gave_up:
                raise TemporaryError(
                    f"database {self._db.safe_url} was gone for more than {self._options.outage / 60:g} min",
                    why="the runs keep their last checkpoints; other workers take them over",
                    fix="start this worker again when the database is back",
                )
            if self._claiming.refusal is not None and not self._signals.count:
                raise self._claiming.refusal
            return self._summary()
        finally:
            heartbeat.close()
            self._leave()
            self._display.close()

    def _register(self, identity: workers.Identity, *, formerly: str | None = None) -> None:
        workers.register(
            self._db,
            identity,
            devices=self._places,
            version=version("tuner"),
            lease=self._options.lease,
            code=this_code(),
            formerly=formerly,
        )

    def _round(self, heartbeat: Heartbeat) -> None:
        self._obey(heartbeat)
        self._listen()
        self._outage.look(lambda: workers.touch(self._db, self.identity.worker))
        self._deal()
        self._shelf.tell()
        if self._outage.is_too_long and self._draining_since is None:
            self._gave_up = True
            self._drain()
        if self._signals.count and self._draining_since is None:
            self._drain()
        if self._draining_since is None and not self._outage.is_on:
            self._health.look()
            with self._outage.noticed():
                self._health.report()
                self._watch_budgets()
                self._start_runners()
                self._claiming.fill(self.slots)
        self._end_the_deaf()
        if not self._outage.is_on:
            with self._outage.noticed():
                self._showing.show_studies()

    # What people ask

    def _obey(self, heartbeat: Heartbeat) -> None:
        """Act on what the last signs of life were answered."""
        news = heartbeat.take_news()
        if news.is_unknown:
            with self._outage.noticed():
                self._begin_anew(heartbeat)
            return
        for lease in news.lost:
            self._drop(lease.token)
        for request in news.requests:
            for slot in self.slots:
                job = slot.job
                if job is None or job.lease.token != request.token or job.stop_asked_at is not None:
                    continue
                if request.asked is Asked.STOP:
                    job.prune_reason = request.why
                else:
                    job.release_reason = request.why
                text = f"trial {job.lease.number} of study {job.driver.study.name} ends here: {request.why}"
                self._display.show(Notice(level="info", text=text))
                interrupt(slot, job, Verdict.STOP if request.asked is Asked.STOP else Verdict.RELEASE)
        if news.drain and self._draining_since is None:
            self._display.show(Notice(level="info", text=news.drain))
            self._drain()

    def _begin_anew(self, heartbeat: Heartbeat) -> None:
        """Drop everything and register under a fresh identity: the database does not know this worker as it was.

        It was restored from an older backup, or somebody took the worker off. Either way its runs may be another's by now, and what it
        would write of them belongs to a past that is gone.
        """
        formerly = self.identity.worker
        # From the old id: where the answer is lost, the next try registers the same one.
        identity = replace(self.identity, worker=uuid.uuid5(uuid.NAMESPACE_OID, formerly).hex[:12])
        self._register(identity, formerly=formerly)
        self.identity = identity
        self._beats = Beats()
        for slot in self.slots:
            if slot.job is not None:
                self._drop(slot.job.lease.token)
        self._claiming.begin_anew(self.identity, self._beats)
        heartbeat.begin_anew(self.identity.worker, self._beats)
        text = f"the database has forgotten worker {formerly}, as after a restore from a backup: its runs are dropped, it goes on as {self.identity.worker}"
        self._display.show(Notice(level="warning", text=text))

    # What the runners say

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            for slot in self.slots:
                if slot.is_alive and not slot.has_hung_up:
                    selector.register(slot.descriptor, selectors.EVENT_READ, slot)
            if not selector.get_map():
                time.sleep(_ROUND_SECONDS)
                return
            for key, _ in selector.select(_ROUND_SECONDS):
                try:
                    key.data.read()
                except (ValueError, TypeError) as error:  # what it says is no message: it is broken
                    self._give_up(key.data, error)

    def _deal(self) -> None:
        for slot in self.slots:
            had_job = slot.job is not None
            with self._outage.noticed():
                try:
                    self._deal_with(slot)
                except (UnavailableError, ConfigurationError):
                    raise
                except Exception as error:  # noqa: BLE001 - one run may go wrong in any way; the others go on
                    self._give_up(slot, error)
            if had_job and slot.job is None:
                self._ended += 1
                self._claiming.look_again()
                self._showing.hurry()

    def _deal_with(self, slot: Slot) -> None:
        if not self._outage.is_on:
            catch_up(self._desk, slot)
        while slot.inbox and not (self._outage.is_on and needs_database(slot.inbox[0])):
            deal(self._desk, slot, slot.inbox[0], is_draining=self._draining_since is not None)
            slot.inbox.popleft()
        if self._outage.is_on:
            return
        if slot.has_hung_up or (slot.process is None and slot.job is not None):
            deal_with_death(self._desk, slot)
            self._refuse_crash_loop(slot)

    def _give_up(self, slot: Slot, error: Exception) -> None:
        """End a runner whose words cannot be dealt with; its run counts as lost."""
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        self._display.show(Notice(level="error", text=f"{slot.name}: {reason}; its runner is started again"))
        slot.inbox.clear()
        if slot.job is not None:
            slot.job.is_lost = (
                slot.job.is_lost or slot.process is None
            )  # the store refused its end, too: the lease runs out
            slot.job.kill_reason = reason
        slot.kill()

    def _refuse_crash_loop(self, slot: Slot) -> None:
        if slot.failed_starts >= _MOST_FAILED_STARTS:
            raise ConfigurationError(
                f"the runner of {slot.name} ended {slot.failed_starts} times before it was ready",
                why=(slot.log_tail().splitlines() or ["its log is empty"])[-1],
                fix=f"see {slot.log}, or run: tuner doctor",
            )

    # Work for free slots

    def _start_runners(self) -> None:
        for slot in self.slots:
            if slot.out_of_use:
                if slot.job is None:
                    slot.kill()  # what it holds on the device is in the way of the check
                continue
            is_due = not slot.is_alive and slot.job is None and time.monotonic() >= slot.start_after
            if is_due and not self._room.why_not():
                try:
                    slot.start()
                except OSError as error:
                    if is_full(error):
                        self._room.ran_out(f"disk full: no room for {slot.log}", place=str(slot.log.parent), needed=0)
                        return
                    # Not the database's fault: no outage. The runners that live go on, and this slot is tried again after a pause.
                    if slot.failed_spawns == 1:
                        self._display.show(Notice(level="error", text=f"{slot.cannot_start}; it is tried again"))

    # Ends

    def _watch_budgets(self) -> None:
        """Stop runs whose study has used its hours, within a training step; near the end every round looks."""
        now = time.monotonic()
        if now < self._next_budget:
            return
        wait = _BUDGET_SECONDS
        for slot in self.slots:
            job = slot.job
            if job is None or job.stop_asked_at is not None or not job.driver.has_clock:
                continue
            leases.renew(self._db, held=[(job.lease, job.seconds)], lease=self._options.lease)
            reason, left = job.driver.time_left(job.lease)
            wait = min(wait, left / 2.0)
            if reason:
                job.prune_reason = reason
                interrupt(slot, job, Verdict.STOP)
        self._next_budget = now + wait

    def _drop(self, token: str) -> None:
        for slot in self.slots:
            job = slot.job
            if job is not None and job.lease.token == token:
                job.is_lost = True
                interrupt(slot, job, Verdict.STOP)

    def _drain(self) -> None:
        self._draining_since = time.monotonic()
        self._claiming.is_draining = True
        busy = [slot for slot in self.slots if slot.job is not None]
        numbers = ", ".join(str(slot.job.lease.number) for slot in busy if slot.job is not None)
        what = "nothing is running"
        if busy:
            one = len(busy) == 1
            what = f"trial{'' if one else 's'} {numbers} go{'es' if one else ''} back to the queue with the last checkpoint"
        self._display.show(Notice(level="info", text=f"draining: {what} (again to stop at once)"))
        for slot in busy:
            assert slot.job is not None
            interrupt(slot, slot.job, Verdict.RELEASE)

    def _end_the_deaf(self) -> None:
        """Kill runners that were told to stop and did not, and those that hang."""
        patience = _DRAIN_SECONDS if self._draining_since is not None else _STOP_SECONDS
        for slot in self.slots:
            job = slot.job
            if job is not None and job.stop_asked_at is not None and time.monotonic() - job.stop_asked_at > patience:
                slot.kill()
            elif reason := why_hung(slot, after=self._options.hang_after):
                end_hung(slot, reason=reason)
                self._health.hung(slot)
            if slot.is_alive and not slot.is_ready and time.monotonic() - slot.started_at > _START_SECONDS:
                slot.kill()

    def _is_over(self) -> bool:
        if self._signals.count > 1:
            return True
        if any(slot.job is not None for slot in self.slots):
            # Where the database is gone too, leases run out by themselves: nobody waits for what cannot be told.
            if self._gave_up and not any(slot.is_training for slot in self.slots):
                return True
            since = self._draining_since
            return since is not None and time.monotonic() - since > _DRAIN_SECONDS + 5.0
        if self._draining_since is not None or self._claiming.has_reached_limit or self._claiming.refusal is not None:
            return True
        if not self._options.until_done or not self._claiming.is_idle:
            return False
        left: list[str] | None = None
        with self._outage.noticed():
            # Twice: to a reader that waited for it, the tables that a restore has made anew look empty (PostgreSQL).
            left = self._claiming.open_studies() or self._claiming.open_studies()
        return left == []

    def _leave(self) -> None:
        """End all runners, give back what is still held, sign off."""
        self._health.close()
        for slot in self.slots:
            slot.kill()
            if slot.process is not None:
                slot.reap()
        self._shelf.close()
        with contextlib.suppress(UnavailableError):
            for slot in self.slots:
                if slot.job is not None and not slot.job.is_lost:
                    with contextlib.suppress(LeaseLost):
                        leases.release(
                            self._db, slot.job.lease, reason="the worker was stopped", seconds=slot.job.seconds
                        )
            workers.unregister(self._db, self.identity.worker)

    # What others see

    def _tell_of_devices(self, **told: Any) -> None:
        devices.tell_of_devices(self._db, self.identity.worker, **told)

    def _is_busy(self, driver: StudyDriver) -> bool:
        return any(slot.job is not None and slot.job.driver is driver for slot in self.slots)

    def _held(self) -> tuple[str, Held]:
        """What the heartbeat renews; called in its thread, so it takes each job once."""
        jobs = [slot.job for slot in self.slots]
        held = [(job.lease, job.seconds) for job in jobs if job is not None and not job.is_lost]
        return "draining" if self._draining_since is not None else "running", held

    def _summary(self) -> WorkerSummary:
        states = {}
        with contextlib.suppress(UnavailableError):
            for name in sorted({*self._claiming.served, *self._options.studies}):
                with contextlib.suppress(NotFoundError, ConfigurationError):
                    states[name] = studies.find_study(self._db, name).state
            self._showing.hurry()
            self._showing.show_studies()
        return WorkerSummary(trials=self._ended, studies=states, interrupted=self._signals.count > 1)
