"""Metrics of single-label classification, from one matrix of counts.

scikit-learn has the same metrics, and the tests hold these to its figures. They are written out because they run after
every epoch: an epoch on cached features takes milliseconds, as long as scikit-learn's checks of its arguments.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tuner.study.plan import Confusion
from tuner.tasks.base import Scores

Array = np.ndarray[Any, Any]


def score(logits: Array, targets: Array, *, labels: Sequence[str]) -> Scores:
    """All metrics of a set of rows.

    Args:
        logits: Finite model output, (rows, classes), at least one row.
        targets: True classes, (rows,).
        labels: Class names by index.

    Returns:
        Accuracy; precision, recall and F1 averaged over the classes that occur in truth or prediction, 0 where a ratio
        has no denominator, as scikit-learn's ``average="macro", zero_division=0``; AUC; and mean cross-entropy.
    """
    predictions = logits.argmax(axis=1)
    classes = len(labels)
    counts = np.bincount(targets * classes + predictions, minlength=classes * classes).reshape(classes, classes)
    hits, truth, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    occurs = (truth + predicted) > 0
    log_probabilities = _log_softmax(logits.astype(np.float64))
    metrics = {
        "accuracy": hits.sum() / len(targets),
        "macro_f1": _ratio(2 * hits, truth + predicted)[occurs].mean(),
        "precision": _ratio(hits, predicted)[occurs].mean(),
        "recall": _ratio(hits, truth)[occurs].mean(),
        "auc": one_against_rest_auc(np.exp(log_probabilities), targets),
        "loss": -log_probabilities[np.arange(len(targets)), targets].mean(),
    }
    return Scores(
        metrics={name: float(value) for name, value in metrics.items()},
        confusion=Confusion(labels=tuple(labels), counts=tuple(tuple(row) for row in counts.tolist())),
        predictions=tuple(predictions.tolist()),
    )


def one_against_rest_auc(probabilities: Array, targets: Array) -> float:
    """Area under the ROC curve, averaged over the classes that have rows both inside and outside of them.

    Args:
        probabilities: (rows, classes).
        targets: True classes, (rows,).

    Returns:
        The mean of the classes' areas, each the share of (inside, outside) pairs in the right order, ties counting
        half; 0.5, no information, where all rows are of one class.
    """
    areas = []
    for index in range(probabilities.shape[1]):
        inside = targets == index
        positives = int(inside.sum())
        negatives = len(targets) - positives
        if positives and negatives:
            _, place, tied = np.unique(probabilities[:, index], return_inverse=True, return_counts=True)
            ranks = (np.cumsum(tied) - (tied - 1) / 2)[place]  # 1-based, the mean rank where values are equal
            areas.append((ranks[inside].sum() - positives * (positives + 1) / 2) / (positives * negatives))
    return float(np.mean(areas)) if areas else 0.5


def _ratio(above: Array, below: Array) -> Array:
    return np.divide(above, below, out=np.zeros(len(above)), where=below > 0)


def _log_softmax(logits: Array) -> Array:
    shifted: Array = logits - logits.max(axis=1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
