"""The pretrained model: found, loaded once from safetensors, and built anew for every trial.

Pickle weights and code that comes with a model are never run. The base weights stay in memory; a trial gets a model
built from them by the same path whether the runner is warm or fresh, with its head drawn from the trial's seed, so both
give equal results bit for bit.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from tuner.errors import ConfigurationError
from tuner.strategies.base import backbone_of
from tuner.study.positions import token_limit
from tuner.study.sources import is_package, resolve_package
from tuner.study.spec import StudySpec
from tuner.tasks import Task
from tuner.training.cache import WarmCache, model_key
from tuner.training.device import seed_everything

_UNBOUNDED = 1_000_000  # tokens; more than any text has


@dataclass(frozen=True, kw_only=True, slots=True)
class BaseModel:
    """A pretrained model, as loaded; shared by all trials and never changed.

    Attributes:
        model_class: The architecture's class for the task.
        config: Its configuration, with the study's labels.
        weights: Pretrained tensors by name, float32 on the CPU, without those of ``fresh``.
        fresh: Parameters that every trial draws anew: the output layer, and what the checkpoint did not contain.
        parameters: Number of parameters.
        max_positions: Longest input in tokens.
        fingerprint: Hash of ``weights``: a folder or a branch may hold others tomorrow.
    """

    model_class: Any
    config: PretrainedConfig
    weights: Mapping[str, Tensor]
    fresh: frozenset[str]
    parameters: int
    max_positions: int
    fingerprint: str


def load_tokenizer(spec: StudySpec, *, cache: WarmCache) -> PreTrainedTokenizerBase:
    """The model's tokenizer, with a padding token.

    Raises:
        ConfigurationError: If there is none, or it needs code of its own.
    """

    def build() -> PreTrainedTokenizerBase:
        with _quiet(), _said_plainly(spec, "tokenizer"):
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(**_source(spec))
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token  # decoders have none; the attention mask hides it
        if tokenizer.pad_token_id is None:
            raise ConfigurationError(f'model "{spec.model}": its tokenizer has neither a padding nor an end token')
        return tokenizer

    return cache.get(("tokenizer", model_key(spec.model, spec.revision)), build)


def load_base(spec: StudySpec, *, task: Task, labels: Sequence[str], pad: int, cache: WarmCache) -> BaseModel:
    """The pretrained model for a task with these labels.

    Args:
        spec: The study.
        task: What the model is for.
        labels: Class names by index.
        pad: The padding id, for models whose configuration names none.
        cache: Where the model is kept.

    Raises:
        ConfigurationError: If the model cannot be found, has no safetensors weights, needs code of its own, or is
            too short for the study's ``max_length``.
    """

    def build() -> BaseModel:
        with _quiet(), _said_plainly(spec, "model"):
            source = _source(spec)
            config = AutoConfig.from_pretrained(
                **source,
                num_labels=len(labels),
                id2label=dict(enumerate(labels)),
                label2id={label: index for index, label in enumerate(labels)},
            )
            if getattr(config, "pad_token_id", None) is None:
                config.pad_token_id = pad
            model, report = task.auto_class().from_pretrained(
                **source,
                config=config,
                use_safetensors=True,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        fresh = frozenset(report["missing_keys"]) | {name for name, *_ in report["mismatched_keys"]}
        fresh |= _output_layer(model, classes=len(labels))
        weights = {name: tensor for name, tensor in model.state_dict().items() if name not in fresh}
        return BaseModel(
            model_class=type(model),
            config=config,
            weights=weights,
            fresh=fresh,
            parameters=model.num_parameters(),
            max_positions=token_limit(config.to_dict()) or _UNBOUNDED,
            fingerprint=fingerprint_of(weights),
        )

    base = cache.get(("base", model_key(spec.model, spec.revision), spec.task, tuple(labels)), build)
    if spec.training.max_length > base.max_positions:
        raise ConfigurationError(
            f"training.max_length {spec.training.max_length} exceeds the {base.max_positions} tokens that the model can read",
            fix=f"lower training.max_length to {base.max_positions}",
        )
    return base


def load_shapes(spec: StudySpec, *, task: Task, labels: Sequence[str], folder: str) -> tuple[nn.Module, frozenset[str]]:
    """The model without its weights, on torch's meta device: what it is made of, for nothing.

    Args:
        spec: The study.
        task: What the model is for.
        labels: Class names by index.
        folder: Where the model's files are; empty for a hub model of which only the configuration is fetched.

    Returns:
        The model in training mode, and the names of its parameters that every trial draws anew: the output layer and,
        where there is a folder, what its checkpoint does not contain.

    Raises:
        ConfigurationError: If the configuration cannot be read.
    """
    source: dict[str, Any] = _source(spec)
    if folder:
        source = {"pretrained_model_name_or_path": folder, "local_files_only": True, "trust_remote_code": False}
    with _quiet(), _said_plainly(spec, "model"):
        config = AutoConfig.from_pretrained(**source, num_labels=len(labels))
        if getattr(config, "pad_token_id", None) is None:
            config.pad_token_id = 0
        if not folder:
            with torch.device("meta"):
                model = task.auto_class().from_config(config, dtype=torch.float32)
            return model.train(), frozenset(_output_layer(model, classes=len(labels)))
        model, report = task.auto_class().from_pretrained(
            **source,
            config=config,
            use_safetensors=True,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            device_map="meta",
        )
    fresh = frozenset(report["missing_keys"]) | {name for name, *_ in report["mismatched_keys"]}
    return model.train(), fresh | _output_layer(model, classes=len(labels))


@dataclass(frozen=True, kw_only=True, slots=True)
class Classifier:
    """A model that is fine-tuned already, as loaded.

    Attributes:
        model: On the CPU, with the output layer that it came with.
        labels: Its class names by index.
        max_positions: Longest input in tokens.
        fingerprint: Hash of its weights.
    """

    model: nn.Module
    labels: tuple[str, ...]
    max_positions: int
    fingerprint: str


def load_classifier(spec: StudySpec, *, task: Task, pad: int) -> Classifier:
    """The model of a study as the fine-tuned classifier that it is.

    Args:
        spec: Names the model.
        task: What it is for.
        pad: The padding id, for models whose configuration names none.

    Raises:
        ConfigurationError: If it cannot be found, has no safetensors weights, needs code of its own, or was never
            fine-tuned.
    """
    with _quiet(), _said_plainly(spec, "model"):
        model, report = task.auto_class().from_pretrained(
            **_source(spec), use_safetensors=True, dtype=torch.float32, output_loading_info=True
        )
    if missing := sorted(report["missing_keys"]):
        raise ConfigurationError(
            f'model "{spec.model}" is no fine-tuned classifier', why=f"it has no weights for {', '.join(missing[:3])}"
        )
    if getattr(model.config, "pad_token_id", None) is None:
        model.config.pad_token_id = pad
    names = model.config.id2label
    return Classifier(
        model=model,
        labels=tuple(str(names[index]) for index in sorted(names)),
        max_positions=token_limit(model.config.to_dict()) or _UNBOUNDED,
        fingerprint=fingerprint_of(model.state_dict()),
    )


def build_model(base: BaseModel, *, dropout: float, seed: int) -> nn.Module:
    """A model of its own for one trial.

    Args:
        base: The pretrained model.
        dropout: Probability for every dropout that the architecture's configuration names.
        seed: Seed of the trial; the fresh parameters are drawn from it.

    Returns:
        The model on the CPU, in training mode; its tensors are copies.
    """
    config = with_dropout(base.config, dropout)
    seed_everything(seed, "head")
    with _quiet():
        # Without the copies the loader would hand out the very tensors it was given, and training would change the base.
        weights = {name: tensor.clone() for name, tensor in base.weights.items()}
        model: nn.Module = base.model_class.from_pretrained(
            None, config=config, state_dict=weights, dtype=torch.float32
        )
    return model.train()


def with_dropout(config: PretrainedConfig, probability: float) -> PretrainedConfig:
    """A copy of a configuration in which every dropout has this probability.

    The architectures name their dropouts differently (``hidden_dropout_prob``, ``attn_pdrop``, ``dropout_rate``…). A
    ``None`` stands for "as the hidden layers". Dropping whole layers (``layerdrop``) is another method and stays.
    """
    changed = copy.deepcopy(config)
    for name, value in config.to_dict().items():
        is_probability = value is None or (isinstance(value, int | float) and not isinstance(value, bool))
        if is_probability and ("dropout" in name or name.endswith("pdrop")):
            setattr(changed, name, probability)
    return changed


def _output_layer(model: nn.Module, *, classes: int) -> set[str]:
    """Parameters of the last layer: it speaks of other labels even where the checkpoint has one of the right size."""
    backbone = {id(parameter) for parameter in backbone_of(model).parameters()}
    return {
        name
        for name, parameter in model.named_parameters()
        if id(parameter) not in backbone and parameter.shape[0] == classes
    }


def fingerprint_of(weights: Mapping[str, Tensor]) -> str:
    """A hash of tensors on the CPU and their names."""
    digest = sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(json.dumps([name, list(tensor.shape)]).encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _source(spec: StudySpec) -> dict[str, Any]:
    """Where the model is, as arguments of ``from_pretrained``."""
    local = resolve_package(spec.model) if is_package(spec.model) else Path(spec.model)
    arguments: dict[str, Any] = {"trust_remote_code": False}
    if not local.is_dir():
        return {**arguments, "pretrained_model_name_or_path": spec.model, "revision": spec.revision or "main"}
    if not any(local.glob("*.safetensors")):
        raise ConfigurationError(
            f'model "{spec.model}" has no safetensors file',
            why="pickle weights can run code and are refused",
            fix="convert it with save_pretrained of transformers",
        )
    return {**arguments, "pretrained_model_name_or_path": str(local), "local_files_only": True}


@contextmanager
def _said_plainly(spec: StudySpec, part: str) -> Iterator[None]:
    """Errors of transformers as one line; it raises OSError for missing files and ValueError for what it refuses."""
    try:
        yield
    except (OSError, ValueError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        why = lines[0] if lines else type(error).__name__
        if why.startswith("Unrecognized configuration class"):  # followed by a page of classes
            why = f"transformers has no {spec.task} model of this kind"
        raise ConfigurationError(f'the {part} of "{spec.model}" cannot be loaded', why=why) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no report about the fresh head, which is meant to be there."""
    level = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()
