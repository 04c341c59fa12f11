from __future__ import annotations

import pytest
from torch import nn
from transformers import AutoModelForSequenceClassification, MPNetConfig

from tests.contract.architectures import build
from tuner.errors import TrialInfeasible
from tuner.strategies import resolve
from tuner.strategies.layerwise_decay import LayerwiseDecay, distances
from tuner.strategies.state import count_parameters

HALF = {"layerwise_decay.decay": 0.5}


def factors(kind: str) -> dict[str, float]:
    model = LayerwiseDecay().apply(build(kind), HALF)
    assert count_parameters(model)[0] == count_parameters(model)[1]
    found = LayerwiseDecay().learning_rates(model, HALF)
    return {name: found.get(name, 1.0) for name, _ in model.named_parameters()}


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (
            "bert",
            {
                "bert.embeddings.": 0.125,
                "bert.encoder.layer.0.": 0.25,
                "bert.encoder.layer.1.": 0.5,
                "bert.pooler.": 1.0,
                "classifier.": 1.0,
            },
        ),
        ("gpt2", {"transformer.wte": 0.125, "transformer.wpe": 0.125, "transformer.ln_f": 1.0, "score": 1.0}),
        (
            "t5",
            {
                "transformer.shared": 0.5**5,
                "transformer.encoder.block.0.": 0.5**4,
                "transformer.encoder.block.1.": 0.5**3,
                "transformer.encoder.final_layer_norm": 0.5**3,
                "transformer.decoder.block.0.": 0.5**2,
                "transformer.decoder.block.1.": 0.5,
                "transformer.decoder.final_layer_norm": 1.0,
                "classification_head.": 1.0,
            },
        ),
        (
            "resnet",
            {
                "resnet.embedder.": 0.5**4,
                "resnet.encoder.stages.0.layers.0.": 0.5**3,
                "resnet.encoder.stages.1.layers.0.": 0.5**2,
                "resnet.encoder.stages.1.layers.1.": 0.5,
                "classifier.": 1.0,
            },
        ),
    ],
)
def test_each_block_has_the_factor_of_the_one_above_times_the_decay(kind: str, expected: dict[str, float]) -> None:
    found = factors(kind)
    for prefix, factor in expected.items():
        assert {value for name, value in found.items() if name.startswith(prefix)} == {factor}, prefix


def test_what_all_blocks_read_lies_below_them() -> None:
    config = MPNetConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=30
    )
    model = AutoModelForSequenceClassification.from_config(config)
    found = distances(model, strategy="layerwise_decay")
    assert found["mpnet.encoder.relative_attention_bias.weight"] == 3
    assert found["mpnet.encoder.layer.1.output.dense.weight"] == 1
    assert found["mpnet.embeddings.word_embeddings.weight"] == 3


def test_no_decay_is_full_fine_tuning() -> None:
    model = LayerwiseDecay().apply(build("bert"), {})
    assert LayerwiseDecay().learning_rates(model, {"layerwise_decay.decay": 1.0}) == {}


@pytest.mark.parametrize("name", ["layerwise_decay", "gradual", "top_layers"])
def test_a_model_without_blocks_is_infeasible(name: str) -> None:
    model = nn.Sequential(nn.Linear(2, 2)).requires_grad_(requires_grad=False)
    with pytest.raises(TrialInfeasible, match=f"{name} cannot adapt Sequential - its backbone has no repeated layers"):
        resolve(name).apply(model, {})
    assert count_parameters(model)[0] == 0
