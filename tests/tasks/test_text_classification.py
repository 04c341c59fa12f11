from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy

from tuner.study.catalogue import RANGES
from tuner.tasks import TASKS

TASK = TASKS["text-classification"]


def test_parts_of_a_batch_add_up_to_its_mean_loss() -> None:
    torch.manual_seed(0)
    logits, targets = torch.randn(10, 4), torch.randint(0, 4, (10,))
    for weights in (None, torch.tensor([0.5, 1.0, 2.0, 4.0])):
        mass = TASK.mass(targets, weights=weights)
        parts = [
            TASK.loss(logits[part], targets[part], smoothing=0.1, weights=weights) / mass
            for part in torch.arange(10).split(3)
        ]
        expected = cross_entropy(logits, targets, weight=weights, label_smoothing=0.1)
        torch.testing.assert_close(torch.stack(parts).sum(), expected)


def test_loss_is_in_float32_whatever_the_model_computes_in() -> None:
    logits = torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16)
    assert TASK.loss(logits, torch.tensor([0]), smoothing=0.0, weights=None).dtype is torch.float32


def test_model_class() -> None:
    assert TASK.auto_class().__name__ == "AutoModelForSequenceClassification"


def test_every_metric_has_a_range() -> None:
    assert {metric.name for task in TASKS.values() for metric in task.info.metrics} == set(RANGES)
