"""Texts as token ids: made once, kept flat, found again by their content."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tuner.training.cache import read_tensors, write_tensors
from tuner.training.interrupt import Released, stop_if_told

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FORMAT = 1
_CHUNK = 2048  # texts per call of the tokenizer: bounds the memory of its intermediate objects


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """Ragged rows of token ids, one after the other.

    Attributes:
        ids: All rows' ids, int32.
        types: Segment of each id for models that tell the two texts of a pair apart, int32; else None.
        starts: Where each row begins in ``ids``, (rows,).
        lengths: Ids of each row, at least 1, (rows,); on the CPU, where batches are planned.
        key: Hash of what the ids depend on.
    """

    ids: Tensor
    types: Tensor | None
    starts: Tensor
    lengths: Tensor
    key: str

    def to(self, device: torch.device) -> Tokens:
        """The ids on a device."""
        types = None if self.types is None else self.types.to(device)
        return Tokens(
            ids=self.ids.to(device), types=types, starts=self.starts.to(device), lengths=self.lengths, key=self.key
        )


def tokenize(
    tokenizer: PreTrainedTokenizerBase,
    *,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    max_length: int,
    folder: Path | None,
    released: Released = lambda: None,
) -> Tokens:
    """Token ids of all texts, cut at ``max_length``.

    Args:
        tokenizer: The model's tokenizer.
        texts: First or only text of each row.
        pairs: Second text of each row, or None; the longer one is cut first.
        max_length: Ids of a row at most, special ones included.
        folder: Where the ids are kept for the next runner, None to keep nothing.
        released: Asked before every chunk of texts.

    Returns:
        The rows in the order of the texts; a text without any id becomes one padding id.

    Raises:
        Interrupted: If ``released`` says so; nothing is kept then.
    """
    key = _content_key(tokenizer, texts=texts, pairs=pairs, max_length=max_length)
    path = None if folder is None else folder / f"tokens-{key}.safetensors"
    if path is not None and (found := _read(path, key)) is not None:
        return found
    tokens = _make(tokenizer, key, texts=texts, pairs=pairs, max_length=max_length, released=released)
    if path is not None:
        _write(path, tokens)
    return tokens


def _make(
    tokenizer: PreTrainedTokenizerBase,
    key: str,
    *,
    texts: Sequence[str],
    pairs: Sequence[str] | None,
    max_length: int,
    released: Released,
) -> Tokens:
    """The ids, chunk by chunk."""
    ids: list[int] = []
    types: list[int] = []
    lengths: list[int] = []
    with_types = pairs is not None and "token_type_ids" in tokenizer.model_input_names
    for start in range(0, len(texts), _CHUNK):
        stop_if_told(released)
        rows = tokenizer(
            list(texts[start : start + _CHUNK]),
            None if pairs is None else list(pairs[start : start + _CHUNK]),
            truncation="longest_first",
            max_length=max_length,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=with_types,
        )
        for row in rows["input_ids"]:
            ids.extend(row or [tokenizer.pad_token_id])
            lengths.append(max(len(row), 1))
        if with_types:
            for row in rows["token_type_ids"]:
                types.extend(row or [0])
    counts = torch.tensor(lengths, dtype=torch.int64)
    return Tokens(
        ids=torch.tensor(ids, dtype=torch.int32),
        types=torch.tensor(types, dtype=torch.int32) if with_types else None,
        starts=counts.cumsum(0) - counts,
        lengths=counts,
        key=key,
    )


def _content_key(
    tokenizer: PreTrainedTokenizerBase, *, texts: Sequence[str], pairs: Sequence[str] | None, max_length: int
) -> str:
    digest = sha256(_description(tokenizer).encode())
    head = [_FORMAT, type(tokenizer).__name__, tokenizer.truncation_side, tokenizer.pad_token_id, max_length]
    digest.update(json.dumps(head).encode())
    for column in (texts, pairs or ()):
        digest.update(b"\x01")
        for text in column:
            data = text.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8))
            digest.update(data)
    return digest.hexdigest()[:40]


def _description(tokenizer: PreTrainedTokenizerBase) -> str:
    """Everything that decides how a text is split."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return json.dumps(sorted(tokenizer.get_vocab().items()))
    rules = json.loads(backend.to_str())
    # The tokenizer remembers how it was last called; what counts is how it will be called.
    del rules["truncation"], rules["padding"]
    return json.dumps(rules)


def _read(path: Path, key: str) -> Tokens | None:
    kept = read_tensors(path)
    if kept is None or not {"ids", "starts", "lengths"} <= kept.keys():
        return None
    return Tokens(ids=kept["ids"], types=kept.get("types"), starts=kept["starts"], lengths=kept["lengths"], key=key)


def _write(path: Path, tokens: Tokens) -> None:
    tensors = {"ids": tokens.ids, "starts": tokens.starts, "lengths": tokens.lengths}
    if tokens.types is not None:
        tensors["types"] = tokens.types
    write_tensors(path, tensors)
