from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.training.toy import ROWS, Linear, Odd, a_run, by_hand, gradients, objective_of
from tuner.training.regularisers import Mixing, r_drop


@pytest.mark.parametrize("micro_batch", [1, 3, 8])
@pytest.mark.parametrize("weighted", [False, True])
def test_accumulated_gradient_equals_that_of_the_whole_batch(tmp_path: Path, micro_batch: int, weighted: bool) -> None:
    weights = torch.tensor([0.5, 1.0, 3.0]) if weighted else None
    what = replace(a_run(tmp_path, label_smoothing=0.1).objective, class_weights=weights)
    rows = torch.tensor([0, 4, 7, 9, 11, 13, 17, 20])
    model = what.model
    assert isinstance(model, Linear)
    logits = model(**what.train.inputs(rows)).logits
    expected_loss = nn.functional.cross_entropy(logits, what.train.targets[rows], weight=weights, label_smoothing=0.1)
    expected = torch.autograd.grad(expected_loss, list(model.parameters()))
    loss = what.accumulate(rows, step=0, micro_batch=micro_batch)
    torch.testing.assert_close(loss, expected_loss.detach())
    for parameter, gradient in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("micro_batch", [1, 3, 8])
def test_a_penalty_is_added_once(tmp_path: Path, micro_batch: int) -> None:
    plain = a_run(tmp_path, label_smoothing=0.1).objective
    what = replace(plain, strategy=Odd())
    rows = torch.arange(8)
    losses, gradients = [], []
    for objective in (plain, what):
        losses.append(objective.accumulate(rows, step=0, micro_batch=micro_batch))
        gradients.append([torch.zeros(1) if p.grad is None else p.grad for p in objective.model.parameters()])
        objective.model.zero_grad()
    weight = what.model.get_parameter("layer.weight").detach()
    torch.testing.assert_close(losses[1], losses[0] + 0.25 * weight.square().sum())
    torch.testing.assert_close(gradients[1][0] - 0.5 * weight, gradients[0][0])
    torch.testing.assert_close(gradients[1][1], gradients[0][1])


@pytest.mark.parametrize("micro_batch", [1, 3, 8])
@pytest.mark.parametrize("weighted", [False, True])
def test_mixup_mixes_vectors_and_losses(tmp_path: Path, micro_batch: int, weighted: bool) -> None:
    objective, layer, weights = objective_of(tmp_path, weighted=weighted, mixup=0.4)
    mixing = Mixing.draw(alpha=0.4, rows=8, seed=objective.settings.seed, step=3)
    share, partners = mixing.share, mixing.partners
    assert 0.01 < share < 0.99

    def loss(vectors: Tensor, targets: Tensor) -> Tensor:
        logits = layer(share * vectors + (1 - share) * vectors[partners])
        own, other = (cross_entropy(logits, of, weight=weights) for of in (targets, targets[partners]))
        return share * own + (1 - share) * other

    torch.testing.assert_close(gradients(objective, micro_batch=micro_batch), by_hand(objective, loss))


@pytest.mark.parametrize("micro_batch", [1, 3, 8])
@pytest.mark.parametrize("weighted", [False, True])
def test_fgm_adds_the_loss_of_the_worst_rows_nearby(tmp_path: Path, micro_batch: int, weighted: bool) -> None:
    objective, layer, weights = objective_of(tmp_path, weighted=weighted, fgm=0.7)

    def loss(vectors: Tensor, targets: Tensor) -> Tensor:
        vectors = vectors.clone().requires_grad_()
        plain = cross_entropy(layer(vectors), targets, weight=weights)
        (gradient,) = torch.autograd.grad(plain, vectors, retain_graph=True)
        worse = vectors.detach() + 0.7 * gradient / gradient.norm(dim=1, keepdim=True)
        return plain + cross_entropy(layer(worse), targets, weight=weights)

    found, expected = gradients(objective, micro_batch=micro_batch), by_hand(objective, loss)
    torch.testing.assert_close(found, expected)
    plain, _, _ = objective_of(tmp_path, weighted=weighted)
    assert found[0] > 2 * gradients(plain, micro_batch=8)[0]


class Swaying(Linear):
    """Its passes differ as with dropout, but in turns: every second one doubles the logits."""

    passes = 0

    def forward(self, input_ids: Tensor, inputs_embeds: Tensor) -> Any:
        self.passes += 1
        return SimpleNamespace(logits=self.layer(inputs_embeds[:, 0]) * (1 + (self.passes + 1) % 2))


@pytest.mark.parametrize("micro_batch", [1, 3, 8])
@pytest.mark.parametrize("weighted", [False, True])
def test_r_drop_adds_the_disagreement_of_two_passes(tmp_path: Path, micro_batch: int, weighted: bool) -> None:
    objective, layer, weights = objective_of(tmp_path, weighted=weighted, r_drop=0.5, model=Swaying())

    def loss(vectors: Tensor, targets: Tensor) -> Tensor:
        one = layer(vectors)
        both = cross_entropy(one, targets, weight=weights) + cross_entropy(2 * one, targets, weight=weights)
        return 0.5 * both + 0.5 * r_drop(one, 2 * one) / len(vectors)

    torch.testing.assert_close(gradients(objective, micro_batch=micro_batch), by_hand(objective, loss))


@pytest.mark.parametrize("micro_batch", [1, 8])
def test_penalties_on_weights_are_added_once(tmp_path: Path, micro_batch: int) -> None:
    objective, layer, _ = objective_of(tmp_path, weighted=False, l1=0.1, l2_sp=0.2)
    start = torch.ones(3, 6)
    objective = replace(objective, starts={"layer.weight": start})

    def loss(vectors: Tensor, targets: Tensor) -> Tensor:
        distance = (layer.weight - start).square().sum() + layer.bias.square().sum()
        return cross_entropy(layer(vectors), targets) + 0.1 * layer.weight.abs().sum() + 0.2 * distance / 2

    torch.testing.assert_close(gradients(objective, micro_batch=micro_batch), by_hand(objective, loss))


def test_what_stands_still_is_not_penalised(tmp_path: Path) -> None:
    objective, layer, _ = objective_of(tmp_path, weighted=False, l1=0.1, l2_sp=0.2)
    plain, _, _ = objective_of(tmp_path, weighted=False)
    for what in (objective, plain):
        what.model.get_parameter("layer.weight").requires_grad = False
    found, expected = gradients(objective, micro_batch=8), gradients(plain, micro_batch=8)
    torch.testing.assert_close(found[0], expected[0] + 0.1 * layer.bias.detach().square().sum())
    torch.testing.assert_close(found[1][0], expected[1][0] + 0.2 * layer.bias.detach())


@pytest.mark.parametrize("changes", [{"mixup": 0.4}, {"fgm": 1.0}, {"l1": 0.1}, {"r_drop": 1.0}, {}])
def test_memory_that_runs_out_changes_no_gradient(tmp_path: Path, changes: dict[str, Any]) -> None:
    found, sizes = [], []
    for room in (1000, 3):
        objective = a_run(tmp_path, model=Linear(room=room), **changes).objective
        loss, micro_batch = objective.backward(ROWS, step=3, micro_batch=8)
        found.append((loss, [parameter.grad for parameter in objective.model.parameters()]))
        sizes.append(micro_batch)
    assert sizes == [8, 2]
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("changes", [{"mixup": 0.4}, {"fgm": 1.0}, {"l1": 0.1}, {"l2_sp": 0.1}, {"r_drop": 1.0}, {}])
def test_a_scaled_loss_has_scaled_gradients(tmp_path: Path, changes: dict[str, Any]) -> None:
    objective = a_run(tmp_path, strategy=Odd(), **changes).objective
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaled = replace(objective, scaler=scaler)
    loss, expected = gradients(objective, micro_batch=3)
    found_loss, found = gradients(scaled, micro_batch=3)
    torch.testing.assert_close(found_loss, loss)
    torch.testing.assert_close(found, [1024.0 * gradient for gradient in expected])
