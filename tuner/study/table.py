"""Rows from a file: CSV, TSV, Orange's .tab, JSON lines or Parquet, with the line of every row.

The same reader serves the check before a study and the training itself, so that what was checked is what is learnt.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuner.errors import DataError, first_line
from tuner.study.names import count_noun, listed, nearest
from tuner.study.sources import is_hub, local_path

FORMATS = (".csv", ".tsv", ".tab", ".jsonl", ".parquet")
"""Endings of files that can be read."""

_CELL_LIMIT = 64 * 1024 * 1024  # characters in one cell; csv's own limit of 128 Ki is too short for whole documents
_ORANGE_TYPES = frozenset({"", "d", "discrete", "c", "continuous", "s", "string", "t", "time", "b", "basket"})


class MissingColumn(DataError):
    """A file does not have a column that was asked for."""

    def __init__(self, what: str, *, column: str) -> None:
        """What is missing where, and the column's name."""
        super().__init__(what)
        self.column = column


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """Rows as columns of text.

    Attributes:
        source: Where the rows are from, as it stands in messages.
        columns: Cells of each column that was asked for, all of the same length; a missing cell is the empty text.
        lines: 1-based line of the file where each row starts; the row's number for files without lines.
    """

    source: str
    columns: Mapping[str, Sequence[str]]
    lines: Sequence[int] = field(default_factory=list)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.lines)

    def require(self, column: str) -> None:
        """Refuse empty cells (nothing but white space) in a column.

        Raises:
            DataError: If a cell is empty; it counts them and names the first line.
        """
        empty = [line for line, cell in zip(self.lines, self.columns[column], strict=True) if not cell.strip()]
        if empty:
            raise DataError(
                f'{self.source}:{empty[0]}: column "{column}" is empty',
                why=f"so are {len(empty) - 1} more of {len(self)} rows" if len(empty) > 1 else "",
                fix="fill the cell or remove the row",
            )


def read_table(source: str, *, columns: Sequence[str], limit: int | None = None) -> Table:
    """The named columns of a file's rows.

    Args:
        source: Path or ``package://`` address; its ending tells the format.
        columns: Which columns, by name.
        limit: Read at most this many rows.

    Returns:
        The rows in the order of the file; numbers and booleans as text.

    Raises:
        DataError: If the file or a column is missing, or a row cannot be read; with the file's line.
    """
    if is_hub(source):
        raise DataError(f'"{source}" is on the hub', why="only files are read here")
    path = local_path(source)
    readers = {
        ".csv": _csv_rows,
        ".tsv": _tsv_rows,
        ".tab": _tab_rows,
        ".jsonl": _jsonl_rows,
        ".parquet": _parquet_rows,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise DataError(f"{source}: files are read by their ending", fix=f"use one of {', '.join(FORMATS)}")
    if not path.is_file():
        why = "it is a folder" if path.is_dir() else "no such file on this machine"
        raise DataError(f"{source}: cannot be read", why=why, fix="check the path")
    wanted = list(dict.fromkeys(columns))
    cells: dict[str, list[str]] = {name: [] for name in wanted}
    lines: list[int] = []
    try:
        for line, row in itertools.islice(reader(path, source, wanted), limit):
            lines.append(line)
            for name in wanted:
                cells[name].append(row[name])
    except OSError as error:
        raise DataError(f"{source}: cannot be read", why=error.strerror or str(error)) from error
    return Table(source=source, columns=cells, lines=lines)


def _text_lines(path: Path, source: str) -> Iterator[str]:
    """The lines of a UTF-8 file, ends kept, a byte order mark dropped."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            data = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 else raw
            try:
                yield data.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{source}:{number}: not UTF-8",
                    why=f"byte 0x{data[error.start]:02x} at column {error.start + 1}",
                    fix="save the file as UTF-8",
                ) from None


def _missing(name: str, *, source: str, known: Sequence[str], used: Sequence[str], line: int) -> MissingColumn:
    near = nearest(name, [column for column in known if column not in used])
    guess = f'; did you mean "{near}"? (one of {listed(known)})' if near else f"; known: {listed(known)}"
    return MissingColumn(f'{source}:{line}: no column "{name}"{guess}', column=name)


_OTHER_SEPARATORS = {
    ";": "save it as CSV with commas",
    "|": "save it as CSV with commas",
    "\t": "let its name end in .tsv",
    ",": "let its name end in .csv",
}


def _separator(names: Sequence[str], *, source: str, line: int, delimiter: str) -> None:
    """Refuse a header that is one cell only because something else separates its cells."""
    for sign, cure in _OTHER_SEPARATORS.items():
        if len(names) == 1 and sign in names[0] and sign != delimiter:
            shown = {"\t": "tabs", ",": "commas"}.get(sign, f'"{sign}"')
            raise DataError(f"{source}:{line}: the cells seem to be separated by {shown}", fix=cure)


_JSON_MISTAKES = {
    "Expecting value": "a value is missing or has no double quotes {at}",
    "Expecting property name": "a name in double quotes is expected {at}",
    "Expecting ',' delimiter": "a comma is missing {at}",
    "Expecting ':' delimiter": "a colon is missing after the name {at}",
    "Extra data": "something stands behind the object {at}; write one object in each line",
    "Unterminated string": "the double quote {at} is not closed",
    "Invalid control character": "a tab or line break stands in the text {at}; write \\t or \\n",
    "Invalid \\escape": "a lone backslash {at}; write two",
}


def _json_mistake(text: str, error: json.JSONDecodeError) -> str:
    """Where a line stops being JSON, and why: in plain words where there are some, else in the parser's."""
    at = f"at column {error.colno}"
    rest = text[error.pos :].strip()
    if not rest:
        return "the line ends within the object"
    if rest.startswith("}") and text[: error.pos].rstrip().endswith(","):
        return f"there is a comma too many before column {error.colno}"
    if rest.startswith("'"):
        return f"single quotes {at}; JSON has double quotes"
    plain = next((words for start, words in _JSON_MISTAKES.items() if error.msg.startswith(start)), error.msg + " {at}")
    return plain.format(at=at)


_Rows = Iterator[tuple[int, Mapping[str, str]]]


def _csv_rows(path: Path, source: str, columns: Sequence[str]) -> _Rows:
    return _separated(path, source, columns, delimiter=",")


def _tsv_rows(path: Path, source: str, columns: Sequence[str]) -> _Rows:
    return _separated(path, source, columns, delimiter="\t")


def _tab_rows(path: Path, source: str, columns: Sequence[str]) -> _Rows:
    """Orange's format: names, types and roles each in a header line; a plain TSV where the second line has no types."""
    lines = _text_lines(path, source)
    next(lines, "")
    types = next(lines, "").rstrip("\r\n").split("\t")
    headers = 3 if any(types) and all(word.strip().lower() in _ORANGE_TYPES for word in types) else 1
    return _separated(path, source, columns, delimiter="\t", headers=headers)


def _separated(path: Path, source: str, columns: Sequence[str], *, delimiter: str, headers: int = 1) -> _Rows:
    csv.field_size_limit(_CELL_LIMIT)
    reader = csv.reader(_text_lines(path, source), delimiter=delimiter, strict=True)
    names: list[str] = []
    places: dict[str, int] = {}
    start, records = 1, 0
    while True:
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            raise DataError(
                f"{source}:{start}: this row cannot be read",
                why=str(error),
                fix='put cells with quotes or line breaks in double quotes, and write " as ""',
            ) from None
        line, start = start, reader.line_num + 1
        if not row and not 0 < records < headers:  # an empty line, but the second and third header may be empty
            continue
        records += 1
        if records == 1:
            names = [name.strip() for name in row]
            places = {name: index for index, name in reversed(list(enumerate(names)))}
            for name in columns:
                if name not in places:
                    _separator(names, source=source, line=line, delimiter=delimiter)
                    raise _missing(name, source=source, known=names, used=columns, line=line)
                if names.count(name) > 1:
                    raise DataError(
                        f'{source}:{line}: column "{name}" is there {names.count(name)} times', fix="rename one"
                    )
        elif records > headers:
            if len(row) != len(names):
                raise DataError(
                    f"{source}:{line}: {count_noun(len(row), 'cell')}, but the header has {len(names)}",
                    fix="put cells that contain the separator in double quotes",
                )
            yield line, {name: row[places[name]] for name in columns}
    if not records:
        raise DataError(f"{source}: the file is empty", fix="write a header line with the names of the columns")


def _jsonl_rows(path: Path, source: str, columns: Sequence[str]) -> _Rows:
    seen = False
    for line, text in enumerate(_text_lines(path, source), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(f"{source}:{line}: not JSON", why=_json_mistake(text, error)) from None
        except (RecursionError, ValueError):
            raise DataError(
                f"{source}:{line}: not JSON that can be read", why="it nests too deeply or has a huge number"
            ) from None
        if not isinstance(row, dict):
            raise DataError(f"{source}:{line}: not a JSON object", fix='write one {"column": value, ...} in each line')
        if not seen:
            for name in columns:
                if name not in row:
                    raise _missing(name, source=source, known=list(row), used=columns, line=line)
        seen = True
        yield line, {name: _cell(row.get(name), source=source, line=line, column=name) for name in columns}
    if not seen:
        raise DataError(f"{source}: the file is empty")


def _parquet_rows(path: Path, source: str, columns: Sequence[str]) -> _Rows:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(path)
        known = file.schema_arrow.names
        for name in columns:
            if name not in known:
                raise _missing(name, source=source, known=known, used=columns, line=1)
        number = 0
        for batch in file.iter_batches(columns=list(columns)):
            for row in batch.to_pylist():
                number += 1
                yield number, {name: _cell(row[name], source=source, line=number, column=name) for name in columns}
    except pa.ArrowException as error:
        raise DataError(f"{source}: not a Parquet file that can be read", why=first_line(error)) from None


def _cell(value: Any, *, source: str, line: int, column: str) -> str:
    """A JSON value as text."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise DataError(
        f'{source}:{line}: column "{column}" holds a {type(value).__name__}',
        why="text, a number or a boolean is needed",
    )
