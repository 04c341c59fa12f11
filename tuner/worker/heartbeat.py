"""Signs of life: a thread that renews leases while the main thread trains, samples or waits.

Liveness is not progress: this thread says that the process lives; reports say that the training moves.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from tuner.errors import UnavailableError
from tuner.store import leases, workers
from tuner.store.database import Database
from tuner.store.leases import Lease

Held = Sequence[tuple[Lease, float]]


class Heartbeat:
    """Renews what a worker holds, until it is closed."""

    def __init__(
        self, db: Database, *, worker: str, interval: float, lease: float, held: Callable[[], tuple[str, Held]]
    ) -> None:
        """Start beating.

        Args:
            db: The database.
            worker: The worker's id.
            interval: Seconds between two beats.
            lease: Seconds by which leases are extended.
            held: Gives the worker's state and what it holds with the device seconds so far; called in the thread.
        """
        self._db = db
        self._worker = worker
        self._interval = interval
        self._lease = lease
        self._held = held
        self._lost: list[Lease] = []
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def take_lost(self) -> list[Lease]:
        """Leases that turned out to be lost since the last call."""
        with self._lock:
            lost, self._lost = self._lost, []
        return lost

    def close(self) -> None:
        """Stop beating."""
        self._done.set()
        self._thread.join(timeout=5.0)  # it is a daemon: a database that hangs must not hold the worker

    def _run(self) -> None:
        while not self._done.wait(self._interval):
            state, held = self._held()
            try:
                workers.beat(self._db, self._worker, state=state, lease=self._lease)
                lost = leases.renew(self._db, held=held, lease=self._lease)
            except UnavailableError:
                continue  # the next beat tries again; the lease is several beats long
            with self._lock:
                self._lost += lost
