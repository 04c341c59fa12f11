"""One label for a text, or for a pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tuner.study.catalogue import MetricInfo, TaskInfo
from tuner.tasks.base import Scores, Task

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class TextClassification(Task):
    """Single-label classification with a sequence classification model."""

    info = TaskInfo(
        name="text-classification",
        summary="one label for a text or a pair of texts",
        metrics=(
            MetricInfo(name="macro_f1", goal="maximize", help="F1 averaged over the classes, each counting the same"),
            MetricInfo(name="accuracy", goal="maximize", help="share of rows whose predicted class is the true one"),
            MetricInfo(name="precision", goal="maximize", help="precision averaged over the classes"),
            MetricInfo(name="recall", goal="maximize", help="recall averaged over the classes"),
            MetricInfo(
                name="auc", goal="maximize", help="area under the ROC curve, one class against the rest, averaged"
            ),
            MetricInfo(
                name="loss", goal="minimize", help="mean cross-entropy, without label smoothing or class weights"
            ),
        ),
        columns=("text", "label"),
    )

    def auto_class(self) -> Any:
        """``AutoModelForSequenceClassification``."""
        from transformers import AutoModelForSequenceClassification

        return AutoModelForSequenceClassification

    def loss(self, logits: Tensor, targets: Tensor, *, smoothing: float, weights: Tensor | None) -> Tensor:
        """Cross-entropy in float32, summed over the rows."""
        from torch.nn.functional import cross_entropy

        return cross_entropy(logits.float(), targets, weight=weights, label_smoothing=smoothing, reduction="sum")

    def score(self, logits: np.ndarray[Any, Any], targets: np.ndarray[Any, Any], *, labels: Sequence[str]) -> Scores:
        """See :func:`tuner.tasks.classification.score`."""
        from tuner.tasks.classification import score

        return score(logits, targets, labels=labels)

    def by_row(self, logits: np.ndarray[Any, Any], targets: np.ndarray[Any, Any], *, metric: str) -> tuple[float, ...]:
        """See :func:`tuner.tasks.classification.by_row`."""
        from tuner.tasks.classification import by_row

        return by_row(logits, targets, metric=metric)
