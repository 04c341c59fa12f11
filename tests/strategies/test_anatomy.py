"""The parts of a backbone, found in families that name everything differently."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification, PretrainedConfig

from tests.training.samples import CONFIGS
from tuner.strategies import resolve
from tuner.strategies.anatomy import depths, find_blocks, layer_size
from tuner.strategies.base import freeze_backbone

_SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 30,
}
OTHERS: dict[str, PretrainedConfig] = {
    "resnet": transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic"),
    "roberta": transformers.RobertaConfig(**_SIZES),
    "deberta": transformers.DebertaV2Config(**_SIZES, relative_attention=True),
    "electra": transformers.ElectraConfig(**_SIZES, embedding_size=16),
    "mpnet": transformers.MPNetConfig(**_SIZES),
    "phi3": transformers.Phi3Config(**_SIZES, num_key_value_heads=1, bos_token_id=1, eos_token_id=2),
    "qwen3": transformers.Qwen3Config(**_SIZES, num_key_value_heads=2, head_dim=8),
    "bart": transformers.BartConfig(
        vocab_size=30,
        d_model=16,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
    ),
    "convnext": transformers.ConvNextV2Config(hidden_sizes=[8, 16], depths=[1, 2], num_stages=2),
    "swin": transformers.SwinConfig(image_size=32, embed_dim=8, depths=[1, 1], num_heads=[2, 2]),
}
VISION = {"vit", "resnet", "swin", "convnext"}

# First block: attention inputs, attention output, feed-forward inputs, feed-forward output; below the block's name.
FIRST = {
    "bert": (
        "attention.self",
        ("attention.self.query", "attention.self.key", "attention.self.value"),
        "attention.output.dense",
        ("intermediate.dense",),
        "output.dense",
    ),
    "distilbert": (
        "attention",
        ("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        "attention.out_lin",
        ("ffn.lin1",),
        "ffn.lin2",
    ),
    "modernbert": ("attn", ("attn.Wqkv",), "attn.Wo", ("mlp.Wi",), "mlp.Wo"),
    "gpt2": ("attn", ("attn.c_attn",), "attn.c_proj", ("mlp.c_fc",), "mlp.c_proj"),
    "llama": (
        "self_attn",
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        "self_attn.o_proj",
        ("mlp.gate_proj", "mlp.up_proj"),
        "mlp.down_proj",
    ),
    "t5": (
        "layer.0.SelfAttention",
        ("layer.0.SelfAttention.q", "layer.0.SelfAttention.k", "layer.0.SelfAttention.v"),
        "layer.0.SelfAttention.o",
        ("layer.1.DenseReluDense.wi",),
        "layer.1.DenseReluDense.wo",
    ),
    "vit": (
        "attention",
        ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
        "attention.o_proj",
        ("mlp.fc1",),
        "mlp.fc2",
    ),
    "mpnet": (
        "attention.attn",
        ("attention.attn.q", "attention.attn.k", "attention.attn.v"),
        "attention.attn.o",
        ("intermediate.dense",),
        "output.dense",
    ),
    "phi3": ("self_attn", ("self_attn.qkv_proj",), "self_attn.o_proj", ("mlp.gate_up_proj",), "mlp.down_proj"),
    "bart": (
        "self_attn",
        ("self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj"),
        "self_attn.out_proj",
        ("fc1",),
        "fc2",
    ),
}
BLOCKS = {"t5": 4, "bart": 4, "resnet": 3, "convnext": 3}


def build(kind: str) -> nn.Module:
    config = copy.deepcopy((CONFIGS | OTHERS)[kind])
    config.num_labels, config.pad_token_id = 3, 0
    auto = AutoModelForImageClassification if kind in VISION else AutoModelForSequenceClassification
    model: nn.Module = auto.from_config(config)
    return freeze_backbone(model)


@pytest.mark.parametrize("kind", sorted(CONFIGS | OTHERS))
def test_every_block_is_found(kind: str) -> None:
    model = build(kind)
    blocks = find_blocks(model)
    assert len(blocks) == BLOCKS.get(kind, 2)
    assert len({type(model.get_submodule(block.name)) for block in blocks}) <= 2  # those of encoder and decoder
    if kind == "resnet":
        assert all(not block.attentions and block.feed_forward is None for block in blocks)
        return
    for block in blocks:
        assert block.feed_forward is not None
        width = layer_size(model.get_submodule(block.feed_forward.output))[1]
        assert all(layer_size(model.get_submodule(name))[0] == width for name in block.feed_forward.inputs)
        assert block.attentions or kind == "convnext"
        assert all(layer_size(model.get_submodule(item.output))[1] == width for item in block.attentions)


@pytest.mark.parametrize("kind", sorted(FIRST))
def test_layers_are_told_apart(kind: str) -> None:
    block = find_blocks(build(kind))[0]
    attention, feed_forward = block.attentions[0], block.feed_forward
    assert feed_forward is not None
    found = (attention.core, attention.inputs, attention.output, feed_forward.inputs, feed_forward.output)
    core, inputs, output, into, out = FIRST[kind]

    def full(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(f"{block.name}.{name}" for name in names)

    assert found == (*full((core,)), full(inputs), *full((output,)), full(into), *full((out,)))


def test_a_gate_is_no_output() -> None:
    config = transformers.MiniMaxConfig(
        **_SIZES, layer_types=["linear_attention", "full_attention"], num_local_experts=2
    )
    attention = find_blocks(transformers.AutoModel.from_config(config))[0].attentions[0]
    assert attention.output.endswith("out_proj")
    assert [name.rpartition(".")[2] for name in attention.inputs] == ["qkv_proj"]


def test_an_attention_without_a_linear_output_is_none() -> None:
    config = transformers.JetMoeConfig(**_SIZES, num_local_experts=2, kv_channels=8, num_key_value_heads=2)
    assert not any(block.attentions for block in find_blocks(transformers.AutoModel.from_config(config)))


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_a_decoder_looks_at_its_encoder(kind: str) -> None:
    assert [[item.is_cross for item in block.attentions] for block in find_blocks(build(kind))] == [
        [False],
        [False],
        [False, True],
        [False, True],
    ]


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama", "t5"])
def test_wrapped_layers_stand_for_those_inside(kind: str) -> None:
    torch.manual_seed(0)
    model = build(kind)
    before = find_blocks(model)
    assert find_blocks(resolve("lora").apply(model, {"lora.r": 2})) == before


@pytest.mark.parametrize("kind", sorted(CONFIGS | OTHERS))
def test_depth_grows_from_the_embeddings_to_the_head(kind: str) -> None:
    model = build(kind)
    found = depths(model)
    assert found.keys() == dict(model.named_parameters()).keys()
    top = len(find_blocks(model)) + 1
    assert set(found.values()) == set(range(top + 1))
    assert all(
        depth == top for name, depth in found.items() if name.startswith(("classifier", "score", "classification"))
    )
    assert all(depth == 0 for name, depth in found.items() if "embed" in name)


_DEBERTA: dict[str, Any] = {"norm_rel_ebd": "layer_norm", "conv_kernel_size": 3}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            transformers.OPTConfig(
                vocab_size=30,
                hidden_size=16,
                num_hidden_layers=2,
                num_attention_heads=2,
                ffn_dim=32,
                word_embed_proj_dim=8,
            ),
            {"model.decoder.project_in": 0, "model.decoder.final_layer_norm": 3, "model.decoder.project_out": 3},
        ),
        (
            transformers.DebertaV2Config(**_SIZES, relative_attention=True, **_DEBERTA),
            {
                "deberta.encoder.rel_embeddings": 0,
                "deberta.encoder.LayerNorm": 0,
                "deberta.encoder.conv": 1,
                "deberta.encoder.layer.1": 2,
                "pooler": 3,
            },
        ),
        (OTHERS["mpnet"], {"mpnet.encoder.relative_attention_bias": 0, "mpnet.encoder.layer.1": 2}),
        (CONFIGS["t5"], {"transformer.encoder.final_layer_norm": 2, "transformer.decoder.final_layer_norm": 5}),
    ],
    ids=["opt", "deberta", "mpnet", "t5"],
)
def test_what_is_in_no_block_has_its_place(config: PretrainedConfig, expected: dict[str, int]) -> None:
    config = copy.deepcopy(config)
    config.pad_token_id = 0
    found = depths(AutoModelForSequenceClassification.from_config(config))
    assert {prefix: {found[name] for name in found if name.startswith(f"{prefix}.")} for prefix in expected} == {
        prefix: {depth} for prefix, depth in expected.items()
    }
