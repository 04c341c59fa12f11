from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import CTRLConfig, CTRLForSequenceClassification

from tests.contract.architectures import build, inputs, logits
from tests.strategies.reference import adapted, shaken
from tuner.errors import TrialInfeasible
from tuner.strategies import resolve
from tuner.strategies.base import backbone_of, freeze_backbone
from tuner.strategies.state import count_parameters, trainable_state
from tuner.strategies.subspace import Subspace, frozen_weights

KINDS = ("bert", "gpt2", "t5", "resnet")


class Sum(nn.Module):
    """A backbone of three weights in two layers, one of them tied."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), requires_grad=False)
        self.two = nn.Parameter(torch.tensor([5.0, 6.0, 7.0]), requires_grad=False)
        self.again = nn.ParameterDict({"weight": self.two})

    def forward(self) -> Tensor:
        values: Tensor = (self.one**2).sum() + self.two @ self.again["weight"]
        return values


def subspace_of(model: nn.Module) -> Any:
    found = backbone_of(model).get_submodule("subspace")
    assert isinstance(found, Subspace)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_the_coordinates_the_scales_and_the_head(kind: str) -> None:
    model = adapted("intrinsic", kind, {"intrinsic.dimension": 50})
    layers = {"bert": 4, "gpt2": 4, "t5": 6, "resnet": 4}[kind]  # embeddings, blocks, and what comes after them
    assert count_parameters(model)[0] == 50 + layers + count_parameters(build(kind))[0]
    assert not any("slots" in name for name in trainable_state(model))


def test_every_weight_is_its_own_plus_or_minus_a_coordinate() -> None:
    model = Sum()
    weights = frozen_weights(model)
    assert weights[0].value is model.one
    assert weights[1].value is model.two
    assert [len(weight.places) for weight in weights] == [1, 2]
    subspace: Any = Subspace(weights, dimension=3, backbone=model)
    with torch.no_grad():
        subspace.coordinates.copy_(torch.tensor([0.1, 0.2, 0.3]))
        subspace.scales.fill_(2.0)
    table = torch.tensor([0.1, 0.2, 0.3, -0.1, -0.2, -0.3])
    one = model.one + 2.0 * table[subspace.slots_0.long()].view(2, 2)
    two = model.two + 2.0 * table[subspace.slots_1.long()]
    torch.testing.assert_close(model(), (one**2).sum() + two @ two)
    subspace.settle()
    torch.testing.assert_close(model.one.detach(), one)
    torch.testing.assert_close(model.again["weight"].detach(), two)
    assert model.again["weight"] is model.two
    torch.testing.assert_close(model(), (one**2).sum() + two @ two)  # and is moved no more


def test_gradients_are_those_of_the_written_out_projection() -> None:
    model = Sum()
    subspace: Any = Subspace(frozen_weights(model), dimension=3, backbone=model)
    with torch.no_grad():
        subspace.coordinates.copy_(torch.tensor([0.1, 0.2, 0.3]))
    model().backward()
    coordinates, scale = torch.tensor([0.1, 0.2, 0.3], requires_grad=True), torch.tensor(1.0, requires_grad=True)
    table = torch.cat((coordinates, -coordinates))
    one = model.one + scale * table[subspace.slots_0.long()].view(2, 2)
    two = model.two + scale * table[subspace.slots_1.long()]
    ((one**2).sum() + two @ two).backward()
    assert coordinates.grad is not None and scale.grad is not None
    torch.testing.assert_close(subspace.coordinates.grad, coordinates.grad)
    torch.testing.assert_close(subspace.scales.grad, scale.grad.view(1))


def test_the_projection_is_the_same_for_ever() -> None:
    """Weights that were saved with another projection would be noise."""
    subspace = subspace_of(adapted("intrinsic", "bert", {"intrinsic.dimension": 1000}))
    assert subspace.slots_0[:6].tolist() == [1666, 134, 291, 1242, 1922, 1209]
    slots = torch.cat([tensor for name, tensor in subspace.named_buffers()])
    counts = torch.bincount(slots, minlength=2000)
    assert len(counts) == 2000
    assert counts.float().var() / counts.float().mean() < 1.2  # as of fair dice


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_of_the_token_embeddings_only_the_rows_that_are_looked_up_are_moved(kind: str) -> None:
    model = shaken(adapted("intrinsic", kind, {"intrinsic.dimension": 50}), size=0.02)
    subspace = subspace_of(model)
    tokens, table = (backbone_of(each).get_input_embeddings() for each in (model, build(kind)))  # type: ignore[operator]
    looked_up = [weight for weight in subspace._weights if weight.is_looked_up]
    assert [tuple(weight.value.shape) for weight in looked_up] == [table.weight.shape]
    with torch.no_grad():
        found = tokens(torch.tensor([[3, 5, 3]]))
        resolve("intrinsic").merge(model)
        assert torch.equal(found, looked_up[0].value[torch.tensor([[3, 5, 3]])])
        assert not torch.equal(found, table(torch.tensor([[3, 5, 3]])))


@pytest.mark.parametrize("kind", KINDS)
def test_ties_hold(kind: str) -> None:
    model = shaken(adapted("intrinsic", kind, {"intrinsic.dimension": 50}), size=0.02)
    tied = [name for name, _ in build(kind).named_parameters(remove_duplicate=False)]
    expected = logits(model, inputs(kind))
    merged = resolve("intrinsic").merge(model)
    assert [name for name, _ in merged.named_parameters(remove_duplicate=False)] == tied
    assert len(list(merged.parameters())) == len(list(build(kind).parameters()))
    assert torch.equal(logits(merged, inputs(kind)), expected)


def test_a_copy_moves_by_its_own_coordinates() -> None:
    model = adapted("intrinsic", "bert", {"intrinsic.dimension": 50})
    other = copy.deepcopy(model)
    shaken(other)
    assert torch.equal(logits(model, inputs("bert")), logits(build("bert"), inputs("bert")))
    assert not torch.allclose(logits(other, inputs("bert")), logits(model, inputs("bert")), atol=1e-3)


def test_the_pretrained_weights_are_back_after_an_error() -> None:
    model = shaken(adapted("intrinsic", "bert", {"intrinsic.dimension": 50}))
    before = dict(model.named_parameters())
    with pytest.raises(RuntimeError):
        model(input_ids=torch.zeros(1, 3))  # ids must be whole numbers
    assert all(parameter is before[name] for name, parameter in model.named_parameters())


def test_more_coordinates_than_weights_are_refused() -> None:
    with pytest.raises(
        TrialInfeasible, match=r"intrinsic\.dimension 16000 .*lower space\.intrinsic\.dimension below \d+$"
    ):
        adapted("intrinsic", "bert", {"intrinsic.dimension": 16000})
    with pytest.raises(TrialInfeasible, match="take intrinsic out of strategies"):
        resolve("intrinsic").apply(resolve("full").apply(build("bert"), {}), {})


def test_embeddings_may_be_scaled_in_place() -> None:
    config = CTRLConfig(vocab_size=30, n_embd=16, n_layer=1, n_head=2, dff=32, n_positions=16, pad_token_id=0)
    model = freeze_backbone(CTRLForSequenceClassification(config))
    resolve("intrinsic").apply(model, {"intrinsic.dimension": 20})
    model(input_ids=torch.tensor([[3, 4, 5]])).logits.sum().backward()
    gradient = backbone_of(model).get_parameter("subspace.coordinates").grad
    assert gradient is not None
    assert gradient.abs().max() > 0
