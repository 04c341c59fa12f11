"""A small study file, model folder and data set that the tests of this room change in one place each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tuner.strategies import STRATEGIES
from tuner.study.catalogue import Catalogue
from tuner.tasks import TASKS

CATALOGUE = Catalogue(
    strategies={name: strategy.info for name, strategy in STRATEGIES.items()},
    tasks={name: task.info for name, task in TASKS.items()},
)

STUDY = """\
name: demo
task: text-classification
model: owner/model
data:
  train: train.csv
  text: text
  label: label
  validation: 0.2
objective: {metric: macro_f1}
strategies: [head, lora, full]
training: {epochs: 4}
budget: {trials: 12}
"""

CONFIG = {"architectures": ["BertModel"], "model_type": "bert", "max_position_embeddings": 512}


def changed(old: str, new: str) -> str:
    """The study with one place changed."""
    assert STUDY.count(old) == 1, f"{old!r} must stand once in the study"
    return STUDY.replace(old, new)


def with_space(lines: str) -> str:
    """The study with a space section; its first line is line 14."""
    return f"{STUDY}space:\n{lines}"


def write_model(folder: Path, *, config: dict[str, Any] | None = None) -> Path:
    """A model folder of 12 + 8 weights, as ``save_pretrained`` lays it out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    (folder / "tokenizer.json").write_text("{}")
    save_file({"a": np.zeros((3, 4), np.float32), "b": np.zeros(8, np.float16)}, folder / "model.safetensors")
    return folder


def write_rows(file: Path, rows: list[tuple[str, str]]) -> Path:
    """A CSV file with the columns text and label."""
    file.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    return file


def numbered(labels: str, *, start: int = 0) -> list[tuple[str, str]]:
    """A row with a text of its own for each letter: ``abc`` gives three rows of the classes a, b and c."""
    return [(f"text number {start + index}", label) for index, label in enumerate(labels)]
