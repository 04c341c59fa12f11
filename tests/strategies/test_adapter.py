from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import BartConfig, BartForSequenceClassification

from tests.contract.architectures import build, build_on_meta, inputs, logits, padded
from tuner.errors import TrialInfeasible, UsageError
from tuner.strategies import resolve
from tuner.strategies.adapter import Adapter
from tuner.strategies.base import freeze_backbone
from tuner.strategies.state import count_parameters, trained_names
from tuner.study.domains import Value

TRANSFORMERS = ("bert", "distilbert", "modernbert", "gpt2", "llama", "t5", "vit")
PLACEMENTS, FORMS = ("houlsby", "pfeiffer"), ("sequential", "parallel")
WAYS = list(product(PLACEMENTS, FORMS))


def adapt(model: nn.Module, params: Mapping[str, Value], *, fresh: bool = False) -> nn.Module:
    """With weights that matter, unless they are to be fresh."""
    Adapter().apply(model, {"adapter.reduction": 4} | dict(params))
    torch.manual_seed(2)
    for name, parameter in model.named_parameters():
        if "_adapter." in name and not fresh:
            nn.init.normal_(parameter, std=0.5)
    return model


def added(model: Any, place: str, *, wrote: Tensor, read: Tensor, form: str) -> Tensor:
    """What the bottleneck at a place adds, by the formula; zero where there is none."""
    weights = dict(model.named_parameters())
    if f"{place}_adapter.down.weight" not in weights:
        return torch.zeros(1)
    down, up = (
        (weights[f"{place}_adapter.{way}.weight"], weights[f"{place}_adapter.{way}.bias"]) for way in ("down", "up")
    )
    return 2.0 * linear(linear(wrote if form == "sequential" else read, *down).relu(), *up)


def bert_reference(plain: Any, adapted: nn.Module, ids: Tensor, form: str) -> Tensor:
    hidden = plain.bert.embeddings(ids)
    for number, layer in enumerate(plain.bert.encoder.layer):
        place = f"bert.encoder.layer.{number}"
        output = layer.attention.output
        wrote = output.dense(layer.attention.self(hidden)[0])
        wrote = wrote + added(adapted, f"{place}.attention.output.dense", wrote=wrote, read=hidden, form=form)
        between = output.LayerNorm(wrote + hidden)
        wrote = layer.output.dense(layer.intermediate(between))
        wrote = wrote + added(adapted, f"{place}.output.dense", wrote=wrote, read=between, form=form)
        hidden = layer.output.LayerNorm(wrote + between)
    logits: Tensor = plain.classifier(plain.bert.pooler(hidden))
    return logits


def llama_reference(plain: Any, adapted: nn.Module, ids: Tensor, form: str) -> Tensor:
    hidden = plain.model.embed_tokens(ids)
    positions = plain.model.rotary_emb(hidden, position_ids=torch.arange(ids.shape[1])[None])
    for number, layer in enumerate(plain.model.layers):
        place = f"model.layers.{number}"
        read = layer.input_layernorm(hidden)
        wrote = layer.self_attn(read, position_embeddings=positions, attention_mask=None)[0]
        hidden = hidden + wrote + added(adapted, f"{place}.self_attn.o_proj", wrote=wrote, read=read, form=form)
        read = layer.post_attention_layernorm(hidden)
        wrote = layer.mlp(read)
        hidden = hidden + wrote + added(adapted, f"{place}.mlp.down_proj", wrote=wrote, read=read, form=form)
    logits: Tensor = plain.score(plain.model.norm(hidden))[:, -1]
    return logits


@pytest.mark.parametrize(("placement", "form"), WAYS)
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_logits_agree_with_a_reference_written_by_hand(kind: str, placement: str, form: str) -> None:
    plain, rows = build(kind).eval(), inputs(kind)
    model = adapt(build(kind), {"adapter.placement": placement, "adapter.form": form, "adapter.scale": 2.0})
    reference = {"bert": bert_reference, "llama": llama_reference}[kind]
    with torch.inference_mode():
        expected = reference(plain, model, rows["input_ids"], form)
    torch.testing.assert_close(logits(model, rows), expected, rtol=1e-4, atol=1e-6)
    assert (expected - logits(plain, rows)).abs().max() > 1e-3


@pytest.mark.parametrize(("placement", "form"), WAYS)
@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_a_fresh_adapter_changes_nothing(kind: str, placement: str, form: str) -> None:
    model = adapt(build(kind), {"adapter.placement": placement, "adapter.form": form}, fresh=True)
    assert torch.equal(logits(model, inputs(kind)), logits(build(kind), inputs(kind)))


@pytest.mark.parametrize(("placement", "form"), WAYS)
@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_padding_changes_nothing(kind: str, placement: str, form: str) -> None:
    model = adapt(build(kind), {"adapter.placement": placement, "adapter.form": form})
    expected = logits(model, inputs(kind))
    torch.testing.assert_close(logits(model, padded(inputs(kind))), expected, rtol=1e-5, atol=1e-5)
    assert (logits(build(kind), inputs(kind)) - expected).abs().max() > 1e-3


@pytest.mark.parametrize(("reduction", "width"), [(1, 16), (4, 4), (5, 3), (64, 1)])
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_each_place_has_2dm_weights_and_m_and_d_biases(kind: str, placement: str, reduction: int, width: int) -> None:
    model = build(kind)
    head = count_parameters(model)[0]
    adapt(model, {"adapter.placement": placement, "adapter.reduction": reduction})
    blocks, attentions = (4, 6) if kind == "t5" else (2, 2)  # T5: a decoder's blocks have two attentions
    places = blocks + (attentions if placement == "houlsby" else 0)
    assert count_parameters(model)[0] == head + places * (2 * 16 * width + width + 16)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_gradients_reach_everything_that_is_trained_and_nothing_else(kind: str, form: str) -> None:
    model = adapt(build(kind), {"adapter.form": form})
    model(**inputs(kind)).logits.square().sum().backward()
    with_gradient = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == trained_names(model)


def test_pretrained_parameters_keep_their_names() -> None:
    model = adapt(build("bert"), {})
    assert build("bert").state_dict().keys() == {name for name in model.state_dict() if "_adapter." not in name}
    assert "bert.encoder.layer.0.attention.output.dense_adapter.down.weight" in dict(model.named_parameters())


@pytest.mark.parametrize("name", ["adapter+lora", "lora+adapter"])
@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_neither_adapts_the_layers_of_the_other(name: str, kind: str) -> None:
    params: dict[str, Value] = {"lora.r": 2, "adapter.reduction": 4}
    head = count_parameters(build(kind))[0]
    sizes = [count_parameters(resolve(part).apply(build(kind), params))[0] for part in (name, "adapter", "lora")]
    assert sizes[0] - head == (sizes[1] - head) + (sizes[2] - head)


def test_in_an_attention_to_the_encoder_the_queries_are_read() -> None:
    """The keys of BART's decoder are listed first, and made from a text of another length."""
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=23,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=64,
    )
    model = freeze_backbone(BartForSequenceClassification(config).eval())
    adapt(model, {"adapter.form": "parallel"})
    decoded = model.get_submodule("model")(
        input_ids=torch.full((2, 6), 5), decoder_input_ids=torch.full((2, 3), 6)
    ).last_hidden_state
    assert decoded.shape == (2, 3, 16)


@pytest.mark.parametrize("form", FORMS)
def test_copies_go_their_own_way(form: str) -> None:
    model = adapt(build("bert"), {"adapter.form": form})
    expected = logits(model, inputs("bert"))
    twins = (copy.deepcopy(model), pickle.loads(pickle.dumps(model)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "_adapter." in name:
                parameter.zero_()
    assert all(torch.equal(logits(twin, inputs("bert")), expected) for twin in twins)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_it_is_counted_without_weights(kind: str, form: str) -> None:
    params: dict[str, Value] = {"adapter.form": form}
    assert count_parameters(adapt(build_on_meta(kind), params)) == count_parameters(adapt(build(kind), params))


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_half_precision(kind: str) -> None:
    model = adapt(build(kind), {})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(**inputs(kind)).logits
    torch.testing.assert_close(found.float(), logits(model, inputs(kind)), rtol=0.1, atol=0.1)


@pytest.mark.parametrize(
    ("placement", "why"), [("houlsby", "no attention and no feed-forward"), ("pfeiffer", "no feed")]
)
def test_a_convolutional_network_is_refused(placement: str, why: str) -> None:
    with pytest.raises(TrialInfeasible, match=f"its blocks have {why}.*take adapter out of strategies"):
        Adapter().apply(build("resnet"), {"adapter.placement": placement})


def test_it_cannot_be_merged() -> None:
    model = adapt(build("bert"), {})
    before = logits(model, inputs("bert"))
    with pytest.raises(UsageError, match="adapter cannot be merged"):
        Adapter().merge(model)
    assert torch.equal(logits(model, inputs("bert")), before)
