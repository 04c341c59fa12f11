from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from tuner.errors import DataError
from tuner.study.table import Table, read_table

BOTH = ("text", "label")


def write(folder: Path, name: str, content: str | bytes) -> str:
    file = folder / name
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(file)


def rows(table: Table) -> list[tuple[str, str]]:
    return list(zip(table.columns["text"], table.columns["label"], strict=True))


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("a.csv", "text,label\ngood,pos\nbad,neg\n", [2, 3]),
        ("a.csv", "label,more,text\r\npos,1,good\r\nneg,2,bad\r\n", [2, 3]),
        ("a.CSV", b"\xef\xbb\xbftext,label\ngood,pos\n\nbad,neg", [2, 4]),
        ("a.csv", 'text,label\n"good",pos\n"bad",neg\n', [2, 3]),
        ("a.csv", " text , label\ngood,pos\nbad,neg\n", [2, 3]),
        ("a.tsv", "text\tlabel\ngood\tpos\nbad\tneg\n", [2, 3]),
        ("a.tab", "text\tlabel\ngood\tpos\nbad\tneg\n", [2, 3]),
        ("a.tab", "label\ttext\nd\tstring\nclass\tmeta\npos\tgood\nneg\tbad\n", [4, 5]),
        ("a.tab", "label\ttext\ndiscrete\ts\n\n\npos\tgood\nneg\tbad\n", [5, 6]),
        ("a.jsonl", '{"text": "good", "label": "pos", "x": [1]}\n\n{"label": "neg", "text": "bad"}\n', [1, 3]),
    ],
)
def test_formats(name: str, content: str | bytes, lines: list[int], tmp_path: Path) -> None:
    table = read_table(write(tmp_path, name, content), columns=BOTH)
    assert rows(table) == [("good", "pos"), ("bad", "neg")]
    assert list(table.lines) == lines
    assert len(table) == 2


def test_parquet(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": ["good", None], "label": [1, 0], "more": [0.5, 0.5]}), file)
    table = read_table(str(file), columns=BOTH)
    assert rows(table) == [("good", "1"), ("", "0")]
    assert list(table.lines) == [1, 2]


def test_values_of_json_become_text(tmp_path: Path) -> None:
    content = '{"text": 1.5, "label": true}\n{"text": null, "label": 3}\n{"label": "x"}\n'
    assert rows(read_table(write(tmp_path, "a.jsonl", content), columns=BOTH)) == [
        ("1.5", "true"),
        ("", "3"),
        ("", "x"),
    ]


def test_cells_over_several_lines_keep_the_count(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "a.csv", 'text,label\n"two\nlines, one ""cell""",pos\nlast,neg\n'), columns=BOTH)
    assert rows(table)[0] == ('two\nlines, one "cell"', "pos")
    assert list(table.lines) == [2, 4]


def test_long_cells(tmp_path: Path) -> None:
    assert (
        len(read_table(write(tmp_path, "a.csv", f"text\n{'x' * 500_000}\n"), columns=["text"]).columns["text"][0])
        == 500_000
    )


def test_limit_reads_the_head_only(tmp_path: Path) -> None:
    file = write(tmp_path, "a.csv", b"text,label\na,b\nc,d\n\xff\n")
    assert rows(read_table(file, columns=BOTH, limit=2)) == [("a", "b"), ("c", "d")]


def test_a_column_twice_in_the_request(tmp_path: Path) -> None:
    assert read_table(write(tmp_path, "a.csv", "text\na\n"), columns=["text", "text"]).columns == {"text": ["a"]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", ": the file is empty; write a header line with the names of the columns"),
        ("a.csv", "text,lable\na,b\n", ':1: no column "label"; did you mean "lable"? (one of text, lable)'),
        ("a.csv", "text,target\na,b\n", ':1: no column "label"; known: text, target'),
        ("a.csv", "text,label,label\na,b,c\n", ':1: column "label" is there 2 times; rename one'),
        ("a.csv", "text,label\na,b\na\n", ":3: 1 cell, but the header has 2; put cells that contain the separator in double quotes"),
        ("a.csv", "text,label\na, b,c\n", ":2: 3 cells, but the header has 2; put cells that contain the separator in double quotes"),
        ("a.csv", b"text,label\na,b\nc\xe9,d\n", ":3: not UTF-8 - byte 0xe9 at column 2; save the file as UTF-8"),
        ("a.csv", "text,label\n".encode("utf-16"), ":1: not UTF-8 - byte 0xff at column 1; save the file as UTF-8"),
        ("a.csv", 'text,label\n"a,b\n', ":2: this row cannot be read - unexpected end of data; put cells with quotes or line "
         'breaks in double quotes, and write " as ""'),
        ("a.jsonl", "", ": the file is empty"),
        ("a.jsonl", '{"text": "a", "label": "b"}\n{"text": "a" "label"}\n', ":2: not JSON - a comma is missing at column 14"),
        ("a.jsonl", '{"text": oops}\n', ":1: not JSON - a value is missing or has no double quotes at column 10"),
        ("a.jsonl", "{'text': 1}\n", ":1: not JSON - single quotes at column 2; JSON has double quotes"),
        ("a.jsonl", '{"text": 1,}\n', ":1: not JSON - there is a comma too many before column 12"),
        ("a.jsonl", '{"text": 1\n', ":1: not JSON - the line ends within the object"),
        ("a.jsonl", '{"text": "\\d"}\n', ":1: not JSON - a lone backslash at column 11; write two"),
        ("a.csv", "text;label\na;b\n", ':1: the cells seem to be separated by ";"; save it as CSV with commas'),
        ("a.csv", "text\tlabel\na\tb\n", ":1: the cells seem to be separated by tabs; let its name end in .tsv"),
        ("a.tsv", "text,label\na,b\n", ":1: the cells seem to be separated by commas; let its name end in .csv"),
        ("a.jsonl", "[1]\n", ':1: not a JSON object; write one {"column": value, ...} in each line'),
        ("a.jsonl", '{"text": "a"}\n', ':1: no column "label"; known: text'),
        ("a.jsonl", '{"text": ["a"], "label": 1}\n', ':1: column "text" holds a list - text, a number or a boolean is needed'),
        ("a.jsonl", "[" * 100_000 + "\n", ":1: not JSON that can be read - it nests too deeply or has a huge number"),
        ("a.parquet", "no parquet", ": not a Parquet file that can be read"),
        ("a.xlsx", "x", ": files are read by their ending; use one of .csv, .tsv, .tab, .jsonl, .parquet"),
    ],
)  # fmt: skip
def test_bad_files_name_the_line(name: str, content: str | bytes, message: str, tmp_path: Path) -> None:
    file = write(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        read_table(file, columns=BOTH)
    assert caught.value.message.startswith(file + message)
    assert "\n" not in caught.value.message


def test_column_in_use_is_not_suggested(tmp_path: Path) -> None:
    file = write(tmp_path, "a.csv", "text,label\na,b\n")
    with pytest.raises(DataError) as caught:
        read_table(file, columns=["text", "texts"])
    assert caught.value.message == f'{file}:1: no column "texts"; known: text, label'


def test_parquet_without_the_column(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match='no column "label"; known: text'):
        read_table(str(tmp_path / "a.parquet"), columns=BOTH)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a.csv: cannot be read - no such file on this machine; check the path"):
        read_table(str(tmp_path / "a.csv"), columns=BOTH)


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.csv").mkdir()
    with pytest.raises(DataError, match="cannot be read - it is a folder"):
        read_table(str(tmp_path / "a.csv"), columns=BOTH)


def test_file_that_fails_while_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.symlink_to("/proc/self/mem")  # its first bytes are never mapped
    with pytest.raises(DataError, match=r"a.csv: cannot be read - Input/output error"):
        read_table(str(file), columns=BOTH)


def test_hub_is_not_read_here() -> None:
    with pytest.raises(DataError, match="only files are read here"):
        read_table("hub://owner/set", columns=BOTH)


def test_empty_cells_are_counted_and_the_first_is_named(tmp_path: Path) -> None:
    table = read_table(write(tmp_path, "a.csv", "text,label\na,b\nc,\nd, \n"), columns=BOTH)
    table.require("text")
    with pytest.raises(DataError, match=r'a.csv:3: column "label" is empty - so are 1 more of 3 rows; fill the cell'):
        table.require("label")
