from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    GemmaConfig,
    LongformerConfig,
    XLNetConfig,
)

from tests.training.samples import CONFIGS
from tuner.errors import TrialInfeasible
from tuner.strategies import resolve
from tuner.strategies.base import freeze_backbone
from tuner.training.embeddings import logits_of, overlaid

TEXTS = ["bert", "distilbert", "modernbert", "gpt2", "llama", "t5"]
MIXED = [kind for kind in TEXTS if kind != "t5"]


def build(kind: str) -> tuple[nn.Module, dict[str, Tensor]]:
    torch.manual_seed(0)
    if kind in {"vit", "resnet"}:
        size = 8 if kind == "vit" else 32
        return AutoModelForImageClassification.from_config(CONFIGS[kind]).eval(), {
            "pixel_values": torch.randn(2, 3, size, size)
        }
    ids = torch.tensor([[2, 7, 9, 3], [2, 14, 15, 3]])
    model = AutoModelForSequenceClassification.from_config(CONFIGS[kind]).eval()
    return model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@pytest.mark.parametrize("kind", [*TEXTS, "vit", "resnet"])
def test_changed_embeddings_are_what_the_model_reads(kind: str) -> None:
    model, inputs = build(kind)
    seen: list[Tensor] = []

    def note(embedded: Tensor) -> Tensor:
        seen.append(embedded)
        return embedded

    plain = logits_of(model, inputs)
    assert torch.equal(logits_of(model, inputs, change=note), plain)
    assert len(seen) == (2 if kind == "t5" else 1)
    assert all(len(embedded) == 2 and embedded.is_floating_point() for embedded in seen)
    # Every row gets the embeddings of the other one, so every row gets the other one's logits. T5's head also looks for
    # the end of the text in the ids, which stands at the same place.
    torch.testing.assert_close(logits_of(model, inputs, change=lambda embedded: embedded.flip(0)), plain.flip(0))
    assert torch.equal(logits_of(model, inputs), plain)  # nothing is left behind


@pytest.mark.parametrize("kind", [*MIXED, "vit", "resnet"])
def test_a_row_may_be_mixed_with_any_share_of_its_partner(kind: str) -> None:
    model, inputs = build(kind)
    partners = {name: values.flip(0) for name, values in inputs.items()}
    both = {name: torch.cat([inputs[name], partners[name]]) for name in inputs}
    plain = logits_of(model, inputs)
    torch.testing.assert_close(logits_of(model, both, mix=lambda own, _: own), plain)
    torch.testing.assert_close(logits_of(model, both, mix=lambda _, other: other), logits_of(model, partners))
    half = logits_of(model, both, mix=torch.add, change=lambda embedded: embedded / 2)
    assert not torch.allclose(half, plain)
    torch.testing.assert_close(half, half.flip(0))  # both rows lie in the middle
    assert torch.equal(logits_of(model, inputs), plain)  # nothing is left behind


@pytest.mark.parametrize("kind", MIXED)
@pytest.mark.parametrize("is_own_longer", [True, False])
def test_the_logits_depend_on_every_token_of_both_texts(kind: str, is_own_longer: bool) -> None:
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(CONFIGS[kind]).eval()
    short, long = torch.tensor([2, 7, 3, 0, 0, 0]), torch.tensor([2, 14, 15, 9, 8, 3])
    ids = torch.stack([long, short] if is_own_longer else [short, long])
    mask = (ids != 0).long()

    def mixed(tokens: Tensor) -> Tensor:
        return logits_of(model, {"input_ids": tokens, "attention_mask": mask}, mix=lambda own, other: own + other)

    plain = mixed(ids)
    for row, column in mask.nonzero().tolist():
        other = ids.clone()
        other[row, column] = 20
        assert not torch.equal(mixed(other), plain), (row, column)


def test_rows_and_partners_go_the_same_way_to_the_first_layer() -> None:
    # Gemma multiplies what it looks up, and the subspace moves its table while the backbone computes.
    torch.manual_seed(0)
    config = GemmaConfig(
        vocab_size=23, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=8,
        intermediate_size=32, pad_token_id=0, bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    model = freeze_backbone(AutoModelForSequenceClassification.from_config(config)).eval()
    resolve("intrinsic").apply(model, {"intrinsic.dimension": 20})
    with torch.no_grad():
        model.get_parameter("model.subspace.coordinates").normal_(std=0.1)
    both = torch.tensor([[2, 7, 9, 3], [2, 14, 15, 3]])
    inputs = {"input_ids": both, "attention_mask": torch.ones_like(both)}
    partner = {name: values[1:] for name, values in inputs.items()}
    torch.testing.assert_close(logits_of(model, inputs, mix=lambda _, other: other), logits_of(model, partner))


def test_no_token_of_either_row_is_hidden_and_the_ids_are_those_of_the_longer() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 0, 0], [1, 1, 1]])
    found = overlaid({"input_ids": torch.arange(12).view(4, 3), "attention_mask": mask, "token_type_ids": mask * 7})
    assert found["input_ids"].tolist() == [[0, 1, 2], [9, 10, 11]]
    assert found["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]
    assert found["token_type_ids"].tolist() == [[7, 7, 0], [7, 0, 0]]


def test_a_model_that_reads_its_text_twice_cannot_be_mixed() -> None:
    model, inputs = build("t5")
    with pytest.raises(TrialInfeasible, match=r"mixup cannot mix the texts of T5ForSequenceClassification.*decoder"):
        logits_of(model, inputs, mix=torch.add)


@pytest.mark.parametrize("tokens", [2, 4])
def test_a_model_that_does_not_embed_row_by_row_is_refused(tokens: int) -> None:
    torch.manual_seed(0)
    config = XLNetConfig(vocab_size=23, d_model=16, n_layer=1, n_head=2, d_inner=32, pad_token_id=0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    inputs = {"input_ids": torch.arange(4, 4 + 4 * tokens).view(4, tokens)}
    for arguments in ({"mix": torch.add}, {"change": torch.neg}):
        with pytest.raises(TrialInfeasible, match="cannot tell the rows of XLNetForSequenceClassification apart"):
            logits_of(model, inputs, **arguments)


def test_a_model_may_lengthen_its_texts() -> None:
    torch.manual_seed(0)
    config = LongformerConfig(
        vocab_size=23, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, pad_token_id=1,
        max_position_embeddings=64, attention_window=[4],
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config).eval()
    ids = torch.tensor([[2, 7, 3], [2, 9, 3]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    plain = logits_of(model, {name: values[1:] for name, values in inputs.items()})
    torch.testing.assert_close(logits_of(model, inputs, mix=lambda _, other: other), plain)


def test_a_model_that_embeds_in_secret_is_named() -> None:
    class Secret(nn.Module):
        main_input_name = "input_ids"

        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(20, 4)

        def get_input_embeddings(self) -> nn.Module:
            return self.table

        def forward(self, input_ids: Tensor) -> Any:
            return type("Output", (), {"logits": self.table.weight[input_ids].sum(1)})

    model = Secret()
    inputs = {"input_ids": torch.tensor([[1, 2]])}
    assert logits_of(model, inputs).shape == (1, 4)
    with pytest.raises(TrialInfeasible, match="do not reach the embeddings of Secret"):
        logits_of(model, inputs, change=lambda embedded: embedded)
