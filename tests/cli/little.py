"""A tiny model and a few rows: enough to check, create and train a study in a moment."""

from __future__ import annotations

import json
from pathlib import Path

STUDY = """\
name: little
task: text-classification
model: model
data: {train: rows.csv, validation: 0.25}
objective: {metric: accuracy}
strategies: [head, lora]
training: {epochs: 1, max_length: 16}
budget: {trials: 2}
confirm: {finalists: 0}
"""

WORDS = ("good", "bad", "fine", "poor", "nice", "awful", "great", "weak")


def write_rows(file: Path, *, rows: int = 40) -> None:
    """Rows of two classes that one word tells apart."""
    lines = ["text,label"]
    for number in range(rows):
        word = WORDS[number % len(WORDS)]
        lines.append(f"row {number} is {word},{'plus' if number % 2 == 0 else 'minus'}")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_model(folder: Path) -> None:
    """A BERT of one narrow layer with random weights and a word tokenizer, as a folder that transformers can load."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: index for index, word in enumerate([*special, *WORDS, "row", "is"])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **names).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"] == "bert"
