from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.samples import study
from tuner.training.batches import TokenExamples, epoch_batches, evaluation_batches
from tuner.training.cache import WarmCache
from tuner.training.data import Rows
from tuner.training.model import load_tokenizer
from tuner.training.tokens import tokenize

TEXTS = ["the cat", "a dog is here there my", "my", "unknown words here"]


@given(rows=st.integers(1, 300), batch_size=st.integers(1, 40), seed=st.integers(0, 9), epoch=st.integers(1, 9))
@settings(max_examples=50, deadline=None)
def test_every_row_stands_in_one_batch(rows: int, batch_size: int, seed: int, epoch: int) -> None:
    lengths = torch.randint(1, 30, (rows,), generator=torch.Generator().manual_seed(0))
    batches = epoch_batches(lengths, batch_size=batch_size, seed=seed, epoch=epoch)
    assert sorted(torch.cat(batches).tolist()) == list(range(rows))
    assert sorted(len(batch) for batch in batches)[1:] == [batch_size] * (len(batches) - 1)
    assert len(batches) == -(-rows // batch_size)


def test_the_order_depends_on_seed_and_epoch_alone() -> None:
    lengths = torch.arange(1, 101)

    def order(seed: int, epoch: int) -> list[int]:
        return torch.cat(epoch_batches(lengths, batch_size=8, seed=seed, epoch=epoch)).tolist()

    torch.manual_seed(1)
    first = order(3, 2)
    torch.manual_seed(2)
    assert first == order(3, 2)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (1, 2)}) == 4


def test_texts_of_similar_length_stand_together() -> None:
    lengths = torch.randint(5, 129, (4000,), generator=torch.Generator().manual_seed(0))
    padded = sum(
        int(lengths[batch].max()) * len(batch) for batch in epoch_batches(lengths, batch_size=16, seed=0, epoch=1)
    )
    assert padded < 1.05 * int(lengths.sum())  # unsorted it is about 1.8 times


def test_evaluation_starts_with_the_longest_and_bounds_the_size() -> None:
    lengths = torch.tensor([5, 50, 7, 7, 200, 6])
    batches = evaluation_batches(lengths, tokens=100)
    assert [batch.tolist() for batch in batches] == [[4], [1, 2], [3, 5, 0]]


def test_inputs_equal_those_of_the_tokenizer(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(study(tmp_path), cache=WarmCache())
    for pairs in (None, ["cow here", "a", "the one", "fig"]):
        tokens = tokenize(tokenizer, texts=TEXTS, pairs=pairs, max_length=7, folder=None)
        chosen = torch.tensor([3, 1, 2, 0, 1])
        source = Rows(tokens=tokens, targets=torch.arange(4), chosen=chosen)
        examples = TokenExamples.on(torch.device("cpu"), rows=source, pad=0)
        found = examples.inputs(torch.tensor([4, 3, 0]))
        texts = [[TEXTS[row] for row in (1, 0, 3)]] + ([[pairs[row] for row in (1, 0, 3)]] if pairs else [])
        expected = tokenizer(*texts, truncation=True, max_length=7, padding=True, return_tensors="pt")
        for name in found:
            assert torch.equal(found[name], expected[name]), name
        assert ("token_type_ids" in found) == (pairs is not None)
        assert examples.targets.tolist() == [3, 1, 2, 0, 1]


@pytest.mark.parametrize("multiple", [1, 8])
def test_widths_are_multiples(tmp_path: Path, multiple: int) -> None:
    tokenizer = load_tokenizer(study(tmp_path), cache=WarmCache())
    tokens = tokenize(tokenizer, texts=TEXTS, pairs=None, max_length=20, folder=None)
    source = Rows(tokens=tokens, targets=torch.arange(4), chosen=torch.arange(4))
    examples = TokenExamples(source=source, lengths=tokens.lengths, targets=source.targets, pad=0, multiple=multiple)
    found = examples.inputs(torch.tensor([0, 2]))
    assert found["input_ids"].shape[1] == -(-4 // multiple) * multiple
    assert found["attention_mask"].sum(dim=1).tolist() == [4, 3]
    assert (found["input_ids"][1, 3:] == 0).all()
