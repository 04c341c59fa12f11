"""What strategies insert, side by side on one model: applied in any order, saved and loaded exactly."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from tests.contract.architectures import LABELS, build, inputs, logits
from tests.training.test_features import CPU, prepare
from tuner.errors import UsageError
from tuner.strategies import resolve
from tuner.strategies.state import count_parameters, load_trainable_state, trainable_state
from tuner.study.domains import Value
from tuner.study.names import COMBINE
from tuner.training.features import frozen_position

TOGETHER = (
    ("adapter", "prefix", "lora"),
    ("adapter", "bitfit"),
    ("prompt", "lora"),
    ("prompt", "prefix"),
    ("p_tuning", "prompt", "adapter"),
)
PARAMS: dict[str, Value] = {
    "lora.r": 2,
    "adapter.reduction": 4,
    "adapter.form": "parallel",
    "prefix.length": 3,
    "prompt.length": 2,
    "prompt.intrinsic_dimension": 5,
    "p_tuning.length": 2,
}
ORDERS = [order for names in TOGETHER for order in permutations(names)]


def adapt(kind: str, order: tuple[str, ...], *, seed: int) -> nn.Module:
    """The one pretrained model of a kind, with a head and insertions of a seed."""
    model = build(kind)
    torch.manual_seed(seed)
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter)
    for name in order:
        resolve(name).apply(model, PARAMS)
    return model


def train(model: nn.Module, kind: str) -> None:
    optimizer = torch.optim.AdamW([part for part in model.parameters() if part.requires_grad], lr=1e-2)
    for _ in range(3):
        nn.functional.cross_entropy(model(**inputs(kind)).logits, LABELS).backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@pytest.mark.parametrize("order", ORDERS, ids=COMBINE.join)
def test_they_come_back_from_a_file_whatever_the_order(order: tuple[str, ...], kind: str, tmp_path: Path) -> None:
    model = adapt(kind, order, seed=1)
    before = logits(model, inputs(kind))
    train(model, kind)
    trained = logits(model, inputs(kind))
    assert not torch.allclose(before, trained)
    save_file({key: value.contiguous() for key, value in trainable_state(model).items()}, tmp_path / "w.safetensors")
    other = adapt(kind, order, seed=99)
    load_trainable_state(other, load_file(tmp_path / "w.safetensors"))
    assert torch.equal(logits(other, inputs(kind)), trained)


@pytest.mark.parametrize("kind", ["bert", "t5", "vit"])
@pytest.mark.parametrize("names", TOGETHER[:1] + TOGETHER[2:], ids=COMBINE.join)
def test_together_they_train_the_sum_of_what_each_trains(names: tuple[str, ...], kind: str) -> None:
    head = count_parameters(build(kind))[0]
    alone = sum(count_parameters(adapt(kind, (name,), seed=1))[0] - head for name in names)
    for order in permutations(names):
        assert count_parameters(adapt(kind, order, seed=1))[0] == head + alone


@pytest.mark.parametrize("name", ["adapter+lora", "prefix+lora", "lora+adapter+prefix", "bitfit+adapter"])
def test_a_combination_that_cannot_be_merged_is_left_as_it_was(name: str) -> None:
    model = resolve(name).apply(build("bert"), PARAMS)
    train(model, "bert")
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(UsageError, match="cannot be merged"):
        resolve(name).merge(model)
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("name", ["adapter", "prefix", "prompt", "p_tuning"])
def test_cached_features_never_replace_a_backbone_with_insertions(name: str, tmp_path: Path) -> None:
    model, examples = prepare(tmp_path, kind="bert", strategy=name)
    assert frozen_position(model, examples=examples, compute=CPU) is None
