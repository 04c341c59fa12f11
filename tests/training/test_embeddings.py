from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

from tests.training.samples import CONFIGS
from tuner.errors import TrialInfeasible
from tuner.training.embeddings import embed, logits_of

TEXTS = ["bert", "distilbert", "modernbert", "gpt2", "llama", "t5"]


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


@pytest.mark.parametrize("kind", [*(kind for kind in TEXTS if kind != "t5"), "vit", "resnet"])
def test_embeddings_can_be_had_beforehand(kind: str) -> None:
    model, inputs = build(kind)
    expected = embed(model, inputs)

    def compare(embedded: Tensor) -> Tensor:
        torch.testing.assert_close(embedded, expected)
        return embedded + 1.0

    assert not torch.equal(logits_of(model, inputs, change=compare), logits_of(model, inputs))


def test_a_model_that_reads_its_text_twice_has_no_single_embedding() -> None:
    model, inputs = build("t5")
    with pytest.raises(TrialInfeasible, match=r"mixup cannot mix the texts of T5ForSequenceClassification.*decoder"):
        embed(model, inputs)


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
