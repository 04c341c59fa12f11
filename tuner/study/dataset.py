"""What a study's rows are: counted classes, empty cells, rows that stand in two splits."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tuner.errors import TunerError
from tuner.study.names import count_noun
from tuner.study.ranges import Findings
from tuner.study.sources import HubSource, is_hub, parse_hub
from tuner.study.spec import StudySpec
from tuner.study.table import MissingColumn, Table, read_table

ROWS_READ = 200_000
"""Rows of each source that are looked at; what stands behind them is met by the training."""

_RARE = 2  # rows of a class; a stratified split needs one on each side
_FEW_REPEATS = 0.02  # of the rows; some repeat in any data (Reuters R8: 1.1 %) and change no figure that is told
_MANY_CLASSES = 20, 0.5  # classes, and classes per row; above both the label is rather a number or an id


class ReadHub(Protocol):
    """Reads rows from the hub; whoever may import ``datasets`` hands it in."""

    def __call__(self, source: HubSource, *, columns: Sequence[str], limit: int | None = None) -> Table:
        """The named columns of a hub data set.

        Raises:
            TunerError: If the hub cannot be reached, or has no such data set or column.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class DataFacts:
    """A study's rows, as facts.

    Attributes:
        train_rows: Rows that are trained on.
        validation_rows: Rows that the search is judged by.
        held_back_rows: Validation rows beside these that only the finalists are judged by.
        test_rows: Rows that only the finalists see; 0 without a test.
        classes: Training rows of each class, the largest first, before a share is split off.
        cut: Share of the training rows with more words than ``training.max_length``; tokens are never fewer than words.
        complete: Whether all rows were looked at.
        folds: Into how many folds the training rows are divided, of which one judges; 0 where they are not.
    """

    train_rows: int
    validation_rows: int
    test_rows: int
    classes: Mapping[str, int] = field(default_factory=dict)
    cut: float = 0.0
    complete: bool = True
    held_back_rows: int = 0
    folds: int = 0


def read_data(spec: StudySpec, *, read_hub: ReadHub | None, findings: Findings) -> DataFacts | None:
    """The facts of a study's data.

    Args:
        spec: The study; paths in it are absolute.
        read_hub: Reads hub data sets; without it they are passed over with a warning.
        findings: Takes what is wrong or odd.

    Returns:
        The facts, or None if the training rows cannot be read.
    """
    validation = spec.data.validation if isinstance(spec.data.validation, str) else None
    sources = {"train": spec.data.train, "validation": validation, "test": spec.data.test}
    tables: dict[str, Table] = {}
    for name, source in sources.items():
        if source is None:
            continue
        table = _read(source, key=f"data.{name}", spec=spec, read_hub=read_hub, findings=findings)
        if table is not None and _usable(table, key=f"data.{name}", spec=spec, findings=findings):
            tables[name] = table
    if "train" not in tables:
        return None
    classes = _classes(tables, spec=spec, findings=findings)
    _overlaps(tables, spec=spec, findings=findings)
    return _facts(tables, classes=classes, spec=spec, findings=findings)


def text_columns(spec: StudySpec) -> tuple[str, ...]:
    """The columns with text: one, or two for sentence pairs."""
    return (spec.data.text,) if isinstance(spec.data.text, str) else spec.data.text


def _read(source: str, *, key: str, spec: StudySpec, read_hub: ReadHub | None, findings: Findings) -> Table | None:
    columns = [*text_columns(spec), spec.data.label]
    try:
        if not is_hub(source):
            return read_table(source, columns=columns, limit=ROWS_READ)
        if read_hub is not None:
            return read_hub(parse_hub(source), columns=columns, limit=ROWS_READ)
    except MissingColumn as error:
        findings.refuse(_key_of(error.column, spec), error.message)
        return None
    except TunerError as error:
        findings.refuse(key, error.message)
        return None
    findings.warn(key, f"{source} was not opened; the training will read it")
    return None


def _key_of(column: str, spec: StudySpec) -> str:
    """The key that names a column."""
    if column == spec.data.label:
        return "data.label"
    return "data.text" if isinstance(spec.data.text, str) else f"data.text.{spec.data.text.index(column)}"


def _usable(table: Table, *, key: str, spec: StudySpec, findings: Findings) -> bool:
    """Whether there are rows with labels and texts; empty texts are only warned of."""
    if not len(table):
        findings.refuse(key, f"{table.source} has 0 rows")
        return False
    for column in text_columns(spec):
        empty = [line for line, cell in zip(table.lines, table.columns[column], strict=True) if not cell.strip()]
        if len(empty) == len(table):
            findings.refuse(key, f'{table.source}: column "{column}" is empty in all {len(table):,} rows')
            return False
        if empty:
            findings.warn(
                key, f'column "{column}" is empty in {len(empty):,} of {len(table):,} rows (first: line {empty[0]})'
            )
    labels = table.columns[spec.data.label]
    empty = [line for line, cell in zip(table.lines, labels, strict=True) if not cell.strip()]
    if empty:
        where = f"{len(empty):,} of {len(table):,} rows (first: line {empty[0]})"
        findings.refuse(key, f'{table.source}: column "{spec.data.label}" is empty in {where}; fill or remove them')
    return not empty


def _classes(tables: Mapping[str, Table], *, spec: StudySpec, findings: Findings) -> dict[str, int]:
    """Training rows of each class; labels that only the other splits have are refused."""
    train = tables["train"]
    classes = dict(Counter(_labels(train, spec)).most_common())
    if len(classes) == 1:
        findings.refuse(
            "data.label", f'all {len(train):,} rows have the label "{next(iter(classes))}"; two classes are needed'
        )
    elif len(classes) > _MANY_CLASSES[0] and len(classes) > _MANY_CLASSES[1] * len(train):
        findings.warn(
            "data.label", f"{len(classes):,} different labels in {len(train):,} rows; is it a number or an id?"
        )
    rare = [name for name, rows in classes.items() if rows < _RARE]
    few = [name for name, rows in classes.items() if _RARE <= rows < spec.data.folds]
    if few and len(classes) > 1:
        judged = f"{'has' if len(few) == 1 else 'have'} fewer rows than the {spec.data.folds} folds of data.validation"
        findings.warn(
            "data.label", f"{_some(few)} {judged}; some folds cannot judge {'it' if len(few) == 1 else 'them'}"
        )
    if rare and len(classes) > 1 and not isinstance(spec.data.validation, str):
        has = "has one row only" if len(rare) == 1 else "have one row each"
        findings.warn("data.label", f"{_some(rare)} {has}, which cannot be in training and validation both")
    for name in ("validation", "test"):
        if name in tables:
            strange = sorted(set(_labels(tables[name], spec)) - set(classes))
            if strange:
                one = len(strange) == 1
                what = f"{'label' if one else 'labels'} {_some(strange)} {'is' if one else 'are'}"
                findings.refuse(f"data.{name}", f"{what} not among the training labels")
            missing = sorted(set(classes) - set(_labels(tables[name], spec)))
            if missing:
                only = f"has no row of {len(missing)} of the {len(classes)} classes ({_some(missing)})"
                findings.warn(f"data.{name}", f"{only}; its figures say nothing about them")
    return classes


def _labels(table: Table, spec: StudySpec) -> list[str]:
    """The rows' labels as the training reads them."""
    return [label.strip() for label in table.columns[spec.data.label]]


def _some(names: Sequence[str]) -> str:
    """A few of many names."""
    listed = ", ".join(f'"{name[:40]}"' for name in names[:3])
    return f"{listed} and {len(names) - 3} more" if len(names) > 3 else listed


def _overlaps(tables: Mapping[str, Table], *, spec: StudySpec, findings: Findings) -> None:
    """Warn of texts that stand in two splits: they make results look better than they are."""
    texts = {
        name: [hash(row) for row in zip(*(table.columns[column] for column in text_columns(spec)), strict=True)]
        for name, table in tables.items()
    }
    repeats = len(texts["train"]) - len(set(texts["train"])) if "train" in texts else 0
    if not isinstance(spec.data.validation, str) and repeats > _FEW_REPEATS * len(texts["train"]):
        findings.warn(
            "data.train",
            f"{repeats:,} of {len(texts['train']):,} rows repeat the text of another one, which may judge what it taught; "
            "remove them, or give a file for data.validation",
        )
    for name, other in (("validation", "train"), ("test", "train"), ("test", "validation")):
        if name in texts and other in texts:
            known = set(texts[other])
            both = sum(text in known for text in texts[name])
            if both:
                findings.warn(
                    f"data.{name}", f"{both:,} of {len(texts[name]):,} rows have a text that is also in data.{other}"
                )


def _facts(
    tables: Mapping[str, Table], *, classes: Mapping[str, int], spec: StudySpec, findings: Findings
) -> DataFacts:
    train = tables["train"]
    rows = len(train)
    validation_rows = len(tables["validation"]) if "validation" in tables else 0
    folds = spec.data.folds
    if folds:
        validation_rows = math.ceil(rows / folds)  # the first fold has the row that is left over
        rows -= validation_rows
        if len(train) < folds:
            findings.refuse(
                "data.validation",
                f"{count_noun(len(train), 'row')} cannot be divided into {folds} folds; ask for fewer",
            )
        elif not spec.confirm.finalists:
            findings.warn(
                "data.validation", f"without a confirmation only one of the {folds} folds judges; take a share"
            )
    if isinstance(spec.data.validation, float):
        # Every class with two rows or more gives at least one row to each side.
        shared = sum(count >= _RARE for count in classes.values())
        validation_rows = min(max(round(rows * spec.data.validation), shared), rows - len(classes))
        rows -= validation_rows
        if not shared:
            findings.refuse("data.validation", "no class has two rows, so none can be split off; name a file")
    if spec.data.train_rows is not None:
        if spec.data.train_rows < len(classes):
            few = f"{count_noun(spec.data.train_rows, 'row')} cannot hold all {len(classes)} classes"
            findings.warn("data.train_rows", f"{few}; one row of each is used")
        elif spec.data.train_rows > rows:
            findings.warn("data.train_rows", f"there are only {rows:,} training rows; all are used")
        rows = min(rows, max(spec.data.train_rows, len(classes)))
    words = [sum(len(train.columns[column][row].split()) for column in text_columns(spec)) for row in range(len(train))]
    cut = sum(count > spec.training.max_length for count in words) / len(train)
    if cut > 0:
        findings.warn(
            "training.max_length", f"at least {cut:.1%} of the texts are cut at {spec.training.max_length} tokens"
        )
    complete = all(len(table) < ROWS_READ for table in tables.values())
    if not complete:
        findings.warn("data.train", f"only the first {ROWS_READ:,} rows of each file were looked at")
    test_rows = len(tables["test"]) if "test" in tables else 0
    held_back_rows = spec.count_held_back(validation_rows)
    return DataFacts(
        train_rows=rows,
        validation_rows=validation_rows - held_back_rows,
        test_rows=test_rows,
        classes=classes,
        cut=cut,
        complete=complete,
        held_back_rows=held_back_rows,
        folds=folds,
    )
