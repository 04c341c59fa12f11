from __future__ import annotations

from typing import Any

from transformers import DebertaConfig, DebertaModel

from tests.contract.architectures import build
from tuner.strategies.bitfit import BitFit

SIZES: dict[str, Any] = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def test_a_bias_is_known_by_the_end_of_its_name() -> None:
    model = DebertaModel(DebertaConfig(**SIZES, intermediate_size=32)).requires_grad_(requires_grad=False)
    BitFit().apply(model, {})
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.rpartition(".")[2] for name in trained} == {"bias", "q_bias", "v_bias"}
    assert not any(name.endswith("weight") for name in trained)


def test_the_head_and_the_biases_are_trained() -> None:
    model = BitFit().apply(build("bert"), {})
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == {name for name, _ in model.named_parameters() if name.endswith("bias")} | {"classifier.weight"}
