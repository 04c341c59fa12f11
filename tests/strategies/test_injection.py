from __future__ import annotations

from typing import Any

import torch
from peft import IA3Config, LoraConfig
from torch import nn

from tests.contract.architectures import inputs, logits
from tests.strategies.reference import adapted, shaken
from tuner.strategies import resolve
from tuner.strategies.injection import fold, inject

CONFIGS = {
    "lora": lambda: LoraConfig(r=2, lora_alpha=6, target_modules=["0"], init_lora_weights=False),
    "ia3": lambda: IA3Config(target_modules=["0"], feedforward_modules=[], init_ia3_weights=False),
}


def small() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def test_a_scaling_around_an_update_scales_the_update_too() -> None:
    model = small()
    weight, bias = model[0].weight.clone(), model[0].bias.clone()
    inject(model, CONFIGS["lora"]())
    inject(model, CONFIGS["ia3"]())
    scaling = model[0].ia3_l["default"].flatten()
    lora = model[0].base_layer
    update = 3.0 * lora.lora_B["default"].weight @ lora.lora_A["default"].weight
    fold(model)
    torch.testing.assert_close(model[0].weight, scaling[:, None] * (weight + update))
    torch.testing.assert_close(model[0].bias, scaling * bias)


def test_an_update_around_a_scaling_is_not_scaled() -> None:
    model = small()
    weight = model[0].weight.clone()
    inject(model, CONFIGS["ia3"]())
    inject(model, CONFIGS["lora"]())
    update = 3.0 * model[0].lora_B["default"].weight @ model[0].lora_A["default"].weight
    scaling = model[0].base_layer.ia3_l["default"].flatten()
    fold(model)
    assert type(model[0]) is nn.Linear
    torch.testing.assert_close(model[0].weight, scaling[:, None] * weight + update)


def test_what_was_frozen_or_trained_before_still_is() -> None:
    model = small().requires_grad_(requires_grad=False)
    model[2].bias.requires_grad_()
    inject(model, CONFIGS["lora"]())
    for name, parameter in model.named_parameters():
        if "lora" in name:
            parameter.requires_grad = False  # as it stands in the other stage of a sequence
    inject(model, CONFIGS["ia3"]())
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {"0.ia3_l.default", "2.bias"}


def test_each_order_of_a_combination_merges_to_what_it_computes() -> None:
    for name in ("lora+ia3", "ia3+lora", "oft+vera+ia3", "ia3+vera+oft"):
        model = shaken(adapted(name, "bert"))
        expected = logits(model, inputs("bert"))
        merged = resolve(name).merge(model)
        torch.testing.assert_close(logits(merged, inputs("bert")), expected, rtol=1e-4, atol=1e-5)
