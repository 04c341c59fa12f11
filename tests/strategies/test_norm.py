from __future__ import annotations

import re

import pytest
from torch import nn

from tests.contract.architectures import KINDS, build
from tuner.errors import TrialInfeasible
from tuner.strategies.base import backbone_of
from tuner.strategies.inserted import Inserted
from tuner.strategies.norm import Norm, find_norms
from tuner.strategies.state import count_parameters, trained_names

# In these families, and in their names only, the module above the weight is called by what it does.
NAMED_NORM = re.compile(r"(norm|ln_\w|layernorm\w*|layer_norm|normalization)\.(weight|bias)$", re.IGNORECASE)


@pytest.mark.parametrize("kind", KINDS)
def test_exactly_the_norms_and_the_head_are_trained(kind: str) -> None:
    model = Norm().apply(build(kind), {})
    inside = {id(parameter) for parameter in backbone_of(model).parameters()}
    norms = {
        name for name, parameter in model.named_parameters() if id(parameter) in inside and NAMED_NORM.search(name)
    }
    head = {name for name, parameter in model.named_parameters() if id(parameter) not in inside}
    assert norms
    assert trained_names(model) == norms | head


def test_norms_are_counted() -> None:
    # One norm of the embeddings and two in each of two blocks, 16 wide; with bias, or in Llama without and one at the end.
    assert count_parameters(Norm().apply(build("bert"), {}))[0] == (1 + 2 * 2) * 2 * 16 + (16 * 3 + 3)
    assert count_parameters(Norm().apply(build("llama"), {}))[0] == (2 * 2 + 1) * 16 + 16 * 3


def test_inserted_norms_are_not_the_backbones() -> None:
    model = build("bert")
    before = find_norms(model)
    adapter = Inserted()
    adapter.norm = nn.LayerNorm(16).requires_grad_(requires_grad=False)
    backbone_of(model).encoder.adapter = adapter  # type: ignore[union-attr]
    assert find_norms(model) == before
    assert not Norm().apply(model, {}).get_parameter("bert.encoder.adapter.norm.weight").requires_grad


def test_a_backbone_without_norms_is_infeasible() -> None:
    with pytest.raises(TrialInfeasible, match="no normalisation layer with weights; take norm out of strategies"):
        Norm().apply(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2, elementwise_affine=False)), {})
