"""What became of a run that raised an error, decided by the error's type: the one table of it.

A run is tried again only where another attempt may end otherwise. What the configuration, the data or the code brings about comes
again; what a disk or a network does may not.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass

from tuner.errors import TemporaryError, TrialDiverged, TrialInfeasible, UnavailableError

INFEASIBLE, DIVERGED, ERRORED = "infeasible", "diverged", "errored"

OUTCOMES: tuple[tuple[type[BaseException], str], ...] = ((TrialInfeasible, INFEASIBLE), (TrialDiverged, DIVERGED))
"""Errors that are an answer; every other one is a mistake in the data or the code, or a passing fault."""

PASSING_TYPES: tuple[type[BaseException], ...] = (ConnectionError, TimeoutError, TemporaryError, UnavailableError)
"""Faults of a moment, by class."""

PASSING_NAMES = frozenset(
    {
        "aiohttp.client_exceptions.ClientConnectionError",
        "aiohttp.client_exceptions.ClientPayloadError",
        "botocore.exceptions.ConnectionError",
        "botocore.exceptions.HTTPClientError",
        "httpx.TransportError",
        "httpx2.TransportError",
        "huggingface_hub.errors.LocalEntryNotFoundError",  # the hub is out of reach, and the cache has no copy
        "requests.exceptions.ChunkedEncodingError",
        "requests.exceptions.ConnectionError",
        "requests.exceptions.Timeout",
    }
)
"""Faults of a moment, by the name of the class: a worker need not load these libraries to know them."""

PASSING_ERRNOS = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.ECONNABORTED,
        errno.ECONNREFUSED,
        errno.ECONNRESET,
        errno.EDQUOT,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.EIO,
        errno.EMFILE,
        errno.ENETDOWN,
        errno.ENETRESET,
        errno.ENETUNREACH,
        errno.ENFILE,
        errno.ENOSPC,
        errno.EPIPE,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
"""Faults of a moment, by what the operating system calls them; a file that is not there, or may not be read, is none."""

PASSING_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Faults of a moment, by the status of an HTTP answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """What an error means for its run.

    Attributes:
        outcome: ``infeasible``, ``diverged`` or ``errored``.
        may_pass: Whether another attempt may end otherwise.
    """

    outcome: str
    may_pass: bool


def judge(error: BaseException) -> Judgement:
    """What an error that ended a run means for it; an error in plain words is judged by what it was raised from, too."""
    for kind, outcome in OUTCOMES:
        if isinstance(error, kind):
            return Judgement(outcome=outcome, may_pass=False)
    return Judgement(outcome=ERRORED, may_pass=any(_passes(one) for one in _causes(error)))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)


def _passes(error: BaseException) -> bool:
    if isinstance(error, PASSING_TYPES) or (isinstance(error, OSError) and error.errno in PASSING_ERRNOS):
        return True
    if any(f"{kind.__module__}.{kind.__qualname__}" in PASSING_NAMES for kind in type(error).__mro__):
        return True
    return getattr(getattr(error, "response", None), "status_code", None) in PASSING_STATUSES
