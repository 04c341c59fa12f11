from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model

from tests.contract.architectures import build, inputs, logits
from tests.strategies.reference import adapted, by_peft, shaken
from tuner.errors import TrialInfeasible
from tuner.strategies import resolve
from tuner.strategies.state import count_parameters, trained_names
from tuner.study.domains import Value

VARIANTS: dict[str, dict[str, Value]] = {
    "plain": {},
    "rslora": {"lora.rank_stabilized": True},
    "dora": {"lora.dora": True},
}
ALL = {"bert": ["query", "key", "value", "dense"], "gpt2": ["c_attn", "c_proj", "c_fc"]}
ATTENTION = {"bert": ["query", "key", "value", "attention.output.dense"], "gpt2": ["c_attn", "attn.c_proj"]}


def config(targets: list[str], kind: str, variant: str = "plain") -> LoraConfig:
    return LoraConfig(
        r=4, lora_alpha=8, target_modules=targets, fan_in_fan_out=kind == "gpt2",
        use_rslora=variant == "rslora", use_dora=variant == "dora",
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_it_computes_what_peft_computes(variant: str, kind: str) -> None:
    model = shaken(adapted("lora", kind, {"lora.r": 4, **VARIANTS[variant]}))
    theirs = by_peft(model, kind, config(ALL[kind], kind, variant))
    assert torch.equal(logits(model, inputs(kind)), logits(theirs, inputs(kind)))
    assert not torch.allclose(logits(model, inputs(kind)), logits(build(kind), inputs(kind)), atol=1e-3)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_without_options_nothing_is_drawn_that_plain_lora_does_not_draw(kind: str) -> None:
    expected = build(kind)
    torch.manual_seed(1)
    inject_adapter_in_model(config(ALL[kind], kind), expected)
    found = adapted("lora", kind, {"lora.r": 4})
    assert expected.state_dict().keys() == found.state_dict().keys()
    assert all(torch.equal(tensor, found.state_dict()[name]) for name, tensor in expected.state_dict().items())


@pytest.mark.parametrize("kind", ["bert", "gpt2", "resnet"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_merge(variant: str, kind: str) -> None:
    model = shaken(adapted("lora", kind, {"lora.r": 2, **VARIANTS[variant]}))
    expected = logits(model, inputs(kind))
    merged = resolve("lora").merge(model)
    torch.testing.assert_close(logits(merged, inputs(kind)), expected, rtol=1e-4, atol=1e-5)
    assert merged.state_dict().keys() == build(kind).state_dict().keys()


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_the_attention_alone_can_be_adapted(kind: str) -> None:
    model = shaken(adapted("lora", kind, {"lora.r": 4, "lora.targets": "attention"}))
    theirs = by_peft(model, kind, config(ATTENTION[kind], kind))
    assert torch.equal(logits(model, inputs(kind)), logits(theirs, inputs(kind)))


@pytest.mark.parametrize(
    ("kind", "layers"),
    [("bert", {"query", "value"}), ("llama", {"q_proj", "v_proj"}), ("t5", {"q", "v"}), ("modernbert", {"Wqkv"})],
)
def test_queries_and_values_are_found_by_their_names(kind: str, layers: set[str]) -> None:
    model = adapted("lora", kind, {"lora.r": 4, "lora.targets": "query_value"})
    assert {name.split(".")[-4] for name in trained_names(model) if ".lora_A." in name} == layers


def test_dora_trains_a_norm_for_each_output() -> None:
    plain, dora = adapted("lora", "bert"), adapted("lora", "bert", {"lora.dora": True})
    outputs = 2 * (4 * 16 + 32 + 16) + 16  # two layers and the pooler
    assert count_parameters(dora)[0] - count_parameters(plain)[0] == outputs


def test_lora_plus_gives_every_b_a_learning_rate_of_its_own() -> None:
    model = adapted("adalora+lora", "bert", {"adalora.r": 2})
    factors = resolve("lora").learning_rates(model, {"lora.plus_ratio": 16.0})
    assert set(factors.values()) == {16.0}
    assert factors.keys() <= trained_names(model)
    assert factors.keys() == {name for name in trained_names(model) if name.endswith(".lora_B.default.weight")}
    assert len(factors) == 2 * 6 + 1
    assert resolve("lora").learning_rates(model, {}) == {}


@pytest.mark.parametrize("kind", ["resnet"])
def test_attention_is_asked_of_models_that_have_one(kind: str) -> None:
    with pytest.raises(TrialInfeasible, match=r"no attention.*set space\.lora\.targets to linear"):
        adapted("lora", kind, {"lora.targets": "attention"})


def test_dora_takes_no_norm_of_what_another_strategy_changes() -> None:
    with pytest.raises(TrialInfeasible, match=r"key, which another strategy has wrapped.*write lora before"):
        adapted("ia3+lora", "bert", {"lora.dora": True})
    model = shaken(adapted("lora+ia3", "bert", {"lora.dora": True}))
    expected = logits(model, inputs("bert"))
    torch.testing.assert_close(logits(resolve("lora+ia3").merge(model), inputs("bert")), expected, rtol=1e-4, atol=1e-5)
