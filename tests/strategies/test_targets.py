from __future__ import annotations

from typing import Any

import pytest
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BartConfig,
    EsmConfig,
    FalconConfig,
    PretrainedConfig,
    Qwen2MoeConfig,
)

from tests.contract.architectures import build
from tests.strategies.reference import adapted
from tuner.errors import TrialInfeasible
from tuner.strategies import resolve
from tuner.strategies.base import freeze_backbone
from tuner.strategies.targets import attention_targets, feed_forward_targets, linear_targets, narrowest

OTHERS = {
    "bart": BartConfig(
        vocab_size=32, d_model=8, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16,
        encoder_attention_heads=2, decoder_attention_heads=2, max_position_embeddings=16,
    ),
    "falcon": FalconConfig(vocab_size=32, hidden_size=8, num_hidden_layers=1, num_attention_heads=2),
}  # fmt: skip


def last_parts(targets: dict[str, nn.Module]) -> set[str]:
    return {name.rpartition(".")[2] for name in targets}


@pytest.mark.parametrize(
    ("kind", "roles", "layers"),
    [
        ("bart", "q", {"q_proj"}),  # the order in a BART is key, value, query
        ("bart", "kv", {"k_proj", "v_proj"}),
        ("bart", "o", {"out_proj"}),
        ("falcon", "v", {"query_key_value"}),
    ],
)
def test_roles_are_known_by_name(kind: str, roles: str, layers: set[str]) -> None:
    model = AutoModel.from_config(OTHERS[kind]).requires_grad_(requires_grad=False)
    assert last_parts(attention_targets(model, roles=roles)) == layers


def test_a_wrapped_layer_goes_by_the_name_of_its_wrapper() -> None:
    plain, wrapped = linear_targets(build("bert")), linear_targets(adapted("lora", "bert"))
    assert plain.keys() == wrapped.keys()
    model = adapted("ia3", "bert")
    assert all(model.get_submodule(name) is not layer for name, layer in attention_targets(model, roles="kv").items())
    assert attention_targets(model, roles="kv").keys() == attention_targets(build("bert"), roles="kv").keys()


def test_inserted_and_trained_layers_are_no_targets() -> None:
    assert linear_targets(adapted("adapter", "bert")).keys() == linear_targets(build("bert")).keys()
    assert not linear_targets(resolve("full").apply(build("bert"), {}))
    assert not feed_forward_targets(resolve("full").apply(build("bert"), {}))


SIZES: dict[str, Any] = {
    "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 0,
}  # fmt: skip
QWEN: dict[str, Any] = {"num_experts": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}


@pytest.mark.parametrize(
    "config",
    [EsmConfig(**SIZES, intermediate_size=32, mask_token_id=1), Qwen2MoeConfig(**SIZES, **QWEN, num_key_value_heads=2)],
    ids=["esm", "qwen2_moe"],
)
@pytest.mark.parametrize("strategy", ["lora", "adalora"])
def test_gates_and_heads_of_other_tasks_do_not_bound_the_rank(strategy: str, config: PretrainedConfig) -> None:
    model = freeze_backbone(AutoModelForSequenceClassification.from_config(config))
    assert {"q_proj", "query"} & last_parts(linear_targets(model))
    assert not {"regression", "shared_expert_gate", "gate"} & last_parts(linear_targets(model))
    resolve(strategy).apply(model, {f"{strategy}.r": 8})
    with pytest.raises(TrialInfeasible, match=f"exceeds the width 16.*lower space.{strategy}.r"):
        resolve(strategy).apply(
            freeze_backbone(AutoModelForSequenceClassification.from_config(config)), {f"{strategy}.r": 17}
        )


def test_the_narrowest_layer_bounds_the_rank() -> None:
    layers = freeze_backbone(nn.ModuleDict({"a": nn.Linear(9, 5), "b": nn.Linear(4, 8)}))
    assert narrowest(dict(layers.named_children())) == ("b", 4)
