"""Where a backbone learns at which positions its tokens stand, and how many positions it knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn

from tuner.errors import TrialInfeasible

_LEARNED = ("position_embeddings", "position_embedding", "positions_embed", "embed_positions", "wpe")
_ROTARY = "RotaryEmbedding"


def known_positions(backbone: nn.Module) -> int | None:
    """The longest sequence of a backbone that has an embedding for every position; None where there is no end."""
    limits = [_limit(table) for table in _tables(backbone)]
    return min(limits) if limits else None


def shift_positions(backbone: nn.Module, *, by: int, knob: str) -> None:
    """Let the tokens stand behind something that is no part of the input, from now on.

    Positions are moved on where they are turned into vectors: at a plain embedding of positions and at rotary
    embeddings. Distances between tokens, all that T5 knows of positions, do not change.

    Args:
        backbone: Changed in place.
        by: Places in front of the tokens.
        knob: Which hyperparameter says so, for the error of an input that has become too long.
    """
    for table in _tables(backbone):
        if type(table) is nn.Embedding:  # those of another class compute the positions themselves, from masks
            table.register_forward_pre_hook(partial(_shift_ids, by=by, knob=knob))
    for module in backbone.modules():
        if type(module).__name__.endswith(_ROTARY):
            module.register_forward_pre_hook(partial(_shift_angles, by=by), with_kwargs=True)


def refuse_length(backbone: nn.Module, *, length: int, knob: str) -> None:
    """Where the positions have an end, something must be left for the text.

    Raises:
        TrialInfeasible: If there are not more positions than ``length``.
    """
    known = known_positions(backbone)
    if known is not None and length >= known:
        raise TrialInfeasible(
            f"{knob} {length} leaves none of the model's {known} positions to the text", fix=f"lower space.{knob}"
        )


def refuse_tokens(tokens: int, *, length: int, known: int | None, knob: str) -> None:
    """What stands before the text, and the text, must have positions together.

    Raises:
        TrialInfeasible: If they do not fit.
    """
    if known is not None and tokens + length > known:
        raise TrialInfeasible(
            f"{tokens} tokens and {knob} {length} exceed the model's {known} positions",
            fix=f"lower training.max_length to {known - length}, or space.{knob}",
        )


def _tables(backbone: nn.Module) -> Iterator[nn.Embedding]:
    for name, module in backbone.named_modules():
        if isinstance(module, nn.Embedding) and name.rpartition(".")[2] in _LEARNED:
            yield module


def _limit(table: nn.Embedding) -> int:
    """RoBERTa's positions begin behind the one of the padding, BART's and OPT's behind two that are no longer used."""
    first = 0 if table.padding_idx is None else table.padding_idx + 1
    return table.num_embeddings - first - int(getattr(table, "offset", 0))


def _shift_ids(table: nn.Embedding, arguments: tuple[Tensor, ...], *, by: int, knob: str) -> tuple[Tensor, ...]:
    ids, *others = arguments
    refuse_tokens(ids.shape[-1], length=by, known=_limit(table), knob=knob)
    return (ids + by, *others)


def _shift_angles(
    _rotary: nn.Module, arguments: tuple[Any, ...], named: Mapping[str, Any], *, by: int
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if "position_ids" in named:
        return arguments, {**named, "position_ids": named["position_ids"] + by}
    hidden, ids, *others = arguments
    return (hidden, ids + by, *others), dict(named)
