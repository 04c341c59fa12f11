"""Batches by index: no loader, no workers, an order that depends on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tuner.training.data import Rows
from tuner.training.device import derived_seed

_POOL = 50  # batches that are sorted by length together: less padding than one pool fewer, still well mixed
_EVALUATION_TOKENS = 8192  # padded tokens of an evaluation batch


class Examples(Protocol):
    """Rows on the device, ready to be indexed."""

    @property
    def lengths(self) -> Tensor:
        """Tokens of each row, on the CPU, (rows,)."""

    @property
    def targets(self) -> Tensor:
        """Class of each row, on the device, (rows,)."""

    def inputs(self, rows: Tensor) -> Mapping[str, Tensor]:
        """The model's arguments for some rows, padded to the longest of them.

        Args:
            rows: Row numbers, on the CPU.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenExamples:
    """Rows as token ids; they are put together on the device from one flat tensor.

    Attributes:
        source: The file's rows, its ids on the device.
        lengths: Tokens of each chosen row, on the CPU.
        targets: Class of each chosen row, on the device.
        pad: The padding id.
        multiple: Widths are rounded up to this; tensor cores like multiples of 8.
    """

    source: Rows
    lengths: Tensor
    targets: Tensor
    pad: int
    multiple: int

    @classmethod
    def on(cls, device: torch.device, *, rows: Rows, pad: int) -> TokenExamples:
        """The rows on a device."""
        return cls(
            source=Rows(tokens=rows.tokens.to(device), targets=rows.targets, chosen=rows.chosen),
            lengths=rows.tokens.lengths[rows.chosen],
            targets=rows.targets[rows.chosen].to(device),
            pad=pad,
            multiple=8 if device.type == "cuda" else 1,
        )

    def inputs(self, rows: Tensor) -> dict[str, Tensor]:
        """``input_ids``, ``attention_mask`` and, for pairs, ``token_type_ids``: (rows, width), padded on the right."""
        tokens = self.source.tokens
        device = tokens.ids.device
        lengths = self.lengths[rows]
        width = -(-int(lengths.max()) // self.multiple) * self.multiple
        places = torch.arange(width, device=device)
        mask = places < lengths.to(device)[:, None]
        index = tokens.starts[self.source.chosen[rows].to(device)][:, None] + places
        index = index.clamp_(max=len(tokens.ids) - 1)
        inputs = {
            "input_ids": torch.where(mask, tokens.ids[index], self.pad).long(),
            "attention_mask": mask.long(),
        }
        if tokens.types is not None:
            inputs["token_type_ids"] = torch.where(mask, tokens.types[index], 0).long()
        return inputs


def epoch_batches(lengths: Tensor, *, batch_size: int, seed: int, epoch: int) -> list[Tensor]:
    """The batches of one epoch, texts of similar length together.

    Rows are shuffled, cut into pools of 50 batches, sorted by length inside each pool, cut into batches, and the batches
    shuffled: most of the gain of sorting everything, while a batch still differs from epoch to epoch.

    Args:
        lengths: Tokens of each row, (rows,).
        batch_size: Rows of a batch; the last one may be smaller.
        seed: Seed of the run.
        epoch: 1-based epoch.

    Returns:
        Row numbers of each batch; every row stands in exactly one.
    """
    generator = torch.Generator().manual_seed(derived_seed(seed, "order", epoch))
    shuffled = torch.randperm(len(lengths), generator=generator)
    batches: list[Tensor] = []
    for pool in shuffled.split(batch_size * _POOL):
        batches.extend(pool[lengths[pool].argsort(stable=True)].split(batch_size))
    return [batches[index] for index in torch.randperm(len(batches), generator=generator).tolist()]


def evaluation_batches(lengths: Tensor, *, tokens: int = _EVALUATION_TOKENS) -> list[Tensor]:
    """All rows, the longest first (memory that runs out does so at once), in batches of about equal padded size.

    Args:
        lengths: Tokens of each row, (rows,).
        tokens: Padded tokens of a batch at most, unless one row is longer.
    """
    order = lengths.argsort(descending=True, stable=True)
    batches: list[Tensor] = []
    start = 0
    while start < len(order):
        size = max(tokens // int(lengths[order[start]]), 1)
        batches.append(order[start : start + size])
        start += size
    return batches
