"""A tiny real model and learnable rows: what a runner can train in a second or two."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

WORDS = {
    "sport": ("goal", "match", "team", "score", "player", "league"),
    "money": ("bank", "stock", "share", "price", "market", "profit"),
    "food": ("bread", "soup", "salad", "cheese", "butter", "onion"),
}
FILLERS = ("the", "a", "of", "and", "to", "in", "it", "was", "with", "for")


def write_rows(path: Path, *, count: int, seed: int) -> Path:
    """A CSV of texts whose words mostly tell their class."""
    generator = random.Random(seed)
    lines = ["text,label"]
    for _ in range(count):
        label = generator.choice(sorted(WORDS))
        other = generator.choice(sorted(WORDS))
        words = generator.choices(WORDS[label], k=3) + generator.choices(WORDS[other], k=1)
        words += generator.choices(FILLERS, k=generator.randint(2, 12))
        generator.shuffle(words)
        lines.append(f"{' '.join(words)},{label}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def write_model(folder: Path) -> Path:
    """A random BERT of two layers of width 32 with a word tokenizer, saved as the hub would have it."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *FILLERS]
    words += [word for group in WORDS.values() for word in group]
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join(words) + "\n", encoding="utf-8")
    BertTokenizer(vocab=str(vocabulary)).save_pretrained(folder)
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=128,
    )
    BertModel(config).save_pretrained(folder, safe_serialization=True)
    return folder


def write_study(folder: Path, name: str = "tiny", **changes: Any) -> Path:
    """A study file beside its model and data; ``changes`` replace top-level sections."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "model").exists():
        write_model(folder / "model")
        write_rows(folder / "train.csv", count=240, seed=1)
        write_rows(folder / "test.csv", count=90, seed=2)
    study = {
        "name": name,
        "task": "text-classification",
        "model": "model",
        "data": {"train": "train.csv", "test": "test.csv", "validation": 0.25},
        "objective": {"metric": "macro_f1"},
        "strategies": ["head", "bitfit", "lora", "full"],
        "training": {"epochs": 3, "max_length": 32},
        "budget": {"trials": 6},
        "confirm": {"finalists": 1, "seeds": 1},
    }
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(study | changes), encoding="utf-8")  # JSON is YAML
    return path
