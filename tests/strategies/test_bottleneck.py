"""A bottleneck beside attentions that use their layers in unusual ways."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig

from tuner.errors import TrialInfeasible
from tuner.strategies.adapter import Adapter
from tuner.strategies.bottleneck import Bottleneck

_SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "vocab_size": 30,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_RELATIVE: dict[str, Any] = {"position_buckets": 4, "share_att_key": True, "norm_rel_ebd": "layer_norm"}
CONFIGS: dict[str, PretrainedConfig] = {
    "deberta": transformers.DebertaV2Config(
        **_SIZES,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_biased_input=False,
        **_RELATIVE,
    ),
    "longformer": transformers.LongformerConfig(**_SIZES, attention_window=[4, 4]),
    "phi3": transformers.Phi3Config(**_SIZES, num_key_value_heads=1),
}
IDS = torch.arange(64).view(8, 8) % 27 + 3
"""As many tokens as rows, and as many as DeBERTa has relative positions: a mistaken shape would not be noticed."""


def adapted(kind: str) -> tuple[Any, Any]:
    """The plain backbone, and the same one with bottlenecks whose weights matter."""
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(AutoModel.from_config(CONFIGS[kind]).eval())
    Adapter().apply(models[1], {"adapter.reduction": 4})
    for name, parameter in models[1].named_parameters():
        if "_adapter." in name:
            nn.init.normal_(parameter, std=0.5)
    return models[0], models[1]


def bert_like(plain: Any, model: Any, *, hidden: Tensor, asks: Any) -> Tensor:
    for layer, other in zip(plain.encoder.layer, model.encoder.layer, strict=True):
        output = layer.attention.output
        wrote = output.dense(asks(layer.attention.self, hidden)) + other.attention.output.dense_adapter(hidden)
        between = output.LayerNorm(wrote + hidden)
        wrote = layer.output.dense(layer.intermediate(between)) + other.output.dense_adapter(between)
        hidden = layer.output.LayerNorm(wrote + between)
    return hidden


def deberta(plain: Any, model: Any) -> Tensor:
    mask = torch.ones_like(IDS)
    hidden = plain.embeddings(input_ids=IDS, mask=mask)
    full, relative = plain.encoder.get_attention_mask(mask), plain.encoder.get_rel_embedding()
    places = plain.encoder.get_rel_pos(hidden)

    def asks(attention: Any, read: Tensor) -> Tensor:
        wrote: Tensor = attention(read, full, relative_pos=places, rel_embeddings=relative)[0]
        return wrote

    return bert_like(plain, model, hidden=hidden, asks=asks)


def longformer(plain: Any, model: Any) -> Tensor:
    none = torch.zeros(IDS.shape, dtype=torch.bool)

    def asks(attention: Any, read: Tensor) -> Tensor:
        wrote: Tensor = attention(
            read, attention_mask=none.float(), is_index_masked=none, is_index_global_attn=none, is_global_attn=False
        )[0]
        return wrote

    return bert_like(plain, model, hidden=plain.embeddings(IDS), asks=asks)


def phi3(plain: Any, model: Any) -> Tensor:
    hidden = plain.embed_tokens(IDS)
    positions = plain.rotary_emb(hidden, position_ids=torch.arange(IDS.shape[1])[None])
    for layer, other in zip(plain.layers, model.layers, strict=True):
        read = layer.input_layernorm(hidden)
        wrote = layer.self_attn(hidden_states=read, position_embeddings=positions, attention_mask=None)[0]
        hidden = hidden + wrote + other.self_attn.o_proj_adapter(read)
        read = layer.post_attention_layernorm(hidden)
        hidden = hidden + layer.mlp(read) + other.mlp.down_proj_adapter(read)
    last: Tensor = plain.norm(hidden)
    return last


@pytest.mark.parametrize("reference", [deberta, longformer, phi3], ids=lambda function: function.__name__)
def test_in_parallel_it_reads_what_the_attention_reads(reference: Any) -> None:
    plain, model = adapted(reference.__name__)
    with torch.inference_mode():
        expected = reference(plain, model)
        found = model(input_ids=IDS).last_hidden_state
        before = plain(input_ids=IDS).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert (before - expected).abs().max() > 1e-2


class Turned(nn.Module):
    """Writes rows and tokens the other way round."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(4, 4)

    def forward(self, hidden: Tensor, *, times: int = 1) -> Any:
        results = [self.output(hidden.transpose(0, 1)) for _ in range(times)]
        return results[-1]


def test_what_does_not_fit_is_infeasible_and_says_why() -> None:
    model = Turned()
    bottleneck = Bottleneck(inputs=4, width=2, outputs=4, activation="relu", like=model.output.weight)
    bottleneck.bypass(model, model.output, place="output")
    fix = "set space.adapter.form to sequential, or take adapter out of strategies"
    with pytest.raises(TrialInfeasible, match=rf"output, which reads \(2, 3, 4\) and writes \(3, 2, 4\) - .*{fix}"):
        model(torch.zeros(2, 3, 4))
    with pytest.raises(TrialInfeasible, match="writes more than once"):
        model(torch.zeros(2, 2, 4), times=2)
