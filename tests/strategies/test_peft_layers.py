from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from peft import LoHaConfig, LoKrConfig, OFTConfig, PeftConfig, VeraConfig
from transformers import ConvNextConfig, ConvNextForImageClassification

from tests.contract.architectures import build, inputs, logits
from tests.strategies.reference import adapted, by_peft, shaken
from tuner.errors import TrialInfeasible
from tuner.strategies import resolve
from tuner.strategies.base import freeze_backbone
from tuner.strategies.state import count_parameters, trainable_state
from tuner.study.domains import Value

LINEAR = ["query", "key", "value", "dense"]
# In (inputs, outputs): queries, keys, values and the attention's output; the feed-forward; the pooler once.
SIZES = 2 * [*4 * [(16, 16)], (16, 32), (32, 16)] + [(16, 16)]

CASES: Mapping[str, tuple[dict[str, Value], dict[str, object], int]] = {
    "vera": ({"vera.r": 8}, {"r": 8}, sum(8 + outputs for _, outputs in SIZES)),
    # A rotation of b inputs has b (b - 1) / 2 angles, and there are inputs / b of them.
    "oft": ({"oft.block_size": 8}, {"oft_block_size": 8}, sum(ins * 7 // 2 for ins, _ in SIZES)),
    "loha": ({"loha.r": 4}, {"r": 4, "alpha": 4}, sum(2 * 4 * (ins + outs) for ins, outs in SIZES)),
    # 16 = 4 · 4 and 32 = 4 · 8: a matrix of 4 by 4, and beside it one of (4 or 8) by (4 or 8) of rank 1.
    "lokr": ({"lokr.r": 1}, {"r": 1, "alpha": 1}, sum(16 + ins // 4 + outs // 4 for ins, outs in SIZES)),
}
CONFIGS: Mapping[str, Callable[..., PeftConfig]] = {
    "vera": VeraConfig,
    "oft": OFTConfig,
    "loha": LoHaConfig,
    "lokr": LoKrConfig,
}


@pytest.mark.parametrize("name", CASES)
def test_it_computes_what_peft_computes(name: str) -> None:
    ours, theirs, _ = CASES[name]
    model = shaken(adapted(name, "bert", ours))
    reference = by_peft(model, "bert", CONFIGS[name](target_modules=LINEAR, **theirs))
    assert torch.equal(logits(model, inputs("bert")), logits(reference, inputs("bert")))
    assert not torch.allclose(logits(model, inputs("bert")), logits(build("bert"), inputs("bert")), atol=1e-3)


@pytest.mark.parametrize("name", CASES)
def test_it_trains_as_many_parameters_as_the_paper_says(name: str) -> None:
    ours, _, expected = CASES[name]
    assert count_parameters(adapted(name, "bert", ours))[0] - count_parameters(build("bert"))[0] == expected


def test_random_matrices_are_computed_again_rather_than_saved() -> None:
    one, other = (adapted("vera", "bert", {"vera.r": 8}, seed=seed) for seed in (1, 2))
    assert not any("vera_A" in name or "vera_B" in name for name in trainable_state(one))
    buffers = [{name: tensor for name, tensor in model.named_buffers() if "vera_" in name} for model in (one, other)]
    assert sum(tensor.numel() for tensor in buffers[0].values()) == 8 * 32 + 32 * 8  # one pair for all layers
    assert all(torch.equal(tensor, buffers[1][name]) for name, tensor in buffers[0].items())


def test_vera_finds_the_sizes_of_wrapped_layers() -> None:
    inner, outer = (shaken(adapted(name, "bert", {"vera.r": 8})) for name in ("vera+lora", "lora+vera"))
    assert torch.isfinite(logits(inner, inputs("bert"))).all()
    sizes = [{tensor.shape for name, tensor in model.named_buffers() if "vera_" in name} for model in (inner, outer)]
    assert sizes[0] == sizes[1] == {torch.Size([8, 32]), torch.Size([32, 8])}


@pytest.mark.parametrize(("block", "kind"), [(5, "bert"), (32, "bert"), (32, "t5")])
def test_a_block_must_divide_the_inputs_of_every_layer(block: int, kind: str) -> None:
    with pytest.raises(TrialInfeasible, match=r"divisible block size: 2, 4, 8, 16$") as caught:
        adapted("oft", kind, {"oft.block_size": block})
    assert f"oft.block_size {block} does not divide the 16 inputs of" in caught.value.message


@pytest.mark.parametrize(("name", "kind", "layer"), [("loha", "gpt2", "Conv1D"), ("vera", "resnet", "Conv2d")])
def test_a_layer_of_another_kind_is_named(name: str, kind: str, layer: str) -> None:
    with pytest.raises(TrialInfeasible, match=rf"has no layer for {layer}; take {name} out of strategies"):
        adapted(name, kind)


def test_rotations_before_linear_layers_that_read_pictures() -> None:
    """ConvNeXt's have inputs of four dimensions."""
    config = ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, patch_size=2)
    torch.manual_seed(0)
    model = freeze_backbone(ConvNextForImageClassification(config).eval())
    pixels = torch.randn(2, 3, 16, 16)
    expected = model(pixels).logits
    shaken(resolve("oft").apply(model, {"oft.block_size": 4}))
    found = model(pixels).logits
    assert (found - expected).abs().max() > 1e-3
    torch.testing.assert_close(resolve("oft").merge(model)(pixels).logits, found, rtol=1e-4, atol=1e-5)
