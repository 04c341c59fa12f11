"""How the studies of a worker stand, told to its display every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable

from tuner.errors import ConfigurationError, NotFoundError
from tuner.search.budget import used_share
from tuner.search.driver import StudyDriver
from tuner.store.database import Database
from tuner.store.queries import read_progress
from tuner.worker.events import Event, Notice, StudySeen

_SHOW_SECONDS = 2.0


class Showing:
    """Shows every study that is served."""

    def __init__(
        self,
        db: Database,
        *,
        drivers: dict[str, StudyDriver],
        show: Callable[[Event], None],
        is_busy: Callable[[StudyDriver], bool],
        refuse: Callable[[str, ConfigurationError], None],
    ) -> None:
        """Nothing is shown before :meth:`show_studies`.

        Args:
            db: The database.
            drivers: Of the studies that are served, by name; one whose study is gone or over is taken out, so that a worker which
                serves study after study keeps none of their histories.
            show: Takes the events.
            is_busy: Whether a run of this driver goes on here, as in a study that was paused: its budget may change.
            refuse: Takes the name of a study that this code cannot read any more, and why; it takes the study out and tells it.
        """
        self._db = db
        self._drivers = drivers
        self._show = show
        self._is_busy = is_busy
        self._refuse = refuse
        self._next = 0.0

    def hurry(self) -> None:
        """Something has changed: the next :meth:`show_studies` shows at once."""
        self._next = 0.0

    def show_studies(self) -> None:
        """Show how each study stands, unless that was done a moment ago.

        Raises:
            UnavailableError: If the database cannot be reached.
        """
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _SHOW_SECONDS
        for name in list(self._drivers):
            try:
                progress = read_progress(self._db, name)
            except NotFoundError:
                del self._drivers[name]
                self._show(Notice(level="warning", text=f"study {name} was deleted; what ran of it here is dropped"))
                continue
            except ConfigurationError as error:  # a newer code changed it
                self._refuse(name, error)
                continue
            study = progress.study
            if study.uid == self._drivers[name].study.uid:
                self._drivers[name].study = study  # its budget may be another one by now
            self._show(
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
            if not study.state.is_open and not self._is_busy(self._drivers[name]):
                del self._drivers[name]
