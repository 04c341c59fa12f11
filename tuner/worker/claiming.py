"""Work for free slots: which study is served next, and why nothing is claimed where nothing is."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence

from tuner.errors import ConfigurationError, LeaseLost, NotFoundError, UnavailableError
from tuner.files.place import join
from tuner.search.driver import StudyDriver
from tuner.source import this_code
from tuner.store import fits, studies
from tuner.store.database import Database
from tuner.store.leases import Beats, Holder, Lease
from tuner.store.records import StudyRecord, StudyState
from tuner.store.workers import Identity
from tuner.study.names import count_noun
from tuner.study.plan import TrialPlan
from tuner.worker import protocol
from tuner.worker.events import Event, Notice, RunClaimed
from tuner.worker.health import kernel_kills
from tuner.worker.options import WorkerOptions
from tuner.worker.outage import Outage
from tuner.worker.room import Room
from tuner.worker.shelf import ATTEMPT, Shelf
from tuner.worker.slot import Job, Slot

_IDLE_SECONDS = 1.0  # between two looks for work where there was none


def refuse_other_code(study: StudyRecord, *, allow: bool) -> None:
    """See that trials of this code and the study's can be compared.

    Args:
        study: The study; one that is finished, or from before this was written down, is anybody's.
        allow: Serve it all the same.

    Raises:
        ConfigurationError: If another code made the study.
    """
    if allow or study.state is StudyState.FINISHED or study.code in ("", this_code()):
        return
    raise ConfigurationError(
        f'study "{study.name}" was made by tuner {study.code}, this worker runs {this_code()}',
        why="trials of different code cannot be compared",
        fix="install the same tuner here, or join with --allow-skew (as after an edit to a strategy)",
    )


class Claiming:
    """Claims runs for free slots and gives them out.

    Attributes:
        drivers: Of the studies that are served, by name.
        served: Names of all studies that were served so far.
        refused: Studies that this worker cannot serve; each was told of once.
        refusal: Why the last of the studies that the worker was told to serve is refused; None while there is one left.
        is_draining: Whether the worker is about to end.
        is_idle: Whether the last look found nothing to do.
    """

    def __init__(
        self,
        db: Database,
        *,
        options: WorkerOptions,
        identity: Identity,
        beats: Beats,
        outage: Outage,
        room: Room,
        shelf: Shelf,
        show: Callable[[Event], None],
    ) -> None:
        """Nothing is claimed before :meth:`fill`."""
        self.drivers: dict[str, StudyDriver] = {}
        self.served: set[str] = set()
        self.refused: set[str] = set()
        self.refusal: ConfigurationError | None = None
        self.is_draining = False
        self.is_idle = False
        self._db = db
        self._options = options
        self._identity = identity
        self._beats = beats
        self._outage = outage
        self._room = room
        self._shelf = shelf
        self._show = show
        self._claimed = 0
        self._next_look = 0.0

    def why_not(self) -> str:
        """Why this worker claims nothing now, whatever is waiting; an empty string if it may.

        The one place that says so.
        """
        if self.is_draining:
            return "it is draining"
        if self._outage.is_on:
            return "the database is gone"
        if self.has_reached_limit:
            return f"it has claimed its {count_noun(self._options.max_trials or 0, 'trial')}"
        return self._room.why_not()

    @staticmethod
    def why_not_for(slot: Slot) -> str:
        """Why this slot takes no run now, whatever the worker may do; an empty string if it does."""
        return slot.out_of_use or ("" if slot.is_free else "it is not free")

    @property
    def has_reached_limit(self) -> bool:
        """Whether as many trials were claimed as the worker was told to."""
        return self._options.max_trials is not None and self._claimed >= self._options.max_trials

    def begin_anew(self, identity: Identity, beats: Beats) -> None:
        """Forget what was read of a database that is another one now, and claim under this identity."""
        self._identity, self._beats = identity, beats
        self.drivers.clear()
        self.look_again()

    def look_again(self) -> None:
        """Something has changed: the next :meth:`fill` looks at once."""
        self._next_look = 0.0
        self.is_idle = False

    def fill(self, slots: Sequence[Slot]) -> None:
        """Claim for each free slot, until there is nothing to do.

        Raises:
            UnavailableError: If the database cannot be reached.
        """
        now = time.monotonic()
        if now < self._next_look:
            return
        for slot in slots:
            if self.why_not():
                self._next_look = now + _IDLE_SECONDS
                self.is_idle = True  # others may end the studies meanwhile
                return
            if self.why_not_for(slot):
                continue
            if not self._claim_for(slot):
                self._next_look = now + _IDLE_SECONDS
                self.is_idle = True
                return
        self.is_idle = self.is_idle or all(slot.out_of_use for slot in slots)

    def open_studies(self) -> list[str]:
        """Studies that this worker may serve, in the order in which it does.

        Raises:
            UnavailableError: If the database cannot be reached.
        """
        return [name for name in studies.open_studies(self._db, self._options.studies) if name not in self.refused]

    def _claim_for(self, slot: Slot) -> bool:
        holder = Holder(
            worker=self._identity.worker,
            host=self._identity.host,
            slot=slot.name,
            lease=self._options.lease,
            beats=self._beats,
        )
        grace = self._options.lease if self._outage.was_on_within(self._options.lease) else 0.0
        for name in self.open_studies():
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
                    del self.drivers[name]
                    break
                except ConfigurationError as error:  # another code changed it meanwhile
                    self.refuse(name, error)
                    break
        return False

    def _driver(self, name: str) -> StudyDriver | None:
        if name not in self.drivers:
            try:
                driver = StudyDriver(self._db, name=name)
                refuse_other_code(driver.study, allow=self._options.allow_skew)
                self.drivers[name] = driver
            except ConfigurationError as error:
                self.refuse(name, error)
                return None
            except NotFoundError:
                return None  # deleted a moment ago
            self.served.add(name)
        return self.drivers[name]

    def refuse(self, name: str, error: ConfigurationError) -> None:
        """Serve a study no more, and say why; what runs of it here goes on."""
        self.refused.add(name)
        if self._options.studies and self.refused.issuperset(self._options.studies):
            self.refusal = error
        self.drivers.pop(name, None)
        self._show(Notice(level="error", text=f'study "{name}" is not served: {error}'))

    def _give(self, slot: Slot, driver: StudyDriver, lease: Lease) -> None:
        assert lease.strategy is not None
        assert lease.params is not None
        place = self._shelf.run_place(f"{driver.study.name}-{driver.study.uid[:8]}", run=_run_name(lease))
        spec = driver.study.spec
        key = fits.FitKey.of(spec, strategy=lease.strategy, device=slot.device) if slot.device else None
        begin = fits.Beginning()
        with contextlib.suppress(UnavailableError):  # the run is ours; it does without
            begin = fits.read_beginning(self._db, lease, key=key)
        if begin.in_fresh_process and slot.runs:
            slot.renew()
        plan = TrialPlan(
            spec=spec,
            number=lease.number,
            strategy=lease.strategy,
            params=lease.params,
            seed=lease.seed,
            checkpoint_dir=join(place, f"{ATTEMPT}{lease.attempt}"),
            scratch=self._shelf.scratch_of(lease.token),
            score_test=lease.purpose == "confirm",
            resume_from=tuple(join(place, f"{ATTEMPT}{earlier}") for earlier in range(lease.attempt - 1, 0, -1)),
            teacher=driver.teacher,
            micro_batch=begin.micro_batch,
            epochs=lease.epochs if spec.data.folds and lease.purpose == "confirm" else 0,
        )
        limits = (begin.micro_batch, spec.training.micro_batch or 0, int(lease.params.get("batch_size") or 0))
        slot.runs += 1
        slot.job = Job(
            lease=lease,
            driver=driver,
            claimed_at=time.monotonic(),
            log_start=slot.log_size(),
            place=place,
            shelf=self._shelf,
            micro_batch=min((size for size in limits if size), default=1),
            kills_before=kernel_kills(),
        )
        self._claimed += 1
        if slot.is_alive:  # else its death is dealt with
            slot.send(protocol.Run(key=slot.job.key, plan=plan.to_json()))
        self._show(
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


def _run_name(lease: Lease) -> str:
    """What a run's folder is called, within its study's."""
    return f"trial-{lease.number}" + (f"-seed-{lease.seed}" if lease.purpose == "confirm" else "")
