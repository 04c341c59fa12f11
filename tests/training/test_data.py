from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.samples import LABELS, study, write_rows
from tuner.errors import DataError
from tuner.study.sources import HubSource
from tuner.study.table import MissingColumn
from tuner.training.cache import WarmCache
from tuner.training.data import Rows, StudyData, balanced, load_data, load_labels, read_hub, stratified_sample
from tuner.training.model import load_tokenizer


def load(folder: Path, *, cache: WarmCache | None = None, test: bool = False, **changes: Any) -> StudyData:
    spec = study(folder, **changes)
    cache = cache or WarmCache()
    return load_data(
        spec,
        tokenizer=load_tokenizer(spec, cache=cache),
        labels=load_labels(spec, cache=cache),
        balance=spec.data.balance,
        with_test=test,
        cache=cache,
    )


def counts(rows: Rows) -> list[int]:
    frequencies: list[int] = rows.targets[rows.chosen].bincount(minlength=3).tolist()
    return frequencies


def write_unequal(folder: Path) -> str:
    rows = [
        f"the {word},{label}"
        for word, label, n in (("cat", "a", 40), ("fig", "b", 8), ("saw", "c", 2))
        for _ in range(n)
    ]
    file = folder / "unequal.csv"
    file.write_text("\n".join(["text,label", *rows]) + "\n")
    return str(file)


def test_the_split_is_stratified_disjoint_and_complete(tmp_path: Path) -> None:
    data = load(tmp_path)
    assert data.labels == LABELS
    assert (counts(data.train), counts(data.validation)) == ([16] * 3, [4] * 3)
    rows = data.train.chosen.tolist() + data.validation.chosen.tolist()
    assert sorted(rows) == list(range(60))


def test_the_split_depends_on_the_study_seed_alone(tmp_path: Path) -> None:
    splits = [load(tmp_path, training={"seed": seed}).validation.chosen.tolist() for seed in (0, 0, 1)]
    assert splits[0] == splits[1] != splits[2]


def test_a_class_of_one_row_is_learnt_and_not_judged(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,label\n" + "the cat,a\n" * 9 + "the fig,b\n" * 9 + "the saw,c\n")
    data = load(tmp_path, data={"train": str(file)})
    assert counts(data.train)[2] == 1
    assert counts(data.validation)[2] == 0


def test_too_few_rows_for_the_share(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,label\nthe cat,a\nthe fig,b\n")
    with pytest.raises(DataError, match=r"2 rows are too few for a validation share of 0\.2"):
        load(tmp_path, data={"train": str(file)})


def test_a_validation_file_leaves_the_training_rows_whole(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "valid.csv", rows=9, seed=4)
    data = load(tmp_path, data={"validation": str(file)})
    assert (len(data.train), len(data.validation)) == (60, 9)


def test_the_test_file_is_opened_only_when_asked(tmp_path: Path) -> None:
    missing = {"test": str(tmp_path / "nowhere.csv")}
    assert load(tmp_path, data=missing).test is None
    with pytest.raises(DataError, match=r"nowhere\.csv"):
        load(tmp_path, data=missing, test=True)


def test_a_sample_of_the_training_rows_keeps_the_shares_and_the_validation(tmp_path: Path) -> None:
    file = write_unequal(tmp_path)
    whole, part = load(tmp_path, data={"train": file}), load(tmp_path, data={"train": file, "train_rows": 12})
    assert counts(part.train) == [10, 2, 1]
    assert part.validation.chosen.tolist() == whole.validation.chosen.tolist()
    assert set(part.train.chosen.tolist()) <= set(whole.train.chosen.tolist())


@pytest.mark.parametrize(("balance", "expected"), [("oversample", [32, 32, 32]), ("undersample", [1, 1, 1])])
def test_balance(tmp_path: Path, balance: str, expected: list[int]) -> None:
    data = load(tmp_path, data={"train": write_unequal(tmp_path), "balance": balance})
    assert counts(data.train) == expected
    assert counts(data.validation) == [8, 2, 1]
    assert data.class_weights is None


def test_class_weights_make_every_class_count_the_same(tmp_path: Path) -> None:
    data = load(tmp_path, data={"train": write_unequal(tmp_path), "balance": "class_weight"})
    assert data.class_weights is not None
    shares = data.class_weights.numpy() * np.array(counts(data.train))
    assert shares.tolist() == pytest.approx([len(data.train) / 3] * 3)


def test_whole_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    file = tmp_path / "numbers.csv"
    file.write_text("text,label\n" + "".join(f"the cat,{label}\n" for label in (10, 2, -1, 10, 2, -1)))
    assert load_labels(study(tmp_path, data={"train": str(file)}), cache=WarmCache()) == ("-1", "2", "10")


def test_one_label_is_not_enough(tmp_path: Path) -> None:
    file = tmp_path / "one.csv"
    file.write_text("text,label\na,x\nb,x\n")
    with pytest.raises(DataError, match=r'column "label" has one label \("x"\)'):
        load_labels(study(tmp_path, data={"train": str(file)}), cache=WarmCache())


def test_no_rows(tmp_path: Path) -> None:
    file = tmp_path / "none.csv"
    file.write_text("text,label\n")
    with pytest.raises(DataError, match="there are no rows"):
        load_labels(study(tmp_path, data={"train": str(file)}), cache=WarmCache())


def test_a_label_that_the_training_rows_lack_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "valid.csv"
    file.write_text("text,label\nthe cat,animal\nthe fig,fruits\n")
    with pytest.raises(DataError, match=r'valid\.csv:3: label "fruits" is not among.*did you mean "fruit"'):
        load(tmp_path, data={"validation": str(file)})


def test_an_empty_label_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("text,label\nthe cat,a\nthe fig,\n")
    with pytest.raises(DataError, match=r'rows\.csv:3: column "label" is empty'):
        load(tmp_path, data={"train": str(file)})


def test_cut_texts_are_noted(tmp_path: Path) -> None:
    assert load(tmp_path).notes == ()
    data = load(tmp_path, training={"max_length": 4})
    assert data.notes[0].endswith("of the training texts reach the limit of 4 tokens and may be cut")
    assert int(data.train.tokens.lengths.max()) == 4


def test_few_cut_texts_are_not_called_none(tmp_path: Path) -> None:
    file, judge = tmp_path / "many.csv", tmp_path / "judge.csv"
    judge.write_text("text,label\nthe fig,a\nthe fig,b\nthe fig,c\n")
    rows = "".join(f"the cat,{label}\n" for label in "abc" * 100)
    file.write_text(f"text,label\n{rows}the cat the cat the cat the cat,a\n")
    data = load(tmp_path, data={"train": str(file), "validation": str(judge)}, training={"max_length": 8})
    assert data.notes[0].startswith("less than 1% of the training texts reach the limit of 8 tokens")


def test_pairs_are_told_apart(tmp_path: Path) -> None:
    data = load(tmp_path, data={"text": ["text", "other"]})
    tokens = data.train.tokens
    assert tokens.types is not None
    first = slice(0, int(tokens.lengths[0]))
    assert tokens.types[first].tolist() == [0] * (int(tokens.lengths[0]) - 2) + [1, 1]


def test_an_edited_file_is_read_again(tmp_path: Path) -> None:
    cache = WarmCache()
    assert len(load(tmp_path, cache=cache).train) == 48
    file = write_rows(tmp_path / "train.csv", rows=30)
    os.utime(file, (1, 1))
    assert len(load(tmp_path, cache=cache).train) == 24


@given(sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6), share=st.floats(0.05, 0.9), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_a_stratified_sample_is_fair(sizes: list[int], share: float, seed: int) -> None:
    targets = np.repeat(np.arange(len(sizes)), sizes)
    count = round(share * len(targets))
    rows = stratified_sample(targets, count=count, seed=seed, leave_one=True)
    assert len(set(rows.tolist())) == len(rows)
    taken = Counter(targets[rows].tolist())
    for label, size in enumerate(sizes):
        quota = count * size / len(targets)
        assert (taken[label] == 0) if size == 1 else 1 <= taken[label] <= size - 1
        assert size == 1 or taken[label] in {1, size - 1} or abs(taken[label] - quota) <= 1


def test_oversampling_keeps_every_row() -> None:
    targets = np.array([0, 0, 0, 0, 0, 1, 1])
    rows = balanced(targets, over=True, seed=0)
    assert set(rows.tolist()) == set(range(7))
    assert np.bincount(targets[rows]).tolist() == [5, 5]


def hub_rows(**columns: list[Any]) -> datasets.Dataset:
    features = datasets.Features(
        {
            name: datasets.ClassLabel(names=["bad", "good"]) if name == "label" else datasets.Value("string")
            for name in columns
        }
    )
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The hub, where one data set is: it cannot be reached from here."""
    asked: dict[str, Any] = {}

    def load_dataset(name: str, config: str | None, *, split: str, revision: str | None) -> datasets.Dataset:
        asked.update(name=name, config=config, split=split, revision=revision)
        if name == "owner/rows":
            return hub_rows(text=["the cat", "the fig"] * 10, label=[0, 1] * 10)
        if name == "owner/unlabelled":
            return hub_rows(text=["the cat"] * 2, label=[0, -1])
        raise datasets.exceptions.DatasetNotFoundError(f"Dataset '{name}' doesn't exist\non the Hub.")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_rows_of_the_hub_have_class_names(tmp_path: Path, hub: dict[str, Any]) -> None:
    data = load(tmp_path, data={"train": "hub://owner/rows?split=part&revision=abc&config=c"})
    assert hub == {"name": "owner/rows", "config": "c", "split": "part", "revision": "abc"}
    assert data.labels == ("bad", "good")
    assert (len(data.train), len(data.validation)) == (16, 4)


def test_head_of_a_hub_data_set(hub: dict[str, Any]) -> None:
    table = read_hub(HubSource(name="owner/rows"), columns=["label"], limit=3)
    assert table.columns == {"label": ["bad", "good", "bad"]}
    assert table.lines == [1, 2, 3]
    with pytest.raises(MissingColumn) as caught:
        read_hub(HubSource(name="owner/rows"), columns=["texts"])
    assert caught.value.column == "texts"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("hub://owner/nowhere", "hub://owner/nowhere: cannot be read - Dataset 'owner/nowhere' doesn't exist$"),
        ("hub://owner/unlabelled", 'hub://owner/unlabelled:2: column "label" is empty'),
    ],
)
def test_mistakes_about_the_hub(tmp_path: Path, hub: dict[str, Any], source: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(tmp_path, data={"train": source})


def test_a_column_that_the_hub_lacks(tmp_path: Path, hub: dict[str, Any]) -> None:
    with pytest.raises(DataError, match='no column "texts"; did you mean "text"'):
        load(tmp_path, data={"train": "hub://owner/rows", "text": "texts"})
