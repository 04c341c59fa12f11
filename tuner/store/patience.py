"""Connections to PostgreSQL that do not wait for ever.

The limits of a session are the server's to keep. A server that was stopped, or a proxy whose server is gone, acknowledges what it is
sent and never answers: neither keepalives nor ``tcp_user_timeout`` see anything wrong, and libpq knows no read timeout.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine


def be_patient_for(engine: Engine, *, seconds: float) -> None:
    """Let the connections of an engine break where the server says nothing for so long.

    Args:
        engine: Of psycopg; no connection was opened yet.
        seconds: Longer than what the server ends by itself: it must be the server that says so.
    """
    import psycopg

    class Patient(psycopg.Connection[Any]):
        """Breaks after a silence; the error is what psycopg raises for a connection that is lost."""

        def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
            try:
                return super().wait(gen, interval, timeout if timeout is not None else seconds)
            except psycopg.errors._WaitTimeout as error:  # noqa: SLF001 - the only word for it
                self.pgconn.finish()
                raise psycopg.OperationalError(f"the server said nothing for {seconds:g} s: timed out") from error

    @event.listens_for(engine, "do_connect")
    def _connect(_dialect: Any, _record: Any, arguments: Any, options: dict[str, Any]) -> Any:
        return Patient.connect(*arguments, **options)
