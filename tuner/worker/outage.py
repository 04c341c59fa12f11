"""A database that is gone for a while: noticed, told once, waited for, and given up after its budget.

Training goes on meanwhile. What the runners say is kept with their jobs and told to the database when it is back; the words that
a dead supervisor would lose with its memory stand in the checkpoints too, each of which holds its run's whole curve.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from tuner.errors import TunerError, UnavailableError
from tuner.worker.events import Event, Notice
from tuner.worker.question import Question

_RETRY_SECONDS = 2.0


class Outage:
    """Whether the database can be reached, as far as the last try told."""

    def __init__(self, *, show: Callable[[Event], None], budget: float) -> None:
        """The database is there.

        Args:
            show: Takes the notices about beginning and end.
            budget: Seconds for which an outage is waited for.
        """
        self._show = show
        self._budget = budget
        self._since: float | None = None
        self._next_try = 0.0
        self._over_at: float | None = None
        self._question: Question | None = None

    @property
    def is_on(self) -> bool:
        """Whether the database was gone when it was last tried."""
        return self._since is not None

    @property
    def is_too_long(self) -> bool:
        """Whether it has lasted longer than is waited for."""
        return self._since is not None and time.monotonic() - self._since > self._budget

    def was_on_within(self, seconds: float) -> bool:
        """Whether the database came back less than so many seconds ago."""
        return self._over_at is not None and time.monotonic() - self._over_at < seconds

    @contextlib.contextmanager
    def noticed(self) -> Iterator[None]:
        """An error of the database inside is the beginning of an outage, and goes no further."""
        try:
            yield
        except UnavailableError as error:
            self.begin(error)

    def begin(self, error: TunerError) -> None:
        """The database is gone."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
            waits = f"training goes on, trying again every {_RETRY_SECONDS:g} s for {self._budget / 60:g} min"
            self._show(Notice(level="warning", text=f"{error}; {waits}"))
        self._next_try = now + _RETRY_SECONDS

    def look(self, ask: Callable[[], object]) -> None:
        """See whether it is over, not too often, and without waiting: a server that does not answer takes its time to do so.

        Args:
            ask: Asks the database anything; called in a thread.
        """
        if self._since is None:
            return
        if self._question is None and time.monotonic() >= self._next_try:
            self._question = Question(ask)
        elif self._question is not None and self._question.is_done:
            error, self._question = self._question.error, None
            if error is not None:
                self.begin(error)
                return
            seconds = time.monotonic() - self._since
            self._since, self._over_at = None, time.monotonic()
            self._show(Notice(level="info", text=f"the database is back after {seconds:.0f} s"))
