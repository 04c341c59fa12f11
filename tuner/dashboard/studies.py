"""Optuna's dashboard for one database, from the moment there is a study to show."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tuner.dashboard.pages import answer
from tuner.errors import TunerError
from tuner.store import location, schema, studies
from tuner.store.database import Database

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment


class StudiesApp:
    """A WSGI application: a clear page while there is no study, Optuna's dashboard afterwards, without a restart."""

    def __init__(self, url: str, *, allow_write: bool = False) -> None:
        """Prepare; the database is opened by the first request.

        Args:
            url: Database URL.
            allow_write: Open the database for writing.

        Raises:
            ConfigurationError: If the URL is wrong.
        """
        self._url = url
        self._location = location.parse_url(url)
        self._allow_write = allow_write
        self._lock = threading.Lock()
        self._database: Database | None = None
        self._dashboard: WSGIApplication | None = None

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        try:
            dashboard = self._opened()
        except TunerError as error:
            return answer(
                environ,
                start_response,
                status="503 Service Unavailable",
                title="The database is out of reach",
                text=str(error),
            )
        if dashboard is None:
            return answer(
                environ,
                start_response,
                status="200 OK",
                title="No studies yet",
                text="The database holds no study. Create one, or run the demo:",
                commands=("tuner study create FILE", "tuner demo"),
            )
        return dashboard(environ, start_response)

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            if self._database is not None:
                self._database.close()
            self._database = self._dashboard = None

    def _opened(self) -> WSGIApplication | None:
        with self._lock:
            if self._dashboard is None and self._has_file():
                self._open()
            return self._dashboard

    def _has_file(self) -> bool:
        # Connecting to a SQLite file that is not there would create it.
        path = location.sqlite_path(self._location)
        return path is None or path.exists()

    def _open(self) -> None:
        database = Database(self._location, read_only=not self._allow_write)
        try:
            # Without our tables there is no study yet; Optuna's dashboard would die of the missing table.
            if schema.read_state(database).tuner is not None:
                schema.require_current(database)
                if studies.list_studies(database):
                    self._dashboard = _optuna_dashboard(database)
                    self._database = database
        finally:
            if self._database is not database:
                database.close()


def _optuna_dashboard(database: Database) -> WSGIApplication:
    import optuna_dashboard

    application: WSGIApplication = optuna_dashboard.wsgi(database.optuna_storage())
    return application
