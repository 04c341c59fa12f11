"""Trying again: what passes by itself is nobody's business but ours."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import DBAPIError

from tuner.store.faults import Fault, fault_of

Result = TypeVar("Result")

MOST_TRIES = 8
MOST_SECONDS = 60.0
"""Conflicts and broken connections are tried again no longer than this, however few the tries: each may have waited for a lock."""


def retried(attempt: Callable[[], Result], *, patience: float, on_full: Callable[[BaseException], None]) -> Result:
    """Call a function until it succeeds or its error is worth telling.

    Args:
        attempt: One whole transaction, from connecting to the commit; it leaves nothing behind when it raises.
        patience: Seconds to wait for a server that has no free connection.
        on_full: Called once, before the first such wait.

    Raises:
        DBAPIError: If the error does not pass, or did not in time.
        StorageInternalError: As before, where Optuna made the call.
    """
    begin = time.monotonic()
    tries = 0
    was_full = False
    while True:
        tries += 1
        try:
            return attempt()
        except (DBAPIError, StorageInternalError) as error:
            waited = time.monotonic() - begin
            match fault_of(error):
                case Fault.CONFLICT | Fault.LOST if tries < MOST_TRIES and waited < MOST_SECONDS:
                    pause = random.uniform(0.0, 0.05) * 2**tries  # noqa: S311 - jitter, not a secret
                case Fault.FULL if waited < patience:
                    if not was_full:
                        on_full(error)
                    was_full = True
                    pause = random.uniform(0.5, 1.0) * min(5.0, 0.1 * 2**tries)  # noqa: S311 - as above
                case _:
                    raise
        time.sleep(pause)
