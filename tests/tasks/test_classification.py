from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from tuner.tasks import TASKS
from tuner.tasks.classification import auc_by_row, by_row, one_against_rest_auc, score

LABELS = ("a", "b", "c", "d")


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=1, keepdims=True)
    return shares


def reference(logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    predictions = logits.argmax(axis=1)
    probabilities = softmax(logits.astype(np.float64))
    precision, recall, macro_f1, _ = metrics.precision_recall_fscore_support(
        targets, predictions, average="macro", zero_division=0
    )
    areas = [
        metrics.roc_auc_score(targets == index, probabilities[:, index])
        for index in range(logits.shape[1])
        if 0 < (targets == index).sum() < len(targets)
    ]
    return {
        "accuracy": metrics.accuracy_score(targets, predictions),
        "macro_f1": macro_f1,
        "precision": precision,
        "recall": recall,
        "auc": float(np.mean(areas)) if areas else 0.5,
        "loss": metrics.log_loss(targets, probabilities, labels=range(logits.shape[1])),
    }


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 60), classes=st.integers(2, 4))
@settings(max_examples=60, deadline=None)
def test_metrics_equal_those_of_scikit_learn(seed: int, rows: int, classes: int) -> None:
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(rows, classes)).astype(np.float32)
    targets = draw.integers(0, classes, size=rows)
    found = score(logits, targets, labels=LABELS[:classes])
    assert found.metrics == pytest.approx(reference(logits, targets), abs=1e-6)
    assert np.array_equal(
        found.confusion.counts, metrics.confusion_matrix(targets, found.predictions, labels=range(classes))
    )


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(2, 60))
@settings(max_examples=60, deadline=None)
def test_equal_probabilities_count_half(seed: int, rows: int) -> None:
    draw = np.random.default_rng(seed)
    positive = draw.integers(0, 5, size=rows) / 4
    targets = draw.integers(0, 2, size=rows)
    targets[:2] = (0, 1)
    found = one_against_rest_auc(np.stack([1 - positive, positive], axis=1), targets)
    assert found == pytest.approx(metrics.roc_auc_score(targets, positive))


def test_auc_of_all_classes_equals_scikit_learn_in_one_call() -> None:
    draw = np.random.default_rng(3)
    targets = np.arange(80) % 4
    probabilities = softmax(draw.normal(size=(80, 4)) + 2 * np.eye(4)[targets])
    expected = metrics.roc_auc_score(targets, probabilities, multi_class="ovr", average="macro")
    assert one_against_rest_auc(probabilities, targets) == pytest.approx(expected)


def test_one_class_alone_has_no_auc_and_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = score(np.array([[1.0, 0.0], [0.0, 3.0]], dtype=np.float32), np.array([1, 1]), labels=("x", "y"))
    assert found.metrics["auc"] == 0.5
    assert found.predictions == (0, 1)


def test_huge_logits_have_a_finite_loss() -> None:
    found = score(np.array([[1e30, -1e30]], dtype=np.float32), np.array([1]), labels=("x", "y"))
    assert found.metrics["loss"] == pytest.approx(2e30)


def test_every_declared_metric_is_reported() -> None:
    declared = {metric.name for metric in TASKS["text-classification"].info.metrics}
    found = score(np.eye(2, dtype=np.float32), np.array([0, 1]), labels=("x", "y"))
    assert found.metrics.keys() == declared


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(2, 60), classes=st.integers(2, 4))
@settings(max_examples=60, deadline=None)
def test_the_parts_of_the_rows_have_the_metric_as_their_mean(seed: int, rows: int, classes: int) -> None:
    draw = np.random.default_rng(seed)
    logits = draw.integers(-2, 3, size=(rows, classes)).astype(np.float32)  # with ties
    targets = np.append(np.arange(2), draw.integers(0, classes, size=rows - 2))
    found = score(logits, targets, labels=LABELS[:classes]).metrics
    for metric in ("auc", "loss"):
        parts = by_row(logits, targets, metric=metric)
        assert len(parts) == rows
        assert np.mean(parts) == pytest.approx(found[metric], abs=1e-3)
    assert by_row(logits, targets, metric="accuracy") == ()


def test_an_auc_of_one_class_has_no_parts() -> None:
    assert by_row(np.zeros((3, 2), dtype=np.float32), np.zeros(3, dtype=np.int64), metric="auc") == ()


@pytest.mark.parametrize("classes", [2, 3])
def test_the_parts_of_an_auc_vary_as_it_does_over_drawn_rows(classes: int) -> None:
    """The variance of two models' difference, against a bootstrap of the rows with scikit-learn's figures."""
    draw = np.random.default_rng(3)
    targets = draw.choice(classes, size=300, p=[0.7, 0.3] if classes == 2 else [0.5, 0.3, 0.2])
    shared = draw.normal(size=(300, classes))
    models = [softmax(np.eye(classes)[targets] + shared + 0.7 * draw.normal(size=(300, classes))) for _ in range(2)]
    parts = [auc_by_row(model, targets) for model in models]
    differences = []
    for _ in range(400):
        rows = draw.integers(0, 300, size=300)
        first, second = (one_against_rest_auc(model[rows], targets[rows]) for model in models)
        differences.append(first - second)
    assert np.var(parts[0] - parts[1], ddof=1) / 300 == pytest.approx(np.var(differences), rel=0.25)
