"""The rows of a study: read, split, mapped to class numbers and tokenised.

The split, the sample and the balance depend on ``training.seed`` alone, never on the seed of a trial: all trials, and
all confirmation runs, learn from the same rows and are judged by the same rows. Where the rows are divided into folds the
trials share one split, and the confirmation runs of a round another one. The test rows, and the part of the validation
rows that is held back from the search, are handed only to a run that is asked to score them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from tuner.errors import DataError, first_line
from tuner.study.folds import SEARCH_FOLD
from tuner.study.names import did_you_mean
from tuner.study.sources import HubSource, is_hub, local_path, parse_hub
from tuner.study.spec import DataSpec, FoldsSpec, StudySpec
from tuner.study.table import MissingColumn, Table, read_table
from tuner.training.cache import WarmCache, model_key
from tuner.training.device import derived_seed
from tuner.training.interrupt import Released, stop_if_told
from tuner.training.tokens import Tokens, tokenize

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Some rows of one file.

    Attributes:
        tokens: All rows of the file.
        targets: Class of each row of the file, int64.
        chosen: Which rows of the file these are, int64; a row may stand several times (oversampling).
    """

    tokens: Tokens
    targets: Tensor
    chosen: Tensor

    def __len__(self) -> int:
        """Number of chosen rows."""
        return len(self.chosen)

    def classes(self) -> Array:
        """Class of each chosen row."""
        classes: Array = self.targets[self.chosen].numpy()
        return classes

    def choose(self, places: Array) -> Rows:
        """Some of the chosen rows, by their place among them."""
        return Rows(tokens=self.tokens, targets=self.targets, chosen=self.chosen[torch.from_numpy(places)])


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyData:
    """All rows that a run may see.

    Attributes:
        labels: Class names by index, sorted: as numbers if all are whole numbers, else as text.
        train: Rows to learn from.
        validation: Rows that judge every epoch.
        test: Rows that score a confirmed finalist, None in the search.
        held_back: Validation rows that choose among finalists, None in the search and where none are held back.
        class_weights: Weight of each class in the loss, float32, or None.
        notes: What a person should know.
    """

    labels: tuple[str, ...]
    train: Rows
    validation: Rows
    test: Rows | None
    class_weights: Tensor | None
    notes: tuple[str, ...]
    held_back: Rows | None = None

    def fingerprint(self) -> str:
        """A hash of the rows that a run learns from and is judged by; the test rows decide nothing.

        It speaks of contents alone: the same rows have the same one on every box, wherever their files lie.
        """
        digest = sha256(json.dumps(self.labels).encode())
        for rows in (self.train, self.validation):
            digest.update(rows.tokens.key.encode())
            for numbers in (rows.targets, rows.chosen):
                digest.update(len(numbers).to_bytes(8))
                digest.update(numbers.numpy().data)
        return digest.hexdigest()


def load_labels(spec: StudySpec, *, cache: WarmCache) -> tuple[str, ...]:
    """The class names of a study, from its training rows.

    Raises:
        DataError: If the rows cannot be read, or all have the same label.
    """
    cells = _table(spec.data.train, spec.data, cache).columns[spec.data.label]
    labels = sorted({cell.strip() for cell in cells})
    if all(label.removeprefix("-").isdecimal() for label in labels):
        labels.sort(key=int)
    if len(labels) < 2:
        raise DataError(
            f'{spec.data.train}: column "{spec.data.label}" has one label ("{labels[0]}")'
            if labels
            else f"{spec.data.train}: there are no rows",
            why="at least two classes are needed",
        )
    return tuple(labels)


def load_data(
    spec: StudySpec,
    *,
    tokenizer: PreTrainedTokenizerBase,
    labels: tuple[str, ...],
    balance: str,
    with_test: bool,
    cache: WarmCache,
    fold: int = SEARCH_FOLD,
    released: Released = lambda: None,
) -> StudyData:
    """Everything a run may see, in class numbers and token ids.

    Args:
        spec: The study.
        tokenizer: The model's tokenizer.
        labels: Class names by index.
        balance: ``none``, ``class_weight``, ``oversample`` or ``undersample``.
        with_test: Hand out the test and the held back rows too.
        cache: Tables and tokens are kept here.
        fold: 1-based: which fold judges, where the training rows are divided into folds.
        released: Asked between files and between chunks of texts.

    Raises:
        Interrupted: If ``released`` says so.
        DataError: If rows cannot be read, or a row has a label that the training rows lack.
    """
    seed = spec.training.seed

    def load(source: str) -> Rows:
        stop_if_told(released)
        tokens, targets = _encode(source, spec, tokenizer=tokenizer, labels=labels, cache=cache, released=released)
        return Rows(tokens=tokens, targets=targets, chosen=torch.arange(len(targets)))

    train, validation = load(spec.data.train), spec.data.validation
    if isinstance(validation, str):
        judged = load(validation)
    else:
        train, judged = _split(train, validation, fold=fold, seed=seed, source=spec.data.train)
    judged, held = _hold_back(judged, count=spec.count_held_back(len(judged)), seed=seed)
    if spec.data.train_rows is not None and spec.data.train_rows < len(train):
        train = train.choose(
            stratified_sample(train.classes(), count=spec.data.train_rows, seed=derived_seed(seed, "train_rows"))
        )
    notes = _cut_notes(train, spec.training.max_length)
    class_weights = None
    if balance == "class_weight":
        class_weights = _class_weights(train, classes=len(labels))
    elif balance != "none":
        over = balance == "oversample"
        train = train.choose(balanced(train.classes(), over=over, seed=derived_seed(seed, "balance")))
    return StudyData(
        labels=labels,
        train=train,
        validation=judged,
        test=load(spec.data.test) if with_test and spec.data.test is not None else None,
        class_weights=class_weights,
        notes=notes,
        held_back=held if with_test else None,
    )


def load_tokens(
    source: str,
    spec: StudySpec,
    *,
    tokenizer: PreTrainedTokenizerBase,
    cache: WarmCache,
    released: Released = lambda: None,
) -> Tokens:
    """The texts of a whole file as token ids.

    Args:
        source: The file or hub data set.
        spec: Names the columns, the model and how long a text may be.
        tokenizer: The model's tokenizer.
        cache: Tables and tokens are kept here.
        released: Asked before every chunk of texts.

    Raises:
        Interrupted: If ``released`` says so.
        DataError: If the rows cannot be read.
    """
    columns, limit = _text_columns(spec.data), spec.training.max_length

    def build() -> Tokens:
        table = _table(source, spec.data, cache)
        return tokenize(
            tokenizer,
            texts=table.columns[columns[0]],
            pairs=table.columns[columns[1]] if len(columns) > 1 else None,
            max_length=limit,
            folder=cache.folder,
            released=released,
        )

    return cache.get(("tokens", _identity(source), columns, model_key(spec.model, spec.revision), limit), build)


def _class_weights(rows: Rows, *, classes: int) -> Tensor:
    """Weights with which every class counts the same."""
    counts = torch.from_numpy(np.bincount(rows.classes(), minlength=classes))
    return len(rows) / (classes * counts.clamp(min=1)).float()


def _split(rows: Rows, split: float | FoldsSpec, *, fold: int, seed: int, source: str) -> tuple[Rows, Rows]:
    """The rows to learn from, and those that judge."""
    if isinstance(split, FoldsSpec):
        return _leave_out(rows, fold=fold, of=split.folds, seed=seed, source=source)
    return _hold_out(rows, share=split, seed=seed, source=source)


def _hold_out(rows: Rows, *, share: float, seed: int, source: str) -> tuple[Rows, Rows]:
    """The rows to learn from, and those that judge."""
    count = round(share * len(rows))
    held = stratified_sample(rows.classes(), count=count, seed=derived_seed(seed, "validation"), leave_one=True)
    if not len(held):
        raise DataError(f"{source}: {len(rows)} rows are too few for a validation share of {share}")
    return rows.choose(np.setdiff1d(np.arange(len(rows)), held)), rows.choose(held)


def _leave_out(rows: Rows, *, fold: int, of: int, seed: int, source: str) -> tuple[Rows, Rows]:
    """The rows to learn from, and those of the fold that judges."""
    if len(rows) < of:
        raise DataError(f"{source}: {len(rows)} rows are too few for {of} folds")
    places = fold_places(rows.classes(), folds=of, seed=derived_seed(seed, "validation"))
    return rows.choose(np.flatnonzero(places != fold)), rows.choose(np.flatnonzero(places == fold))


def _hold_back(rows: Rows, *, count: int, seed: int) -> tuple[Rows, Rows | None]:
    """The validation rows that the search may see, and those that only finalists are scored on."""
    if not count:
        return rows, None
    places = stratified_sample(rows.classes(), count=count, seed=derived_seed(seed, "held_back"), leave_one=True)
    if not len(places):
        return rows, None
    return rows.choose(np.setdiff1d(np.arange(len(rows)), places)), rows.choose(places)


def fold_places(targets: Array, *, folds: int, seed: int) -> Array:
    """The 1-based fold of each row: all folds are of one size, and each has its share of every class, to a row.

    Args:
        targets: Class of each row.
        folds: How many.
        seed: Seed of the draw.
    """
    generator = np.random.default_rng(seed)
    # Dealt like cards, class by class without a pause: that keeps the folds of one size, too.
    dealt = np.concatenate([generator.permutation(np.flatnonzero(targets == label)) for label in np.unique(targets)])
    places = np.empty(len(targets), dtype=np.int64)
    places[dealt] = 1 + np.arange(len(targets)) % folds
    return places


def stratified_sample(targets: Array, *, count: int, seed: int, leave_one: bool = False) -> Array:
    """A random sample in which every class has its share, to the nearest whole row.

    Args:
        targets: Class of each row.
        count: Size of the sample; it may differ by a few rows, because every class gives at least one.
        seed: Seed of the draw.
        leave_one: Take no class whole, so that the rest has all of them too; a class of one row gives none then.

    Returns:
        Sorted row numbers.
    """
    generator = np.random.default_rng(seed)
    classes, sizes = np.unique(targets, return_counts=True)
    quotas = count * sizes / len(targets)
    takes = np.floor(quotas).astype(int)
    # Largest remainders first; the order of classes breaks ties, so that the sample is reproducible.
    short = np.argsort(-(quotas - takes), kind="stable")[: max(count - int(takes.sum()), 0)]
    takes[short] += 1
    most = sizes - 1 if leave_one else sizes
    takes = np.clip(takes, np.minimum(most, 1), most)
    parts = [
        generator.permutation(np.flatnonzero(targets == label))[:take]
        for label, take in zip(classes, takes, strict=True)
    ]
    return np.sort(np.concatenate(parts))


def balanced(targets: Array, *, over: bool, seed: int) -> Array:
    """Row numbers in which all classes are equally frequent.

    Args:
        targets: Class of each row.
        over: Repeat rows of the smaller classes (True), or leave out rows of the larger ones (False).
        seed: Seed of the draw.

    Returns:
        Row numbers; with ``over`` every row stands at least once.
    """
    generator = np.random.default_rng(seed)
    groups = [generator.permutation(np.flatnonzero(targets == label)) for label in np.unique(targets)]
    sizes = [len(group) for group in groups]
    size = max(sizes) if over else min(sizes)
    return np.sort(np.concatenate([np.resize(group, size) for group in groups]))


def _encode(
    source: str,
    spec: StudySpec,
    *,
    tokenizer: PreTrainedTokenizerBase,
    labels: Sequence[str],
    cache: WarmCache,
    released: Released,
) -> tuple[Tokens, Tensor]:
    """Tokens and classes of a whole file."""
    table = _table(source, spec.data, cache)
    index = {label: number for number, label in enumerate(labels)}
    cells = [cell.strip() for cell in table.columns[spec.data.label]]
    for line, cell in zip(table.lines, cells, strict=True):
        if cell not in index:
            raise DataError(
                f'{source}:{line}: label "{cell}" is not among the training rows{did_you_mean(cell, labels)}'
            )
    tokens = load_tokens(source, spec, tokenizer=tokenizer, cache=cache, released=released)
    return tokens, torch.tensor([index[cell] for cell in cells], dtype=torch.int64)


def _text_columns(data: DataSpec) -> tuple[str, ...]:
    return (data.text,) if isinstance(data.text, str) else tuple(data.text)


def _table(source: str, data: DataSpec, cache: WarmCache) -> Table:
    columns = (*_text_columns(data), data.label)

    def build() -> Table:
        is_there = not is_hub(source)
        table = read_table(source, columns=columns) if is_there else read_hub(parse_hub(source), columns=columns)
        table.require(data.label)
        return table

    return cache.get(("table", _identity(source), columns), build)


def _identity(source: str) -> tuple[str, int, int]:
    """A source and, for a file, its size and time of change: an edited file is another one."""
    if is_hub(source):
        return source, 0, 0
    path = Path(local_path(source))
    if not path.is_file():
        return source, 0, 0  # reading it says what is wrong
    facts = path.stat()
    return source, facts.st_size, facts.st_mtime_ns


def read_hub(source: HubSource, *, columns: Sequence[str], limit: int | None = None) -> Table:
    """Rows of a hub data set; class numbers become class names.

    Args:
        source: Which rows.
        columns: Names of the columns.
        limit: Rows that are read at most.

    Raises:
        MissingColumn: If it has no such column.
        DataError: If it cannot be read.
    """
    import datasets

    address = f"hub://{source.name}"
    try:
        rows = datasets.load_dataset(source.name, source.config, split=source.split, revision=source.revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{address}: cannot be read", why=first_line(error)) from error
    if limit is not None and len(rows) > limit:
        rows = rows.select(range(limit))
    cells: dict[str, list[str]] = {}
    for name in dict.fromkeys(columns):
        if name not in rows.column_names:
            raise MissingColumn(f'{address}: no column "{name}"{did_you_mean(name, rows.column_names)}', column=name)
        feature = rows.features[name]
        values = rows[name]
        named = isinstance(feature, datasets.ClassLabel)
        cells[name] = [
            "" if value is None or (named and value < 0) else feature.int2str(value) if named else str(value)
            for value in values
        ]
    return Table(source=address, columns=cells, lines=list(range(1, len(rows) + 1)))


def _cut_notes(rows: Rows, max_length: int) -> tuple[str, ...]:
    """How many texts fill the whole length; such a text may have been cut."""
    full = int((rows.tokens.lengths[rows.chosen] >= max_length).sum())
    if not full:
        return ()
    share = f"{full / len(rows):.0%}" if full / len(rows) >= 0.005 else "less than 1%"
    return (f"{share} of the training texts reach the limit of {max_length} tokens and may be cut",)
