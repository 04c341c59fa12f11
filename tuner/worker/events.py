"""What a supervisor tells whoever watches it: plain records, no behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tuner.store.records import Outcome, StudyState
from tuner.study.domains import Value


@dataclass(frozen=True, kw_only=True, slots=True)
class WorkerStarted:
    """The supervisor is up."""

    worker: str
    host: str
    slots: tuple[str, ...]
    storage: str  # without password


@dataclass(frozen=True, kw_only=True, slots=True)
class StudySeen:
    """A study's state, sent when it changed and at least every few seconds while it is served.

    Attributes:
        counts: Trials by outcome, every key present.
        budget_trials: Trials asked for, None without such a limit.
        used_share: Used share of the budget's tightest limit, 0 to 1.
        best_number: Trial with the best value so far.
        best_value: Its value.
        best_strategy: Its strategy.
        confirmations: ``(finished, all)`` confirmation runs.
    """

    study: str
    state: StudyState
    counts: Mapping[str, int]
    budget_trials: int | None
    used_share: float
    metric: str
    best_number: int | None
    best_value: float | None
    best_strategy: str | None
    confirmations: tuple[int, int] = (0, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class RunClaimed:
    """A slot took a run.

    Attributes:
        seed: The fresh seed of a confirmation run, None for a search run.
        attempt: 1 for the first execution; more when it goes on after a crash or a drain.
        params: Absolute values of what is searched.
    """

    study: str
    number: int
    seed: int | None
    slot: str
    attempt: int
    strategy: str
    params: Mapping[str, Value]
    epochs: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RunProgress:
    """A share of an epoch is done; at most a few times a second for each slot."""

    study: str
    number: int
    slot: str
    epoch: int
    fraction: float


@dataclass(frozen=True, kw_only=True, slots=True)
class EpochReported:
    """An epoch was reported and stored."""

    study: str
    number: int
    seed: int | None
    slot: str
    epoch: int
    epochs: int
    metric: str
    value: float
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RunEnded:
    """A run left its slot."""

    study: str
    number: int
    seed: int | None
    slot: str
    outcome: Outcome
    reason: str
    metric: str
    value: float | None
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """Something a person should know: ``info``, ``warning`` or ``error``."""

    level: str
    text: str


Event = WorkerStarted | StudySeen | RunClaimed | RunProgress | EpochReported | RunEnded | Notice


class Display(Protocol):
    """Shows events; called from the supervisor's main thread only."""

    def show(self, event: Event) -> None:
        """Take one event; must return quickly and never raise."""

    def close(self) -> None:
        """Restore the terminal."""
