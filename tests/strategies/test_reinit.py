from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel, DebertaV2Config, OPTConfig, PretrainedConfig

from tests.contract.architectures import KINDS, build, build_on_meta
from tests.training.samples import tensors_of
from tuner.errors import TrialInfeasible
from tuner.strategies.base import freeze_backbone
from tuner.strategies.reinit import Reinit
from tuner.strategies.state import count_parameters

PARAMS = {"reinit.share": 0.5}


def pretrained(kind: str, **config: object) -> nn.Module:
    """A model as transformers loads it, whose every value is far from what is drawn."""
    model = build(kind)
    weights = {
        name: tensor + 3 if tensor.is_floating_point() else tensor + 7 for name, tensor in model.state_dict().items()
    }
    changed: PretrainedConfig = copy.deepcopy(model.config)  # type: ignore[assignment]
    for name, value in config.items():
        setattr(changed, name, value)
    loaded: nn.Module = type(model).from_pretrained(None, config=changed, state_dict=weights)  # type: ignore[attr-defined]
    return freeze_backbone(loaded.train())


def drawn(model: nn.Module, *, share: float = 0.5, seed: int = 0) -> tuple[dict[str, Tensor], set[str]]:
    """The tensors after the model was adapted, and the names of those that changed."""
    before = tensors_of(model)
    torch.manual_seed(seed)
    Reinit().apply(model, {"reinit.share": share})
    after = tensors_of(model)
    return after, {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize(
    ("kind", "prefixes"),
    [
        ("bert", ("bert.encoder.layer.1.", "bert.pooler.")),
        ("distilbert", ("distilbert.transformer.layer.1.",)),
        ("modernbert", ("model.layers.1.", "model.final_norm.")),
        ("gpt2", ("transformer.h.1.", "transformer.ln_f.")),
        ("llama", ("model.layers.1.", "model.norm.")),
        ("t5", ("transformer.decoder.block.", "transformer.decoder.final_layer_norm.")),
        ("vit", ("vit.layers.1.", "vit.layernorm.")),
    ],
)
def test_exactly_the_upper_half_of_the_backbone_is_drawn_anew(kind: str, prefixes: tuple[str, ...]) -> None:
    after, changed = drawn(pretrained(kind))
    assert {prefix for prefix in prefixes for name in changed if name.startswith(prefix)} == set(prefixes)
    assert changed == {name for name in after if name.startswith(prefixes)}


def test_what_every_block_reads_is_kept() -> None:
    """DeBERTa's encoder itself has the norm of the relative positions, and OPT lists its last norm first."""
    relative: dict[str, Any] = {"norm_rel_ebd": "layer_norm", "conv_kernel_size": 3}
    sizes: dict[str, Any] = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    deberta = DebertaV2Config(**sizes, intermediate_size=32, relative_attention=True, **relative)
    opt = OPTConfig(**sizes, ffn_dim=32, word_embed_proj_dim=16)
    for config, again in ((deberta, ("encoder.layer.1.",)), (opt, ("decoder.layers.1.", "decoder.final_layer_norm."))):
        model = AutoModel.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(3.0)
        after, changed = drawn(model)
        assert changed == {name for name in after if name.startswith(again)}


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_trained(kind: str) -> None:
    model = Reinit().apply(build(kind), PARAMS)
    assert count_parameters(model)[0] == count_parameters(model)[1]


def test_weights_are_drawn_as_the_configuration_says() -> None:
    after, _ = drawn(pretrained("bert", initializer_range=0.3))
    matrix = after["bert.encoder.layer.1.intermediate.dense.weight"]  # 512 values: the deviation is known to 3 percent
    assert float(matrix.std()) == pytest.approx(0.3, rel=0.15)
    assert not after["bert.encoder.layer.1.intermediate.dense.bias"].any()
    assert torch.equal(after["bert.encoder.layer.1.output.LayerNorm.weight"], torch.ones(16))
    assert not after["bert.encoder.layer.1.output.LayerNorm.bias"].any()
    assert float(after["bert.pooler.dense.weight"].std()) == pytest.approx(0.3, rel=0.25)


def test_an_architecture_s_own_rules_hold() -> None:
    after, _ = drawn(pretrained("gpt2", initializer_range=0.3))
    inside, outside = after["transformer.h.1.mlp.c_fc.weight"], after["transformer.h.1.mlp.c_proj.weight"]
    assert float(inside.std()) == pytest.approx(0.3, rel=0.15)
    assert float(outside.std()) == pytest.approx(0.3 / math.sqrt(2 * 2), rel=0.15)  # two residual paths in two blocks
    after, _ = drawn(pretrained("t5"))
    queries = after["transformer.decoder.block.1.layer.0.SelfAttention.q.weight"]
    assert float(queries.std()) == pytest.approx((16 * 8) ** -0.5, rel=0.25)


def test_running_statistics_start_anew_with_their_block() -> None:
    after, changed = drawn(pretrained("resnet"), share=0.3)
    norms = [name for name in changed if name.endswith("running_var")]
    assert len(norms) == 2  # the last block has two convolutions
    assert all(torch.equal(after[name], torch.ones_like(after[name])) for name in norms)
    assert all(name.startswith("resnet.encoder.stages.1.layers.1.") for name in changed)


def test_the_whole_tower_may_be_drawn_anew() -> None:
    after, changed = drawn(pretrained("bert"), share=1.0)
    assert {name for name in after if name not in changed} == {
        name for name in after if name.startswith(("bert.embeddings.", "classifier."))
    }


def test_the_seed_decides() -> None:
    model = pretrained("bert")
    first, _ = drawn(copy.deepcopy(model), seed=1)
    again, _ = drawn(copy.deepcopy(model), seed=1)
    other, _ = drawn(copy.deepcopy(model), seed=2)
    name = "bert.encoder.layer.1.output.dense.weight"
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first[name], other[name])


def test_a_model_without_weights_is_counted() -> None:
    model = Reinit().apply(build_on_meta("bert"), PARAMS)
    assert count_parameters(model) == count_parameters(Reinit().apply(build("bert"), PARAMS))


def test_a_model_without_a_rule_is_infeasible() -> None:
    with pytest.raises(TrialInfeasible, match=r"only the models of transformers .* take reinit out of strategies"):
        Reinit().apply(nn.Sequential(nn.Linear(2, 2)), {})
