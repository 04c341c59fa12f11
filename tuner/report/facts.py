"""What a verdict's words are made from, and how they name it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuner.report.comparison import Savings
from tuner.report.evidence import Comparison
from tuner.report.formats import format_difference, format_score, format_value
from tuner.report.standing import Standing
from tuner.report.verdict import FinalistScore, Winner
from tuner.store.records import StudySnapshot, TrialRecord
from tuner.study.domains import Value

NO_MOVE = 5e-5
"""Less is not seen in four digits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What the words are made from; the fields mean what they mean in :class:`tuner.report.summary.Summary`."""

    snapshot: StudySnapshot
    winner: Winner | None
    params: Mapping[str, Value]
    finalists: Sequence[FinalistScore]
    test_rows: int
    standing: Standing
    baseline: Comparison | None
    runner_up: Comparison | None
    cheaper: FinalistScore | None
    savings: Savings

    @property
    def metric(self) -> str:
        """The objective's metric."""
        return self.snapshot.study.metric

    def own(self, difference: float) -> str:
        """A difference that is positive where the winner is better, as one of the metric: below zero where less is better."""
        return format_difference(difference if self.snapshot.study.maximize else -difference)

    def ahead(self, difference: float) -> str:
        """How far the winner is ahead: ``+0.0560``, or where less is better ``0.0560 lower``."""
        if self.snapshot.study.maximize:
            return format_difference(difference)
        return f"{format_score(abs(difference))} {'higher' if difference < 0.0 else 'lower'}"

    def ahead_of(self, difference: float, who: str, *, word: str = "against") -> str:
        """The same with whom it is ahead of: ``+0.0560 over the default recipe``, ``0.0560 lower than the default recipe``."""
        return f"{self.ahead(difference)} {word if self.snapshot.study.maximize else 'than'} {who}"

    def ends(self, low: float, high: float) -> str:
        """The ends of such a difference's interval, the lower one first."""
        low, high = (low, high) if self.snapshot.study.maximize else (high, low)
        return f"{self.own(low)} to {self.own(high)}"


def describe_params(params: Mapping[str, Value]) -> str:
    """Values in one line: ``learning_rate 2.1e-3, batch_size 16``."""
    return ", ".join(f"{name} {format_value(value)}" for name, value in params.items())


def name_trial(trial: TrialRecord) -> str:
    """A trial in a few words: ``trial 7 (lora)``."""
    return f"trial {trial.number} ({trial.strategy})"
