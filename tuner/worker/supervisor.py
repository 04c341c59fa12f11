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
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from tuner.errors import ConfigurationError, LeaseLost, NotFoundError, TemporaryError, UnavailableError
from tuner.search.budget import used_share
from tuner.search.driver import StudyDriver
from tuner.store import leases, studies, workers
from tuner.store.database import Database
from tuner.store.leases import Holder, Lease
from tuner.store.queries import read_progress
from tuner.store.records import StudyState
from tuner.study.plan import TrialPlan, Verdict
from tuner.worker import protocol
from tuner.worker.dealing import Desk, catch_up, deal, deal_with_death, interrupt, needs_database
from tuner.worker.devices import find_slots
from tuner.worker.events import Display, Notice, RunClaimed, StudySeen, WorkerStarted
from tuner.worker.heartbeat import Heartbeat, Held
from tuner.worker.options import WorkerOptions
from tuner.worker.outage import Outage
from tuner.worker.signals import StopSignals
from tuner.worker.slot import Job, Slot
from tuner.worker.watchdog import end_hung, why_hung

_ROUND_SECONDS = 0.2
_SHOW_SECONDS = 2.0
_BUDGET_SECONDS = 1.0
_IDLE_SECONDS = 1.0  # between two looks for work where there was none
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
        ConfigurationError: If the database's schema or a named study's settings are wrong.
        UnavailableError: If the database or a device cannot be reached, or no runner can be started.
        UsageError: If the devices cannot be read.
    """
    slots = find_slots(options.devices, per_device=options.per_device)
    with Database.open(options.storage) as db:
        for name in options.studies:
            studies.find_study(db, name)
        supervisor = Supervisor(db, options=options, display=display, places=[place.name for place in slots])
        supervisor.slots = [
            Slot(
                place=place,
                log=options.files
                / "logs"
                / supervisor.identity.worker
                / f"{place.name.replace('/', '-').replace(':', '-')}.log",
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
        self._desk = Desk(db=db, show=display.show, lease=options.lease, outage=self._outage)
        self._drivers: dict[str, StudyDriver] = {}
        self._claimed = 0
        self._ended = 0
        self._signals = StopSignals()
        self._draining_since: float | None = None
        self._gave_up = False
        self._next_claim = self._next_show = self._next_budget = 0.0
        self._refused: set[str] = set()

    def run(self) -> WorkerSummary:
        """Go round until there is a reason to stop."""
        workers.register(
            self._db, self.identity, devices=self._places, version=version("tuner"), lease=self._options.lease
        )
        self._display.show(
            WorkerStarted(
                worker=self.identity.worker,
                host=self.identity.host,
                slots=tuple(self._places),
                storage=self._db.safe_url,
            )
        )
        heartbeat = Heartbeat(
            self._db,
            worker=self.identity.worker,
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
            return self._summary()
        finally:
            heartbeat.close()
            self._leave()
            self._display.close()

    def _round(self, heartbeat: Heartbeat) -> None:
        for lease in heartbeat.take_lost():
            self._drop(lease)
        self._listen()
        self._outage.look(lambda: studies.open_studies(self._db, ()))
        self._deal()
        if self._outage.is_too_long and self._draining_since is None:
            self._gave_up = True
            self._drain()
        if self._signals.count and self._draining_since is None:
            self._drain()
        if self._draining_since is None and not self._outage.is_on:
            with self._outage.noticed():
                self._watch_budgets()
                self._start_runners()
                self._claim()
        self._end_the_deaf()
        if not self._outage.is_on:
            with self._outage.noticed():
                self._show_studies()

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
                self._next_claim = self._next_show = 0.0

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
            if not slot.is_alive and slot.job is None and time.monotonic() >= slot.start_after:
                try:
                    slot.start()
                except OSError as error:
                    raise UnavailableError(f"cannot start the runner of {slot.name}: {error.strerror}") from error

    def _claim(self) -> None:
        now = time.monotonic()
        if now < self._next_claim:
            return
        for slot in self.slots:
            if not slot.is_free or self._has_reached_limit():
                continue
            if not self._claim_for(slot):
                self._next_claim = now + _IDLE_SECONDS
                return

    def _claim_for(self, slot: Slot) -> bool:
        holder = Holder(worker=self.identity.worker, host=self.identity.host, slot=slot.name, lease=self._options.lease)
        grace = self._options.lease if self._outage.was_on_within(self._options.lease) else 0.0
        for name in studies.open_studies(self._db, self._options.studies):
            driver = self._driver(name)
            if driver is None:
                continue
            for _ in range(2):  # again after the study moved on from the search to its confirmation
                try:
                    lease = driver.claim(holder, grace=grace)
                    if lease is not None:
                        self._give(slot, driver, lease)
                        return True
                    driver.advance(grace=grace)
                except LeaseLost:
                    continue
                except NotFoundError:
                    del self._drivers[name]
                    break
        return False

    def _driver(self, name: str) -> StudyDriver | None:
        if name in self._refused:
            return None
        if name not in self._drivers:
            try:
                self._drivers[name] = StudyDriver(self._db, name=name)
            except ConfigurationError as error:
                if self._options.studies:
                    raise
                self._refused.add(name)
                self._display.show(Notice(level="error", text=f'study "{name}" is not served: {error}'))
                return None
            except NotFoundError:
                return None  # deleted a moment ago
        return self._drivers[name]

    def _give(self, slot: Slot, driver: StudyDriver, lease: Lease) -> None:
        assert lease.strategy is not None
        assert lease.params is not None
        folder = self._folder(driver, lease)
        plan = TrialPlan(
            spec=driver.study.spec,
            number=lease.number,
            strategy=lease.strategy,
            params=lease.params,
            seed=lease.seed,
            checkpoint_dir=str(folder / f"attempt-{lease.attempt}"),
            score_test=lease.purpose == "confirm" and driver.study.spec.data.test is not None,
            resume_from=tuple(str(folder / f"attempt-{earlier}") for earlier in range(lease.attempt - 1, 0, -1)),
            teacher=driver.teacher,
        )
        slot.job = Job(
            lease=lease,
            driver=driver,
            claimed_at=time.monotonic(),
            log_start=slot.log_size(),
            folder=Path(plan.checkpoint_dir),
        )
        self._claimed += 1
        slot.send(protocol.Run(key=slot.job.key, plan=plan.to_json()))
        self._display.show(
            RunClaimed(
                study=driver.study.name,
                number=lease.number,
                seed=slot.job.seed,
                slot=slot.name,
                attempt=lease.attempt,
                strategy=lease.strategy,
                params=driver.study.space.searched(lease.strategy, lease.params),
                epochs=driver.study.spec.training.epochs,
            )
        )

    def _folder(self, driver: StudyDriver, lease: Lease) -> Path:
        seed = f"-seed-{lease.seed}" if lease.purpose == "confirm" else ""
        study = f"{driver.study.name}-{driver.study.uid[:8]}"
        return self._options.files / "checkpoints" / study / f"trial-{lease.number}{seed}"

    # Ends

    def _watch_budgets(self) -> None:
        """Stop runs whose study has used its device hours, within a second and a training step."""
        now = time.monotonic()
        if now < self._next_budget:
            return
        self._next_budget = now + _BUDGET_SECONDS
        for slot in self.slots:
            job = slot.job
            if job is None or job.stop_asked_at is not None or job.driver.study.spec.budget.gpu_hours is None:
                continue
            leases.renew(self._db, held=[(job.lease, job.seconds)], lease=self._options.lease)
            if reason := job.driver.why_out_of_time(job.lease):
                job.prune_reason = reason
                interrupt(slot, job, Verdict.STOP)

    def _drop(self, lease: Lease) -> None:
        for slot in self.slots:
            job = slot.job
            if job is not None and job.lease.token == lease.token:
                job.is_lost = True
                interrupt(slot, job, Verdict.STOP)

    def _drain(self) -> None:
        self._draining_since = time.monotonic()
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
            if (
                slot.is_alive
                and not slot.is_ready
                and time.monotonic() - slot.started_at > _START_SECONDS
                and job is None
            ):
                slot.kill()

    def _is_over(self) -> bool:
        if self._signals.count > 1:
            return True
        if any(slot.job is not None for slot in self.slots):
            # Where the database is gone too, leases run out by themselves.
            since = self._draining_since
            return since is not None and time.monotonic() - since > _DRAIN_SECONDS + 5.0
        if self._draining_since is not None or self._has_reached_limit():
            return True
        if not self._options.until_done or self._next_claim == 0.0:
            return False
        left: list[str] | None = None
        with self._outage.noticed():
            names = studies.open_studies(self._db, self._options.studies)
            left = [name for name in names if name not in self._refused]
        return left == []

    def _has_reached_limit(self) -> bool:
        return self._options.max_trials is not None and self._claimed >= self._options.max_trials

    def _leave(self) -> None:
        """End all runners, give back what is still held, sign off."""
        for slot in self.slots:
            slot.kill()
            if slot.process is not None:
                slot.reap()
        with contextlib.suppress(UnavailableError):
            for slot in self.slots:
                if slot.job is not None and not slot.job.is_lost:
                    with contextlib.suppress(LeaseLost):
                        leases.release(
                            self._db, slot.job.lease, reason="the worker was stopped", seconds=slot.job.seconds
                        )
            workers.unregister(self._db, self.identity.worker)

    # What others see

    def _held(self) -> tuple[str, Held]:
        """What the heartbeat renews; called in its thread, so it takes each job once."""
        jobs = [slot.job for slot in self.slots]
        held = [(job.lease, job.seconds) for job in jobs if job is not None and not job.is_lost]
        return "draining" if self._draining_since is not None else "running", held

    def _show_studies(self) -> None:
        now = time.monotonic()
        if now < self._next_show:
            return
        self._next_show = now + _SHOW_SECONDS
        for name in list(self._drivers):
            try:
                progress = read_progress(self._db, name)
            except NotFoundError:
                del self._drivers[name]
                continue
            study = progress.study
            self._display.show(
                StudySeen(
                    study=name,
                    state=study.state,
                    counts=study.counts,
                    budget_trials=study.spec.budget.trials,
                    used_share=used_share(study.spec, study.used),
                    metric=study.metric,
                    best_number=progress.best_number,
                    best_value=progress.best_value,
                    best_strategy=progress.best_strategy,
                    confirmations=progress.confirmations,
                )
            )

    def _summary(self) -> WorkerSummary:
        states = {}
        names = {*self._drivers, *self._options.studies}
        with contextlib.suppress(UnavailableError, NotFoundError):
            states = {name: studies.find_study(self._db, name).state for name in sorted(names)}
            self._next_show = 0.0
            self._show_studies()
        return WorkerSummary(trials=self._ended, studies=states, interrupted=self._signals.count > 1)
