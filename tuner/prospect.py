"""What a study that was checked will cost, from what the same model took in the same database."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tuner.study.check import CheckReport
    from tuner.study.outlook import Outlook, PastTraining


def expect_cost(found: CheckReport, *, workers: int = 1, storage: str | None = None) -> Outlook | str:
    """An interval for device hours, hours by the clock and money; or why nothing can be said, in words.

    Args:
        found: The study, checked.
        workers: Slots that will serve it.
        storage: Database URL; else ``TUNER_STORAGE``, else ``sqlite:///tuner.db``.

    Example:
        >>> import tuner
        >>> from tuner.prospect import expect_cost
        >>> spec, found = tuner.check_study("study.yaml")
        >>> expect_cost(found, storage="sqlite:///nothing-here.db")
        'unknown until the first trials: no trial of this model has been trained in this database'
    """
    from tuner.errors import TunerError
    from tuner.store import location, past_costs
    from tuner.store.database import Database
    from tuner.study.outlook import foresee, rows_of_an_epoch

    url = location.parse_url(location.storage_url(storage))
    path = location.sqlite_path(url)
    past: tuple[PastTraining, ...] = ()
    if path is None or path.exists():
        try:
            with Database.open(location.storage_url(storage), read_only=True) as database:
                past = past_costs.past_trainings(database, spec=found.spec)
        except TunerError as error:
            return f"unknown until the first trials: past ones cannot be read ({error})"
    if not past:
        return "unknown until the first trials: no trial of this model has been trained in this database"
    data = found.data
    return foresee(
        found.spec,
        past=past,
        tried_first=found.forecast.tried_first,
        rows=0.0 if data is None or not data.complete else rows_of_an_epoch(data.train_rows, data.validation_rows),
        workers=workers,
    )
