from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.study.samples import CATALOGUE, STUDY, changed, numbered, write_rows
from tuner.errors import UnavailableError
from tuner.study import dataset
from tuner.study.dataset import DataFacts, ReadHub, read_data
from tuner.study.file import parse_study
from tuner.study.ranges import Findings
from tuner.study.sources import HubSource
from tuner.study.table import Table


def read(text: str, base: Path, read_hub: ReadHub | None = None) -> tuple[DataFacts | None, list[str], list[str]]:
    findings = Findings()
    spec = parse_study(text, source="s", base=base, catalogue=CATALOGUE)
    facts = read_data(spec, read_hub=read_hub, findings=findings)
    return facts, [found.message for found in findings.problems], [found.message for found in findings.warnings]


def test_facts_of_a_file_and_a_share(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", numbered("aaaaaabbbb"))
    facts, problems, warnings = read(STUDY, tmp_path)
    assert not problems
    assert not warnings
    assert facts == DataFacts(train_rows=8, validation_rows=2, test_rows=0, classes={"a": 6, "b": 4})


def test_facts_of_three_files(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", numbered("aabb"))
    write_rows(tmp_path / "v.csv", numbered("ab", start=10))
    write_rows(tmp_path / "t.csv", numbered("abb", start=20))
    facts, problems, warnings = read(changed("validation: 0.2", "validation: v.csv\n  test: t.csv"), tmp_path)
    assert not problems
    assert not warnings
    assert facts == DataFacts(train_rows=4, validation_rows=2, test_rows=3, classes={"a": 2, "b": 2})


def test_rows_that_lack_classes_are_told(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", numbered("aabbcc"))
    write_rows(tmp_path / "v.csv", numbered("abc", start=10))
    write_rows(tmp_path / "t.csv", numbered("aaa", start=20))
    _, problems, warnings = read(changed("validation: 0.2", "validation: v.csv\n  test: t.csv"), tmp_path)
    assert not problems
    assert warnings == ['data.test: has no row of 2 of the 3 classes ("b", "c"); its figures say nothing about them']


def test_missing_files_are_all_told(tmp_path: Path) -> None:
    facts, problems, _ = read(changed("validation: 0.2", "validation: v.csv\n  test: t.csv"), tmp_path)
    assert facts is None
    assert [line.split(": ")[0] for line in problems] == ["data.train", "data.validation", "data.test"]
    assert problems[0].endswith("train.csv: cannot be read - no such file on this machine; check the path")


def test_misspelt_column(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", numbered("ab"))
    facts, problems, _ = read(changed("label: label", "label: lable"), tmp_path)
    assert facts is None
    assert problems == [
        f'data.label: {tmp_path}/train.csv:1: no column "lable"; did you mean "label"? (one of text, label)'
    ]


def test_missing_column_of_a_pair_is_told_at_its_place(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", numbered("ab"))
    findings = Findings()
    spec = parse_study(changed("text: text", "text: [text, other]"), source="s", base=tmp_path, catalogue=CATALOGUE)
    assert read_data(spec, read_hub=None, findings=findings) is None
    assert [problem.key for problem in findings.problems] == ["data.text.1"]


def test_no_rows(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", [])
    assert read(STUDY, tmp_path)[1] == [f"data.train: {tmp_path}/train.csv has 0 rows"]


def test_empty_labels_are_counted(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", [("x", "a"), ("y", ""), ("z", "b"), ("w", " ")])
    assert read(STUDY, tmp_path)[1] == [
        f'data.train: {tmp_path}/train.csv: column "label" is empty in 2 of 4 rows (first: line 3); fill or remove them'
    ]


def test_empty_texts_are_a_warning_unless_all_are(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", [*numbered("aabb" * 3), ("", "a")])
    _, problems, warnings = read(STUDY, tmp_path)
    assert not problems
    assert warnings == ['data.train: column "text" is empty in 1 of 13 rows (first: line 14)']
    write_rows(tmp_path / "train.csv", [("", "a"), ("", "b")])
    assert "is empty in all 2 rows" in read(STUDY, tmp_path)[1][0]


def test_one_class(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", numbered("aaaaa"))
    assert 'data.label: all 5 rows have the label "a"; two classes are needed' in read(STUDY, tmp_path)[1]


def test_labels_that_are_numbers_or_ids(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", [(f"t{index}", str(index)) for index in range(50)])
    _, _, warnings = read(STUDY, tmp_path)
    assert "data.label: 50 different labels in 50 rows; is it a number or an id?" in warnings
    assert any(line.startswith('data.label: "0", "1", "2" and 47 more have one row each') for line in warnings)


def test_labels_that_training_never_sees(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", numbered("aaaaabbbbb"))
    write_rows(tmp_path / "t.csv", numbered("abcd", start=20))
    problems = read(changed("validation: 0.2", "validation: 0.2\n  test: t.csv"), tmp_path)[1]
    assert problems == ['data.test: labels "c", "d" are not among the training labels']


def test_small_share_still_has_every_class(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", numbered("abcabcabc"))
    facts, problems, _ = read(STUDY, tmp_path)
    assert not problems
    assert facts is not None
    assert (facts.train_rows, facts.validation_rows) == (6, 3)


def test_nothing_to_split_off(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", numbered("abc"))
    assert read(STUDY, tmp_path)[1] == ["data.validation: no class has two rows, so none can be split off; name a file"]


def test_labels_are_read_without_space_around_them(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", [*numbered("aabb"), ("x", " a"), ("y", "b ")])
    facts, problems, _ = read(STUDY, tmp_path)
    assert not problems
    assert facts is not None
    assert facts.classes == {"a": 3, "b": 3}


def test_rows_in_two_splits(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", numbered("aabb"))
    write_rows(tmp_path / "v.csv", numbered("abb", start=3))
    write_rows(tmp_path / "t.csv", numbered("ab", start=5))
    warnings = read(changed("validation: 0.2", "validation: v.csv\n  test: t.csv"), tmp_path)[2]
    assert warnings == [
        "data.validation: 1 of 3 rows have a text that is also in data.train",
        "data.test: 1 of 2 rows have a text that is also in data.validation",
    ]


@pytest.mark.parametrize("validation", ["0.2", "{folds: 3}"])
def test_rows_that_repeat_may_fall_on_both_sides_of_the_split(validation: str, tmp_path: Path) -> None:
    rows = numbered("aabb" * 10)
    write_rows(tmp_path / "train.csv", [*rows, *rows[:6]])
    said = (
        "data.train: 6 of 46 rows repeat the text of another one, which may judge what it taught; "
        "remove them, or give a file for data.validation"
    )
    assert read(changed("validation: 0.2", f"validation: {validation}"), tmp_path)[2] == [said]
    write_rows(tmp_path / "train.csv", rows)
    assert read(changed("validation: 0.2", f"validation: {validation}"), tmp_path)[2] == []


def test_pairs_overlap_only_if_both_texts_do(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("a,b,label\nx,y,1\nx,z,0\n")
    (tmp_path / "v.csv").write_text("a,b,label\nx,w,1\nx,z,0\n")
    text = changed("text: text", "text: [a, b]").replace("validation: 0.2", "validation: v.csv")
    assert read(text, tmp_path)[2] == ["data.validation: 1 of 2 rows have a text that is also in data.train"]


@pytest.mark.parametrize(
    ("labels", "wanted", "rows", "warning"),
    [
        ("aabbaabbab", 4, 4, []),
        ("aabbaabbab", 100, 8, ["data.train_rows: there are only 8 training rows; all are used"]),
        ("aaaaabbbbbccccc", 2, 3, ["data.train_rows: 2 rows cannot hold all 3 classes; one row of each is used"]),
    ],
)
def test_sample_of_the_rows(labels: str, wanted: int, rows: int, warning: list[str], tmp_path: Path) -> None:
    write_rows(tmp_path / "train.csv", numbered(labels))
    facts, problems, warnings = read(changed("validation: 0.2", f"validation: 0.2\n  train_rows: {wanted}"), tmp_path)
    assert not problems
    assert warnings == warning
    assert facts is not None
    assert facts.train_rows == rows


def test_texts_that_are_cut(tmp_path: Path) -> None:
    write_rows(
        tmp_path / "train.csv",
        [("word " * 200 + str(index), label) for index, label in enumerate("aabb")] + numbered("aabbab"),
    )
    facts, _, warnings = read(STUDY, tmp_path)
    assert facts is not None
    assert facts.cut == pytest.approx(0.4)
    assert warnings == ["training.max_length: at least 40.0% of the texts are cut at 128 tokens"]


def test_only_the_head_of_a_long_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "ROWS_READ", 10)
    write_rows(tmp_path / "train.csv", numbered("aabbabaaaabbbbbb"))
    facts, _, warnings = read(STUDY, tmp_path)
    assert facts is not None
    assert not facts.complete
    assert warnings == ["data.train: only the first 10 rows of each file were looked at"]


def test_hub_data_without_a_reader_is_passed_over(tmp_path: Path) -> None:
    facts, problems, warnings = read(changed("train.csv", "hub://owner/set"), tmp_path)
    assert facts is None
    assert not problems
    assert warnings == ["data.train: hub://owner/set was not opened; the training will read it"]


def test_hub_data_is_read_by_what_is_handed_in(tmp_path: Path) -> None:
    asked: list[tuple[HubSource, Sequence[str], int | None]] = []

    def read_hub(source: HubSource, *, columns: Sequence[str], limit: int | None = None) -> Table:
        asked.append((source, columns, limit))
        cells = numbered("aaabbbabab")
        columns_read = {"text": [text for text, _ in cells], "label": [label for _, label in cells]}
        return Table(source="hub://owner/set", columns=columns_read, lines=range(1, 11))

    facts, problems, _ = read(changed("train.csv", "hub://owner/set?split=all"), tmp_path, read_hub)
    assert not problems
    assert facts is not None
    assert facts.classes == {"a": 5, "b": 5}
    assert asked == [(HubSource(name="owner/set", split="all"), ["text", "label"], dataset.ROWS_READ)]


def test_hub_that_cannot_be_reached(tmp_path: Path) -> None:
    def read_hub(source: HubSource, *, columns: Sequence[str], limit: int | None = None) -> Table:
        raise UnavailableError("the hub cannot be reached", fix="check the network")

    problems = read(changed("train.csv", "hub://owner/set"), tmp_path, read_hub)[1]
    assert problems == ["data.train: the hub cannot be reached; check the network"]
