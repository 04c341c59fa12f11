"""One question in a thread of its own: a server that does not answer takes its time to do so."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tuner.errors import TunerError


class Question:
    """Asked when it is made.

    Attributes:
        error: What was answered instead; None if it was answered, or is not yet.
    """

    def __init__(self, ask: Callable[[], object]) -> None:
        """Ask.

        Args:
            ask: Asks a server anything; called in the thread.
        """
        self.error: TunerError | None = None
        self._ask = ask
        self._thread = threading.Thread(target=self._run, name="question", daemon=True)
        self._thread.start()

    @property
    def is_done(self) -> bool:
        """Whether there is an answer, or an error."""
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._ask()
        except TunerError as error:  # also a refusal: a server that is not what it was is not back
            self.error = error
