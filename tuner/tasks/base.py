"""What a task is: the model it needs, what is minimised, and how well the answers fit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tuner.study.catalogue import TaskInfo
from tuner.study.plan import Confusion

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """How well predictions fit the truth.

    Attributes:
        metrics: A finite number for every metric of the task.
        confusion: Rows counted by true and predicted class.
        predictions: Predicted class index of each row.
        by_row: As :meth:`Task.by_row` gives it; empty where nobody asked.
    """

    metrics: dict[str, float]
    confusion: Confusion
    predictions: tuple[int, ...]
    by_row: tuple[float, ...] = ()


class Task(ABC):
    """One kind of problem."""

    info: ClassVar[TaskInfo]

    @abstractmethod
    def auto_class(self) -> Any:
        """The class of transformers, such as ``AutoModelForSequenceClassification``, that builds the model."""

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor, *, smoothing: float, weights: Tensor | None) -> Tensor:
        """The sum of the rows' losses, so that parts of a batch add up to the whole.

        Args:
            logits: Model output, (rows, classes).
            targets: True classes, (rows,).
            smoothing: Probability mass spread over the other classes.
            weights: Weight of each class, or None.

        Returns:
            A scalar; divided by :meth:`mass` of the whole batch it is the batch's mean loss.
        """

    @abstractmethod
    def score(self, logits: np.ndarray[Any, Any], targets: np.ndarray[Any, Any], *, labels: Sequence[str]) -> Scores:
        """All metrics of the task.

        Args:
            logits: Model output in float32, (rows, classes).
            targets: True classes, (rows,).
            labels: Class names by index.
        """

    def by_row(self, logits: np.ndarray[Any, Any], targets: np.ndarray[Any, Any], *, metric: str) -> tuple[float, ...]:
        """What each row contributes to a metric that predicted classes do not determine: what other rows would do to it follows.

        Args:
            logits: As in :meth:`score`.
            targets: As in :meth:`score`.
            metric: The study's metric.

        Returns:
            A number a row, whose mean is the metric; empty where classes tell all, or where the task cannot say. A study whose
            finalists are chosen by such a metric keeps the default recipe then.
        """
        return ()

    def mass(self, targets: Tensor, *, weights: Tensor | None) -> float | Tensor:
        """What the summed loss of a batch is divided by: the number of its rows, or the sum of their weights."""
        return float(len(targets)) if weights is None else weights[targets].sum()
