"""Frozen backbones are read once: after that an epoch of the head takes milliseconds.

If nothing in the backbone is trained, the vector that the head reads is the same in every epoch of every trial. It is
computed once for each row, in evaluation mode, and the backbone is replaced by one that hands these vectors out. The
model's own code does the rest, so pooler, dropout, activation and head are exactly the architecture's. The vectors are
kept in the memory of the CPU: on the device they would take room from trials that do not need them.

What this changes: the dropout *inside* the frozen backbone is off during training. The dropout before the head, which the
``dropout`` hyperparameter also sets, works as ever. Frozen layers cannot adapt to dropout, so nothing is lost by it.

It is done only where it is right: the heads of some architectures read every token, or pool in their own way. One
batch is computed both ways, and unless the logits agree to float rounding the trial takes the ordinary way.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions as BackboneOutput

from tuner.strategies.base import backbone_of
from tuner.strategies.state import trainable_state
from tuner.training.batches import Examples, TokenExamples, evaluation_batches
from tuner.training.cache import WarmCache
from tuner.training.device import Compute
from tuner.training.interrupt import Released, stop_if_told
from tuner.training.memory import in_parts, is_broken_device, is_out_of_memory

_POSITIONS = ("first", "last")  # encoders put what they know of the text into the first token, decoders into the last
_PROBE_ROWS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureExamples:
    """Rows as the vectors that a frozen backbone gives.

    Attributes:
        features: One vector a row, float32 on the device, (rows, width).
        targets: Class of each row, on the device.
        lengths: All 1: there is nothing to pad.
    """

    features: Tensor
    targets: Tensor
    lengths: Tensor

    def inputs(self, rows: Tensor) -> Mapping[str, Tensor]:
        """The vectors as texts of one token; see :class:`ReplayedBackbone`."""
        return as_inputs(self.features[rows.to(self.features.device)])


class ReplayedBackbone(nn.Module):
    """Stands in for a backbone whose result is known: what comes in as embeddings goes out as the last hidden state.

    The pooler, which may be trained, stays under its own name, so that the parameters of the model keep theirs.
    """

    def __init__(self, backbone: nn.Module) -> None:
        """A stand-in for a backbone."""
        super().__init__()
        self.pooler = getattr(backbone, "pooler", None)

    # A classifier hands its backbone all that it was given (masks, output options), and what it hands differs by architecture.
    def forward(self, input_ids: Tensor, *, inputs_embeds: Tensor, **_ignored: object) -> BackboneOutput:
        """The last hidden state, (rows, 1, width), and the pooler's output if there is a pooler."""
        pooled = None if self.pooler is None else self.pooler(inputs_embeds)
        return BackboneOutput(last_hidden_state=inputs_embeds, pooler_output=pooled)


def as_inputs(vectors: Tensor) -> dict[str, Tensor]:
    """Vectors, (rows, width), as the arguments of a model whose backbone is replayed.

    The ids only tell heads that look for the last token of a text that there is one.
    """
    ids = torch.zeros(len(vectors), 1, dtype=torch.int64, device=vectors.device)
    return {"input_ids": ids, "inputs_embeds": vectors[:, None]}


def frozen_position(model: nn.Module, *, examples: TokenExamples, compute: Compute) -> str | None:
    """Which token's vector the head reads, if cached vectors can replace the backbone.

    Args:
        model: An adapted model, on its device.
        examples: Some rows to try it with.
        compute: Device and precision.

    Returns:
        ``first`` or ``last``; None if the backbone is trained, or neither reproduces the model's logits.

    Raises:
        RuntimeError: If a single row does not fit into the memory: how much is free must not decide in which way a trial is trained.
    """
    backbone = backbone_of(model)
    changing = trainable_state(backbone)
    if backbone is model or any(not name.startswith("pooler.") for name in changing):
        return None
    rows = torch.arange(min(_PROBE_ROWS, len(examples.lengths)))
    for position in _POSITIONS:

        def agree(some: Tensor, position: str = position) -> Tensor:
            return _reproduced(model, position, examples=examples, rows=some, compute=compute)

        try:
            if bool(torch.cat(in_parts([rows], agree, device=compute.device)).all()):
                return position
        except (TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            if is_out_of_memory(error) or is_broken_device(error):
                raise
            continue  # this head needs more from its backbone than one vector
    return None


def load_features(
    model: nn.Module,
    *,
    position: str,
    examples: TokenExamples,
    base_key: tuple[Hashable, ...],
    compute: Compute,
    cache: WarmCache,
    released: Released = lambda: None,
) -> FeatureExamples:
    """The rows as vectors; computed for the whole file they are from, on first use.

    Args:
        model: The model with its real backbone.
        position: What :func:`frozen_position` found.
        examples: The rows.
        base_key: The model, see :func:`tuner.training.cache.model_key`.
        compute: Device and precision.
        cache: Where the vectors are kept.
        released: Asked before every batch that is computed.

    Raises:
        Interrupted: If it says so; nothing is kept then.
    """
    chosen = examples.source.chosen
    needed = torch.unique(chosen)
    key = ("features", base_key, examples.source.tokens.key, str(compute), position, needed.numpy().tobytes())

    def build() -> Tensor:
        return _capture(model, position, examples=examples, chosen=needed, compute=compute, released=released)

    vectors = cache.get(key, build)
    places = torch.searchsorted(needed, chosen)
    return FeatureExamples(
        features=vectors[places].to(compute.device),
        targets=examples.targets,
        lengths=torch.ones(len(chosen), dtype=torch.int64),
    )


@contextmanager
def replayed(model: nn.Module) -> Iterator[None]:
    """The model reads cached vectors inside, and texts again afterwards."""
    name = str(model.base_model_prefix)
    backbone = backbone_of(model)
    setattr(model, name, ReplayedBackbone(backbone).train(model.training))
    try:
        yield
    finally:
        backbone.train(model.training)
        setattr(model, name, backbone)


def _capture(
    model: nn.Module, position: str, *, examples: TokenExamples, chosen: Tensor, compute: Compute, released: Released
) -> Tensor:
    """The vector of each chosen row of the file, in evaluation mode, (rows, width), on the CPU."""
    tokens = examples.source.tokens
    whole = TokenExamples(
        source=type(examples.source)(tokens=tokens, targets=examples.source.targets, chosen=chosen),
        lengths=tokens.lengths[chosen],
        targets=examples.targets,
        pad=examples.pad,
        multiple=examples.multiple,
    )
    was_training = model.training
    model.eval()
    batches = evaluation_batches(whole.lengths)

    def read(rows: Tensor) -> Tensor:
        stop_if_told(released)
        return _vectors(model, position, examples=whole, rows=rows).cpu()

    # Not inference_mode: the head's backward needs these vectors, and inference tensors refuse to be saved for it.
    with torch.no_grad(), compute.autocast():
        parts = in_parts(batches, read, device=compute.device)
    model.train(was_training)
    together = torch.cat(parts)
    vectors = torch.empty_like(together)
    vectors[torch.cat(batches)] = together
    return vectors


def _vectors(model: nn.Module, position: str, *, examples: Examples, rows: Tensor) -> Tensor:
    inputs = examples.inputs(rows)
    hidden: Tensor = backbone_of(model)(**inputs)[0]
    place = torch.zeros_like(rows) if position == "first" else examples.lengths[rows] - 1
    return hidden[torch.arange(len(rows), device=hidden.device), place.to(hidden.device)].float()


def _reproduced(model: nn.Module, position: str, *, examples: TokenExamples, rows: Tensor, compute: Compute) -> Tensor:
    """Which of the rows have the same logits from their vector as from their tokens, (rows,)."""
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), compute.autocast():
            expected = model(**examples.inputs(rows)).logits.float()
            vectors = _vectors(model, position, examples=examples, rows=rows)
            with replayed(model):
                found = model(**as_inputs(vectors)).logits.float()
    finally:
        model.train(was_training)
    # In bf16 the two ways round at other places.
    tolerance = 1e-5 if compute.dtype is torch.float32 else 2e-2
    if expected.shape != found.shape:
        return torch.zeros(len(rows), dtype=torch.bool)
    return torch.isclose(expected, found, rtol=tolerance, atol=tolerance).all(dim=-1).cpu()
