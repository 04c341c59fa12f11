"""Tiny models with random weights, a data set they can learn, and plans to train them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    AutoModel,
    BertConfig,
    DistilBertConfig,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    ResNetConfig,
    T5Config,
    ViTConfig,
)

from tuner.strategies import resolve
from tuner.study.names import stages
from tuner.study.plan import TrialPlan, TrialResult, Verdict
from tuner.study.spec import StudySpec
from tuner.training.cache import WarmCache
from tuner.training.interrupt import Released
from tuner.training.run import run_trial

LABELS = ("animal", "fruit", "tool")
WORDS = {"animal": ("cat", "dog", "cow"), "fruit": ("fig", "pear", "plum"), "tool": ("saw", "axe", "file")}
FILLER = ("the", "a", "one", "this", "that", "my", "is", "was", "here", "there")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
VOCABULARY = (*SPECIAL, *FILLER, *(word for words in WORDS.values() for word in words))

_BERT: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
_SHARED: dict[str, Any] = {"vocab_size": len(VOCABULARY), "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}

CONFIGS: dict[str, PretrainedConfig] = {
    "bert": BertConfig(**_BERT, **_SHARED, max_position_embeddings=64),
    "distilbert": DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=32, **_SHARED, max_position_embeddings=64),
    "modernbert": ModernBertConfig(
        **_BERT, **_SHARED, cls_token_id=2, sep_token_id=3, max_position_embeddings=64, classifier_pooling="cls"
    ),
    "gpt2": GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=64, **_SHARED),
    "llama": LlamaConfig(**_BERT, **_SHARED, max_position_embeddings=64),
    "t5": T5Config(d_model=16, d_ff=32, num_layers=2, num_heads=2, d_kv=8, **_SHARED),
    "vit": ViTConfig(**_BERT, image_size=8, patch_size=4),
    "resnet": ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type="basic"),
}

CONFIGS["t5"].decoder_start_token_id = 0


def write_model(folder: Path, *, kind: str = "bert", pooler: bool = True) -> Path:
    """A "pretrained" backbone and its tokenizer, as ``save_pretrained`` lays them out."""
    torch.manual_seed(7)
    arguments = {} if pooler else {"add_pooling_layer": False}
    model = AutoModel.from_config(CONFIGS[kind], **arguments)
    with torch.no_grad():  # as drawn, embeddings are so small that a frozen backbone tells no text from another
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(6.0)
    model.save_pretrained(folder)
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"] if kind == "bert" else ["input_ids"],
    ).save_pretrained(folder)
    return folder


def write_rows(file: Path, *, rows: int = 48, seed: int = 0, labels: Sequence[str] = LABELS) -> Path:
    """Texts of 2 to 11 words whose label is the kind of their one telling word; a CSV file."""
    draw = random.Random(seed)
    lines = ["text,other,label"]
    for number in range(rows):
        label = labels[number % len(labels)]
        words = [draw.choice(FILLER) for _ in range(draw.randint(1, 10))]
        words.insert(draw.randint(0, len(words)), draw.choice(WORDS[label]))
        lines.append(f"{' '.join(words)},{draw.choice(FILLER)},{label}")
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def study(folder: Path, *, kind: str = "bert", **changes: Any) -> StudySpec:
    """A study on a tiny model; written into the folder on first use. Changes: whole sections, merged one level deep."""
    model = folder / f"model-{kind}"
    if not model.exists():
        write_model(model, kind=kind)
    if not (folder / "train.csv").exists():
        write_rows(folder / "train.csv", rows=60)
        write_rows(folder / "test.csv", rows=12, seed=1)
    sections: dict[str, Any] = {
        "name": "tiny",
        "task": "text-classification",
        "model": str(model),
        "data": {"train": str(folder / "train.csv"), "test": str(folder / "test.csv"), "validation": 0.2},
        "objective": {"metric": "macro_f1"},
        "strategies": ["full"],
        "training": {"epochs": 3, "max_length": 16},
    }
    for name, value in changes.items():
        known = sections.get(name)
        sections[name] = {**known, **value} if isinstance(known, dict) and isinstance(value, Mapping) else value
    return StudySpec.model_validate(sections)


def learning_rate(strategy: str) -> float:
    """A learning rate that suits the tiny models, which bear more than the smallest model a strategy was measured on."""
    first = resolve(stages(strategy)[-1])
    return min(4.0 * first.info.learning_rate[0][1], 2e-2)


def plan(
    spec: StudySpec,
    folder: Path,
    *,
    strategy: str = "full",
    seed: int = 5,
    score_test: bool = False,
    resume_from: Sequence[Path] = (),
    **params: Any,
) -> TrialPlan:
    """A run of one trial with a learning rate that suits the tiny models."""
    values = {"learning_rate": learning_rate(strategy), "batch_size": 8, "dropout": 0.1}
    return TrialPlan(
        spec=spec,
        number=0,
        strategy=strategy,
        params=values | params,
        seed=seed,
        score_test=score_test,
        checkpoint_dir=str(folder),
        resume_from=tuple(str(path) for path in resume_from),
    )


class Recorder:
    """Remembers what a run reported, and answers with a verdict after a given epoch."""

    def __init__(self, *, after: int = 0, verdict: Verdict = Verdict.GO_ON) -> None:
        self.curve: list[tuple[int, dict[str, float]]] = []
        self._after = after
        self._verdict = verdict

    def __call__(self, epoch: int, metrics: Mapping[str, float], seconds: float) -> Verdict:
        assert seconds > 0
        self.curve.append((epoch, dict(metrics)))
        return self._verdict if epoch == self._after else Verdict.GO_ON


def run(
    plan: TrialPlan, *, report: Recorder | None = None, cache: WarmCache | None = None, released: Released | None = None
) -> TrialResult:
    """Train with a recorder."""
    arguments: dict[str, Any] = {} if released is None else {"released": released}
    return run_trial(plan, report=report or Recorder(), cache=cache, **arguments)


def tensors_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copies of all parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
