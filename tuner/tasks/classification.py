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


def by_row(logits: Array, targets: Array, *, metric: str) -> tuple[float, ...]:
    """What each row contributes to a metric of probabilities.

    Args:
        logits: As in :func:`score`.
        targets: True classes, (rows,).
        metric: ``loss`` or ``auc``; of others the predicted classes tell all.

    Returns:
        A number a row with five digits, whose mean is the metric; empty for other metrics, and for an AUC without two classes.
    """
    log_probabilities = _log_softmax(logits.astype(np.float64))
    if metric == "loss":
        values = -log_probabilities[np.arange(len(targets)), targets]
    elif metric == "auc":
        values = auc_by_row(np.exp(log_probabilities), targets)
    else:
        return ()
    return tuple(float(f"{value:.5g}") for value in values.tolist())


def auc_by_row(probabilities: Array, targets: Array) -> Array:
    """Each row's part in :func:`one_against_rest_auc`: the variance of their mean is that of drawing other rows.

    A class's area is the mean over its rows of the share of the others that lie below, and the mean over the others of the share of
    its rows that lie above: a row's part is the area and how far its own share is from it, weighted by how rare its side is.

    Args:
        probabilities: (rows, classes).
        targets: True classes, (rows,).

    Returns:
        (rows,), with the area as its mean; empty where all rows are of one class.

    Source:
        DeLong, DeLong and Clarke-Pearson 1988, https://doi.org/10.2307/2531595: their structural components, with the number of rows of
        either side drawn, too.
    """
    parts = []
    for index in range(probabilities.shape[1]):
        inside = targets == index
        if not inside.any() or inside.all():
            continue
        its, others = probabilities[inside, index], probabilities[~inside, index]
        above = _share_below(its, among=others)
        below = 1.0 - _share_below(others, among=its)
        area = above.mean()
        part = np.empty(len(targets))
        part[inside] = area + len(targets) / len(its) * (above - area)
        part[~inside] = area + len(targets) / len(others) * (below - area)
        parts.append(part)
    result: Array = np.mean(parts, axis=0) if parts else np.empty(0)
    return result


def _share_below(values: Array, *, among: Array) -> Array:
    """For each value the share of others that are smaller, equal ones counting half."""
    ordered = np.sort(among)
    smaller = np.searchsorted(ordered, values, side="left") + np.searchsorted(ordered, values, side="right")
    share: Array = smaller / (2.0 * len(ordered))
    return share


def _ratio(above: Array, below: Array) -> Array:
    return np.divide(above, below, out=np.zeros(len(above)), where=below > 0)


def _log_softmax(logits: Array) -> Array:
    shifted: Array = logits - logits.max(axis=1, keepdims=True)
    result: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
