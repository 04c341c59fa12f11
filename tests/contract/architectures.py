"""The tiny models on which every strategy is tried: one of each family, pretrained by nobody, with rows to read."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification, PretrainedConfig

from tests.training.samples import CONFIGS
from tuner.strategies.base import freeze_backbone
from tuner.training.model import with_dropout

TITLES = {
    "bert": "BERT",
    "distilbert": "DistilBERT",
    "modernbert": "ModernBERT",
    "gpt2": "GPT-2",
    "llama": "Llama",
    "t5": "T5",
    "vit": "ViT",
    "resnet": "ResNet",
}
KINDS = tuple(TITLES)
VISION = ("vit", "resnet")
TEXT = tuple(kind for kind in KINDS if kind not in VISION)
LABELS = torch.tensor([0, 1, 2, 1])


def build(kind: str) -> nn.Module:
    """A model with 3 labels, without dropout, in training mode, whose head alone is trainable; always the same one."""
    return copy.deepcopy(_pristine(kind))


def build_on_meta(kind: str) -> nn.Module:
    """The same model without any weights."""
    return copy.deepcopy(_shape(kind))


def inputs(kind: str) -> dict[str, Tensor]:
    """Four rows."""
    generator = torch.Generator().manual_seed(1)
    if kind in VISION:
        pixels = 8 if kind == "vit" else 32
        return {"pixel_values": torch.rand(4, 3, pixels, pixels, generator=generator)}
    ids = torch.randint(4, 23, (4, 6), generator=generator)
    ids[:, -1] = 3  # the end token, by which T5 finds its sentence
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def padded(rows: Mapping[str, Tensor], *, tokens: int = 3) -> dict[str, Tensor]:
    """The same rows with padding at the end, as they look beside longer ones; pictures are not padded."""
    return {name: value if value.ndim > 2 else nn.functional.pad(value, (0, tokens)) for name, value in rows.items()}


def logits(model: nn.Module, rows: Mapping[str, Tensor]) -> Tensor:
    """What the model says of these rows when nothing is drawn."""
    was_training = model.training
    with torch.inference_mode():
        found: Tensor = model.eval()(**rows).logits
    model.train(was_training)
    return found


@cache
def _pristine(kind: str) -> nn.Module:
    torch.manual_seed(0)
    return freeze_backbone(_model(kind).train())


@cache
def _shape(kind: str) -> nn.Module:
    with torch.device("meta"):
        return freeze_backbone(_model(kind).train())


def _model(kind: str) -> nn.Module:
    config: PretrainedConfig = with_dropout(CONFIGS[kind], 0.0)
    config.num_labels = 3
    auto = AutoModelForImageClassification if kind in VISION else AutoModelForSequenceClassification
    model: nn.Module = auto.from_config(config)
    return model
