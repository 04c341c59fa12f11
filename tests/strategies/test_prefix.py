from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Mapping

import pytest
import torch
from peft import PrefixTuningConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    LlamaConfig,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.deberta_v2 import DebertaV2Config

from tests.contract.architectures import build, build_on_meta, inputs, logits, padded
from tests.training.samples import CONFIGS
from tuner.errors import TrialInfeasible, UsageError
from tuner.strategies.base import backbone_of, freeze_backbone
from tuner.strategies.key_values import NAME, Table, attach
from tuner.strategies.positions import known_positions
from tuner.strategies.prefix import Prefix
from tuner.strategies.state import count_parameters, trained_names
from tuner.study.domains import Value

LENGTH = 5
TRANSFORMERS = ("bert", "distilbert", "modernbert", "gpt2", "llama", "t5", "vit")
WITH_KEYS_OF_THEIR_OWN = {"bert": 2, "gpt2": 2, "llama": 2, "vit": 2, "t5": 6}  # attentions; T5: 2 + 2 + 2 across


def deberta() -> DebertaV2Config:
    return DebertaV2Config(
        vocab_size=23, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )


def adapt(model: nn.Module, params: Mapping[str, Value] | None = None) -> nn.Module:
    """With values as large as those of the text, drawn after everything else."""
    Prefix().apply(model, {"prefix.length": LENGTH} | dict(params or {}))
    torch.manual_seed(2)
    for name, parameter in model.named_parameters():
        if ".prefix." in name:
            nn.init.normal_(parameter, std=0.7)
    return model


def classifier(config: PretrainedConfig) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = AutoModelForSequenceClassification.from_config(config)
    return freeze_backbone(model.eval())


def grouped_llama() -> nn.Module:
    config = copy.deepcopy(CONFIGS["llama"])
    assert isinstance(config, LlamaConfig)
    config.num_attention_heads, config.num_key_value_heads, config.head_dim = 4, 2, 4
    return classifier(config)


MODELS = {
    "bert": lambda: build("bert"),
    "gpt2": lambda: build("gpt2"),
    "llama": lambda: build("llama"),
    "grouped": grouped_llama,
    "roberta": lambda: classifier(
        RobertaConfig(
            vocab_size=23, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
            max_position_embeddings=40, pad_token_id=1,
        )
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT asks by its old name
@pytest.mark.parametrize("kind", MODELS)
def test_logits_agree_with_peft(kind: str) -> None:
    model = MODELS[kind]().eval()
    theirs = get_peft_model(copy.deepcopy(model), PrefixTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=LENGTH))
    adapt(model)
    tables = [module for module in model.modules() if isinstance(module, Table)]
    weight = torch.cat([part for table in tables for part in table()], dim=1)
    theirs.prompt_encoder["default"].load_prompt_embeddings(weight)  # type: ignore[operator]
    rows = inputs("bert")
    torch.testing.assert_close(logits(model, rows), logits(theirs.eval(), rows), rtol=1e-5, atol=1e-5)
    without = logits(MODELS[kind](), rows)
    assert (logits(model, rows) - without).abs().max() > 1e-3


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_padding_and_the_attention_function_change_nothing(kind: str, projection: bool, implementation: str) -> None:
    params: dict[str, Value] = {"prefix.projection": projection}
    expected = logits(adapt(build(kind), params), inputs(kind))
    model = build(kind)
    assert isinstance(model, PreTrainedModel)
    model.set_attn_implementation(implementation)
    adapt(model, params)
    torch.testing.assert_close(logits(model, padded(inputs(kind))), expected, rtol=1e-4, atol=1e-5)
    assert (logits(build(kind), inputs(kind)) - expected).abs().max() > 1e-3


@pytest.mark.parametrize("kind", WITH_KEYS_OF_THEIR_OWN)
def test_every_attention_has_as_many_keys_and_values_as_the_length_says(kind: str) -> None:
    model = build(kind)
    head = count_parameters(model)[0]
    adapt(model)
    assert count_parameters(model)[0] == head + WITH_KEYS_OF_THEIR_OWN[kind] * 2 * LENGTH * 16


def test_keys_of_grouped_heads_are_as_few_as_the_models_own() -> None:
    model = grouped_llama()
    head = count_parameters(model)[0]
    assert count_parameters(adapt(model))[0] == head + 2 * 2 * LENGTH * (2 * 4)


def test_the_projection_has_one_trunk_and_an_output_for_each_attention() -> None:
    model = build("bert")
    head = count_parameters(model)[0]
    adapt(model, {"prefix.projection": True})
    trunk, output = LENGTH * 16 + (16 * 16 + 16), 16 * 2 * 16 + 2 * 16
    assert count_parameters(model)[0] == head + trunk + 2 * output


@pytest.mark.parametrize("projection", [False, True])
@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_gradients_reach_everything_that_is_trained_and_nothing_else(kind: str, projection: bool) -> None:
    model = adapt(build(kind), {"prefix.projection": projection})
    model(**inputs(kind)).logits.square().sum().backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == trained_names(model)


def test_attention_over_prefix_and_tokens_is_the_formula() -> None:
    """The formula, on a toy: 3 queries over 2 keys of the prefix and 3 tokens, of which one query may not see the last."""
    torch.manual_seed(0)
    attention = copy.deepcopy(backbone_of(build("vit")).get_submodule("layers.0.attention"))
    table = Table(length=2, width=16, deviation=1.0, like=torch.zeros(1))
    attach(attention, table)
    query, key, value = torch.randn(3, 1, 2, 3, 8).unbind()
    mask = torch.ones(1, 1, 3, 3, dtype=torch.bool)
    mask[..., 0, 2] = False
    found, _ = ALL_ATTENTION_FUNCTIONS[NAME](attention, query, key, value, mask, scaling=1 / math.sqrt(8))
    for head in range(2):
        part = slice(8 * head, 8 * head + 8)
        keys = torch.cat([table.keys[:, part], key[0, head]])
        scores = query[0, head] @ keys.T / math.sqrt(8)
        scores[0, 4] = -torch.inf
        expected = scores.softmax(-1) @ torch.cat([table.values[:, part], value[0, head]])
        torch.testing.assert_close(found[0, :, head], expected)


def test_windows_of_modernbert_leave_the_prefix_in_sight() -> None:
    config = copy.deepcopy(CONFIGS["modernbert"])
    assert isinstance(config, ModernBertConfig)
    config.layer_types, config.local_attention = ["sliding_attention"] * 2, 4
    model = classifier(config)
    ids = torch.randint(4, 23, (1, 30))
    attention = next(module for module in model.modules() if type(module).__name__ == "ModernBertAttention")
    assert attention.sliding_window is not None
    adapt(model)
    before = logits(model, {"input_ids": ids})
    ids[0, 20:] = 5  # ten tokens beyond the reach of the first one …
    assert torch.equal(logits(model, {"input_ids": ids}), before)
    with torch.no_grad():
        attention.get_parameter("prefix.values").add_(1.0)  # … which sees the prefix
    assert not torch.allclose(logits(model, {"input_ids": ids}), before)


def test_two_models_in_one_process_have_prefixes_of_their_own() -> None:
    first, second, plain = adapt(build("bert")), build("bert"), build("bert")
    Prefix().apply(second, {"prefix.length": 2})
    rows = inputs("bert")
    alone = logits(first, rows)
    assert not torch.allclose(logits(second, rows), alone)
    assert torch.equal(logits(first, rows), alone)
    assert isinstance(first, PreTrainedModel)
    assert first.config._attn_implementation == "sdpa"
    assert all(not name.startswith("prefix") for name, _ in plain.named_parameters())


@pytest.mark.parametrize("kind", ["bert", "llama", "t5"])
def test_copies_go_their_own_way(kind: str) -> None:
    model = adapt(build(kind), {"prefix.projection": True})
    expected = logits(model, inputs(kind))
    twins = (copy.deepcopy(model), pickle.loads(pickle.dumps(model)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".prefix." in name:
                parameter.zero_()
    for twin in twins:
        assert torch.equal(logits(twin, inputs(kind)), expected)
        assert trained_names(twin) == trained_names(model)


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_it_is_counted_without_weights(kind: str) -> None:
    assert count_parameters(adapt(build_on_meta(kind))) == count_parameters(adapt(build(kind)))


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_half_precision(kind: str) -> None:
    model = adapt(build(kind))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found: Tensor = model(**inputs(kind)).logits
    torch.testing.assert_close(found.float(), logits(model, inputs(kind)), rtol=0.1, atol=0.1)


@pytest.mark.parametrize("kind", ["resnet", "deberta"])
def test_what_cannot_take_a_prefix_is_refused(kind: str) -> None:
    model = build(kind) if kind == "resnet" else classifier(deberta())
    why = {"resnet": "has no attention", "deberta": "DisentangledSelfAttention computes its attention in its own way"}
    with pytest.raises(TrialInfeasible, match=why[kind]):
        Prefix().apply(model, {})


def test_masks_that_nobody_understands_are_refused() -> None:
    model = build("bert")
    assert isinstance(model, PreTrainedModel)
    model.config._attn_implementation = "flex_attention"
    with pytest.raises(TrialInfeasible, match="take prefix out of strategies"):
        Prefix().apply(model, {})


@pytest.mark.parametrize(("kind", "known"), [("bert", 64), ("gpt2", 64), ("llama", None), ("t5", None)])
def test_text_and_prefix_share_the_positions(kind: str, known: int | None) -> None:
    model = adapt(build(kind))
    assert known_positions(backbone_of(model)) == known
    for tokens in (64 - LENGTH, 65 - LENGTH):
        ids = torch.full((1, tokens), 4)
        ids[0, -1] = 3
        if tokens == 64 - LENGTH or known is None:
            assert logits(model, {"input_ids": ids}).isfinite().all()
            continue
        with pytest.raises(
            TrialInfeasible, match=r"60 tokens and prefix\.length 5 exceed the model's 64 positions"
        ) as e:
            logits(model, {"input_ids": ids})
        assert "training.max_length to 59" in str(e.value)


def test_the_positions_of_roberta_begin_behind_that_of_the_padding() -> None:
    assert known_positions(backbone_of(MODELS["roberta"]())) == 38


def test_a_prefix_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(TrialInfeasible, match="leaves none of the model's 64 positions"):
        Prefix().apply(build("bert"), {"prefix.length": 64})


def test_it_cannot_be_merged() -> None:
    model = adapt(build("bert"))
    before = logits(model, inputs("bert"))
    with pytest.raises(UsageError, match="prefix cannot be merged"):
        Prefix().merge(model)
    assert torch.equal(logits(model, inputs("bert")), before)
