from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, BertConfig

from tests.contract.architectures import LABELS, build, inputs
from tests.training.samples import tensors_of
from tuner.strategies.base import freeze_backbone
from tuner.strategies.state import count_parameters, trained_names
from tuner.strategies.top_layers import TopLayers, top_count

# BERT, 16 wide, 32 inside: four matrices of the attention, two of the feed-forward, all with biases; and two norms.
BLOCK = 4 * (16 * 16 + 16) + (16 * 32 + 32) + (32 * 16 + 16) + 2 * 2 * 16
ABOVE = (16 * 16 + 16) + (16 * 3 + 3)


def trained(kind: str, *, share: float) -> frozenset[str]:
    return trained_names(TopLayers().apply(build(kind), {"top_layers.share": share}))


@pytest.mark.parametrize(("share", "blocks"), [(0.01, 1), (0.5, 1), (0.74, 1), (0.75, 2), (1.0, 2)])
def test_the_blocks_and_what_is_above_them_are_counted(share: float, blocks: int) -> None:
    model = TopLayers().apply(build("bert"), {"top_layers.share": share})
    assert count_parameters(model)[0] == blocks * BLOCK + ABOVE


@pytest.mark.parametrize(
    ("share", "blocks", "count"),
    [(0.25, 12, 3), (0.5, 12, 6), (0.75, 12, 9), (0.25, 2, 1), (0.25, 6, 2), (0.01, 24, 1), (1.0, 5, 5), (0.3, 10, 3)],
)
def test_a_share_is_the_nearest_number_of_blocks(share: float, blocks: int, count: int) -> None:
    assert top_count(share, blocks=blocks) == count


@pytest.mark.parametrize(("blocks", "count"), [(1, 1), (2, 1), (12, 6)])
def test_the_recipe_trains_half_of_any_model(blocks: int, count: int) -> None:
    config = BertConfig(
        hidden_size=16, num_hidden_layers=blocks, num_attention_heads=2, intermediate_size=32, vocab_size=30
    )
    config.num_labels = 3
    model = freeze_backbone(AutoModelForSequenceClassification.from_config(config))
    assert count_parameters(TopLayers().apply(model, {}))[0] == count * BLOCK + ABOVE


def test_a_decoder_lies_above_its_encoder() -> None:
    names = trained("t5", share=0.5)
    tops = ("transformer.decoder.block.", "transformer.decoder.final_layer_norm", "classification_head.")
    assert {top for top in tops for name in names if name.startswith(top)} == set(tops)
    assert all(name.startswith(tops) for name in names)


def test_the_stages_of_a_convolutional_network_are_one_tower() -> None:
    prefixes = ("resnet.encoder.stages.1.layers.", "classifier.")
    every = {name for name, _ in build("resnet").named_parameters() if name.startswith(prefixes)}
    assert trained("resnet", share=0.67) == every


def test_exactly_the_chosen_weights_move() -> None:
    model = TopLayers().apply(build("llama"), {"top_layers.share": 0.5})
    before = tensors_of(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    nn.functional.cross_entropy(model(**inputs("llama")).logits, LABELS).backward()
    optimizer.step()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in before if name.startswith(("model.layers.1.", "model.norm.", "score."))}
