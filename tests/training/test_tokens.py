from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from tests.training.samples import study
from tuner.training.cache import WarmCache
from tuner.training.model import load_tokenizer
from tuner.training.tokens import Tokens, tokenize

TEXTS = ["the cat", "a dog is here there my", "", "unknown words here"]


class Encode:
    """The tokenizer of a tiny model, with arguments that suit these texts."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = load_tokenizer(study(folder), cache=WarmCache())

    def __call__(
        self,
        *,
        texts: Sequence[str] = TEXTS,
        pairs: Sequence[str] | None = None,
        max_length: int = 8,
        folder: Path | None = None,
    ) -> Tokens:
        return tokenize(self.tokenizer, texts=texts, pairs=pairs, max_length=max_length, folder=folder)


@pytest.fixture
def encode(tmp_path: Path) -> Encode:
    return Encode(tmp_path)


def rows(tokens: Tokens) -> list[list[int]]:
    return [
        tokens.ids[start : start + length].tolist()
        for start, length in zip(tokens.starts.tolist(), tokens.lengths.tolist(), strict=True)
    ]


def test_rows_are_those_of_the_tokenizer(encode: Encode) -> None:
    expected = encode.tokenizer(TEXTS, truncation=True, max_length=4)["input_ids"]
    assert rows(encode(max_length=4)) == expected


def test_a_row_without_any_id_is_one_padding_id(encode: Encode) -> None:
    encode.tokenizer.backend_tokenizer.post_processor = None  # such tokenizers add nothing around a text
    found = encode(texts=["", "the cat"])
    assert rows(found)[0] == [0]
    assert len(rows(found)[1]) == 2


def test_the_next_runner_reads_what_this_one_wrote(encode: Encode, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    first = encode(folder=folder, pairs=["x"] * 4)
    (file,) = folder.iterdir()
    written = file.stat().st_mtime_ns
    second = encode(folder=folder, pairs=["x"] * 4)
    assert file.stat().st_mtime_ns == written
    assert second.types is not None and first.types is not None
    for name in ("ids", "types", "starts", "lengths"):
        assert torch.equal(getattr(first, name), getattr(second, name))


def test_a_damaged_file_is_made_anew(encode: Encode, tmp_path: Path) -> None:
    first = encode(folder=tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(file.read_bytes()[:50])
    assert rows(encode(folder=tmp_path / "cache")) == rows(first)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_the_key_tells_apart_what_gives_other_ids(encode: Encode) -> None:
    variants = [
        encode(),
        encode(max_length=5),
        encode(texts=TEXTS[:3]),
        encode(texts=["the", " cat", *TEXTS[1:]]),
        encode(pairs=["", "", "", ""]),
        encode(texts=["the cata", *TEXTS[1:]]),
    ]
    assert len({tokens.key for tokens in variants}) == len(variants)
    assert encode().key == encode().key
