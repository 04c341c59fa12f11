"""Signs of life: a thread that renews leases while the main thread trains, samples or waits, and hears what people ask.

Liveness is not progress: this thread says that the process lives; reports say that the training moves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tuner.errors import TunerError
from tuner.store import leases, workers
from tuner.store.database import Database
from tuner.store.leases import Beats, Lease
from tuner.store.workers import Request

Held = Sequence[tuple[Lease, float]]


@dataclass(kw_only=True, slots=True)
class News:
    """What the signs of life were answered since somebody last asked.

    Attributes:
        lost: Leases that turned out to be lost.
        requests: What is asked of runs, perhaps of some that have ended meanwhile; the same again until the run is over.
        drain: Who asks the worker to drain, in words; empty if nobody does.
        is_unknown: Whether the database no longer knows the worker as it last left it; no sign of life is given then until
            :meth:`Heartbeat.begin_anew`.
    """

    lost: list[Lease] = field(default_factory=list)
    requests: tuple[Request, ...] = ()
    drain: str = ""
    is_unknown: bool = False


class Heartbeat:
    """Renews what a worker holds, until it is closed."""

    def __init__(
        self,
        db: Database,
        *,
        worker: str,
        beats: Beats,
        interval: float,
        lease: float,
        held: Callable[[], tuple[str, Held]],
    ) -> None:
        """Start beating.

        Args:
            db: The database.
            worker: The worker's id.
            beats: Counts the signs of life; what is written under the worker's leases compares it with the database's.
            interval: Seconds between two beats.
            lease: Seconds by which leases are extended.
            held: Gives the worker's state and what it holds with the device seconds so far; called in the thread.
        """
        self._db = db
        self._worker = worker
        self._beats = beats
        self._interval = interval
        self._lease = lease
        self._held = held
        self._news = News()
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def take_news(self) -> News:
        """What was heard since the last call."""
        with self._lock:
            news, self._news = self._news, News(is_unknown=self._news.is_unknown)
        return news

    def begin_anew(self, worker: str, beats: Beats) -> None:
        """Go on under another id, after the database forgot the old one."""
        with self._lock:
            self._worker, self._beats, self._news = worker, beats, News()

    def close(self) -> None:
        """Stop beating."""
        self._done.set()
        self._thread.join(timeout=5.0)  # it is a daemon: a database that hangs must not hold the worker

    def _run(self) -> None:
        while not self._done.wait(self._interval):
            with self._lock:
                worker, beats, is_unknown = self._worker, self._beats, self._news.is_unknown
            if is_unknown:
                continue
            state, held = self._held()
            try:
                pulse = workers.beat(self._db, worker, number=beats.number + 1, state=state, lease=self._lease)
                lost = leases.renew(self._db, held=held, lease=self._lease) if pulse.is_known else []
            except TunerError:
                continue  # also a refusal, which may pass: the next beat tries again; the lease is several beats long
            with self._lock:
                if worker != self._worker:
                    continue
                if pulse.is_known:
                    beats.number += 1
                self._news.lost += lost
                self._news.requests = pulse.requests
                self._news.drain = pulse.drain
                self._news.is_unknown = not pulse.is_known
