from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoModelForImageClassification, ResNetConfig

from tests.training.samples import tensors_of
from tuner.errors import TrialInfeasible
from tuner.strategies import resolve
from tuner.strategies.base import freeze_backbone
from tuner.strategies.state import count_parameters, load_trainable_state, trainable_state
from tuner.strategies.targets import linear_targets


def resnet() -> nn.Module:
    torch.manual_seed(0)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    config.num_labels = 3
    return freeze_backbone(AutoModelForImageClassification.from_config(config).train())


@pytest.mark.parametrize("name", ["head", "lora", "full", "bitfit"])
def test_running_statistics_are_saved_with_the_weights(name: str) -> None:
    model = resolve(name).apply(resnet(), {"lora.r": 2})
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    for _ in range(3):
        model(pixel_values=torch.randn(4, 3, 32, 32)).logits.square().sum().backward()
        optimizer.step()
    other = resolve(name).apply(resnet(), {"lora.r": 2})
    load_trainable_state(other, trainable_state(model))
    pictures = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(model.eval()(pictures).logits, other.eval()(pictures).logits)


def test_convolutions_are_adapted_where_there_is_no_linear_layer() -> None:
    assert all(isinstance(layer, nn.Conv2d) for layer in linear_targets(resnet()).values())
    assert len(linear_targets(resnet())) > 3


def test_a_rank_beyond_the_narrowest_layer_is_infeasible() -> None:
    with pytest.raises(TrialInfeasible, match=r"lora\.r 64 exceeds the width 3 of resnet\.embedder"):
        resolve("lora").apply(resnet(), {"lora.r": 64})


def test_nothing_to_adapt_is_infeasible() -> None:
    model = nn.Sequential(nn.LayerNorm(4)).requires_grad_(requires_grad=False)
    with pytest.raises(TrialInfeasible, match="no linear layer"):
        resolve("lora").apply(model, {})


def test_attention_that_reads_its_weight_directly_is_left_alone() -> None:
    model = nn.ModuleDict({"attention": nn.MultiheadAttention(4, 2), "out": nn.Linear(4, 4)})
    assert set(linear_targets(model.requires_grad_(requires_grad=False))) == {"out"}


def test_loading_copies() -> None:
    model = resnet()
    state = {name: tensor.clone() for name, tensor in trainable_state(model).items()}
    load_trainable_state(model, state)
    before = tensors_of(model)
    for tensor in state.values():
        tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_tied_parameter_counts_once() -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 3, bias=False), "b": nn.Linear(3, 3, bias=False)})
    model["b"].weight = model["a"].weight
    assert count_parameters(model) == (9, 9)
