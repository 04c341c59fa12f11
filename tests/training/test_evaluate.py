from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sklearn import metrics
from torch import Tensor, nn

from tuner.tasks import TASKS
from tuner.training.device import choose_compute
from tuner.training.evaluate import evaluate, predict
from tuner.training.features import FeatureExamples

CPU = choose_compute("fp32")


class Echo(nn.Module):
    """Answers with what it is asked."""

    def forward(self, input_ids: Tensor, inputs_embeds: Tensor) -> Any:
        assert not self.training
        return SimpleNamespace(logits=inputs_embeds[:, 0])


def rows(count: int) -> FeatureExamples:
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 5000, (count,), generator=generator)  # several batches, in another order
    targets = torch.randint(0, 3, (count,), generator=generator)
    return FeatureExamples(features=torch.randn(count, 3, generator=generator), targets=targets, lengths=lengths)


@pytest.mark.parametrize("training", [True, False])
def test_logits_stand_in_the_order_of_the_rows(training: bool) -> None:
    model, examples = Echo().train(training), rows(40)
    assert torch.equal(predict(model, examples=examples, compute=CPU), examples.features)
    assert model.training == training


def test_metrics_equal_those_of_scikit_learn() -> None:
    examples = rows(60)
    found = evaluate(Echo(), task=TASKS["text-classification"], examples=examples, labels="abc", compute=CPU)
    assert found is not None
    predicted = examples.features.argmax(dim=1)
    assert found.predictions == tuple(predicted.tolist())
    assert found.metrics["accuracy"] == pytest.approx(metrics.accuracy_score(examples.targets, predicted))
    assert found.metrics["macro_f1"] == pytest.approx(metrics.f1_score(examples.targets, predicted, average="macro"))
    probabilities = examples.features.softmax(dim=1)
    assert found.metrics["auc"] == pytest.approx(
        metrics.roc_auc_score(examples.targets, probabilities, multi_class="ovr")
    )


def test_a_non_finite_prediction_has_no_score() -> None:
    examples = rows(5)
    examples.features[3, 1] = float("nan")
    assert evaluate(Echo(), task=TASKS["text-classification"], examples=examples, labels="abc", compute=CPU) is None
