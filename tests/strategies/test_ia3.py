from __future__ import annotations

import pytest
import torch
from peft import IA3Config
from torch import nn

from tests.contract.architectures import build, inputs, logits
from tests.strategies.reference import adapted, by_peft, shaken
from tuner.errors import TrialInfeasible
from tuner.strategies import resolve
from tuner.strategies.state import count_parameters, trained_names


def peft_config(kind: str) -> IA3Config:
    if kind == "bert":  # PEFT's own list for BERT also takes the attention's output, which the paper does not
        ends = ["0.output.dense", "1.output.dense"]
        return IA3Config(target_modules=["key", "value", *ends], feedforward_modules=ends)
    return IA3Config(fan_in_fan_out=kind == "gpt2")  # PEFT's own list of layers


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama", "t5"])
def test_it_computes_what_peft_computes(kind: str) -> None:
    model = shaken(adapted("ia3", kind))
    theirs = by_peft(model, kind, peft_config(kind))
    assert torch.equal(logits(model, inputs(kind)), logits(theirs, inputs(kind)))
    assert not torch.allclose(logits(model, inputs(kind)), logits(build(kind), inputs(kind)), atol=1e-3)


def test_it_has_a_factor_for_each_key_value_and_inner_activation() -> None:
    heads = {kind: count_parameters(build(kind))[0] for kind in ("bert", "t5", "gpt2")}
    assert count_parameters(adapted("ia3", "bert"))[0] == 2 * (16 + 16 + 32) + heads["bert"]
    # Two layers of the encoder; two of the decoder, which have a second attention.
    assert count_parameters(adapted("ia3", "t5"))[0] == 2 * (2 * 16 + 32) + 2 * (4 * 16 + 32) + heads["t5"]
    # GPT-2 makes queries, keys and values in one layer of 48 outputs.
    assert count_parameters(adapted("ia3", "gpt2"))[0] == 2 * (48 + 64) + heads["gpt2"]


def test_a_convolution_has_a_factor_for_each_channel_it_reads() -> None:
    model = adapted("ia3", "resnet")
    convolutions = [module for module in build("resnet").modules() if isinstance(module, nn.Conv2d)]
    factors = [model.get_parameter(name).numel() for name in sorted(trained_names(model)) if "ia3_l" in name]
    assert sorted(factors) == sorted(convolution.in_channels for convolution in convolutions)
    before = logits(build("resnet").train(), inputs("resnet"))
    assert not torch.allclose(logits(shaken(model), inputs("resnet")), before, atol=1e-2)


def test_it_refuses_what_it_does_not_know() -> None:
    model = nn.Sequential(nn.Linear(4, 4)).requires_grad_(requires_grad=False)
    with pytest.raises(TrialInfeasible, match=r"ia3 cannot adapt Sequential.*take ia3 out of strategies"):
        resolve("ia3").apply(model, {})
