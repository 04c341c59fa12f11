"""The curve of a run: what every epoch reported, which one counts, and whether it is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tuner.study.plan import Confusion, confusion_from_json, parts_from_json


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """What decides over a run's epochs.

    Attributes:
        metric: The objective.
        maximize: Whether more of it is better.
        epochs: Epochs of a run that is not stopped.
        patience: Stop after this many epochs without a better objective; None never does.
        select: ``best`` or ``last``: the epoch that counts.
        ends_after: Epochs after which the run is over, fewer than ``epochs``, over which the learning rate falls; 0: all of them.
    """

    metric: str
    maximize: bool
    epochs: int
    patience: int | None
    select: str
    ends_after: int = 0


@dataclass(kw_only=True, slots=True)
class History:
    """All epochs so far, over all attempts of a run.

    Attributes:
        rules: What decides.
        epochs: Metrics of each epoch, the first at index 0.
        confusion: Validation counts of the epoch that counts.
        first_loss: Of the very first step; None before it.
        parts: From which step on how many rows were on the device at once; an entry for each change.
    """

    rules: Rules
    epochs: list[dict[str, float]] = field(default_factory=list)
    confusion: Confusion | None = None
    first_loss: float | None = None
    parts: list[tuple[int, int]] = field(default_factory=list)

    @property
    def best_epoch(self) -> int:
        """The 1-based epoch that counts, the earliest of equals; 0 before the first."""
        if self.rules.select == "last" or not self.epochs:
            return len(self.epochs)
        sign = 1.0 if self.rules.maximize else -1.0
        return 1 + max(range(len(self.epochs)), key=lambda index: sign * self.epochs[index][self.rules.metric])

    @property
    def best(self) -> Mapping[str, float]:
        """Metrics of the epoch that counts; empty before the first."""
        return self.epochs[self.best_epoch - 1] if self.epochs else {}

    def add(self, metrics: Mapping[str, float], confusion: Confusion) -> None:
        """Append an epoch."""
        self.epochs.append(dict(metrics))
        if self.best_epoch == len(self.epochs):
            self.confusion = confusion

    def note_parts(self, rows: int, *, step: int) -> None:
        """Remember how many rows were on the device at once in a step, if that is news."""
        if not self.parts or self.parts[-1][1] != rows:
            self.parts.append((step, rows))

    def ended_by(self) -> str:
        """``epochs`` or ``patience`` if the run is over, else the empty text."""
        if len(self.epochs) >= (self.rules.ends_after or self.rules.epochs):
            return "epochs"
        if self.rules.patience is None or not self.epochs:
            return ""
        sign = 1.0 if self.rules.maximize else -1.0
        curve = [sign * metrics[self.rules.metric] for metrics in self.epochs]
        stale = len(curve) - 1 - curve.index(max(curve))
        return "patience" if stale >= self.rules.patience else ""

    def to_json(self) -> dict[str, Any]:
        """The curve as JSON; floats come back bit for bit."""
        return {
            "epochs": self.epochs,
            "confusion": None if self.confusion is None else asdict(self.confusion),
            "first_loss": self.first_loss,
            "parts": [list(part) for part in self.parts],
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, rules: Rules) -> History:
        """The inverse of :meth:`to_json`."""
        epochs = [dict(metrics) for metrics in data["epochs"]]
        return cls(
            rules=rules,
            epochs=epochs,
            confusion=confusion_from_json(data["confusion"]),
            first_loss=data.get("first_loss"),
            parts=list(parts_from_json(data.get("parts"))),
        )
