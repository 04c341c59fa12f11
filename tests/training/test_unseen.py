"""What the search cannot see: the test rows, and the validation rows that are held back from it."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path
from typing import Any

import pytest

from tests.training.samples import LABELS, WORDS, Recorder, plan, run, study, write_rows
from tests.training.test_data import load
from tuner.study.plan import TrialResult
from tuner.study.spec import ConfirmSpec, StudySpec

SHARE = {"held_back": 0.25}


def a_study(folder: Path) -> StudySpec:
    """A study whose validation rows are a file of their own; a quarter of them is held back."""
    if not (folder / "validation.csv").exists():
        write_rows(folder / "validation.csv", rows=48, seed=2)
    return study(folder, data={"validation": str(folder / "validation.csv")}, confirm=SHARE, training={"epochs": 2})


def held_back_places(folder: Path) -> list[int]:
    spec = a_study(folder)
    data = load(folder, test=True, data={"validation": spec.data.validation}, confirm=SHARE)
    assert data.held_back is not None
    return data.held_back.chosen.tolist()


def turn(file: Path, places: list[int]) -> None:
    """Let the telling word of the rows at these places tell another class; the labels stay, by which rows are drawn."""
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    for place in places:
        other = WORDS[LABELS[(LABELS.index(rows[place]["label"]) + 1) % len(LABELS)]][0]
        telling = WORDS[rows[place]["label"]]
        rows[place]["text"] = " ".join(other if word in telling else word for word in rows[place]["text"].split())
    with file.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def search(
    folder: Path, name: str, *, finalist: bool = False
) -> tuple[TrialResult, list[tuple[int, dict[str, float]]]]:
    recorder = Recorder()
    result = run(plan(a_study(folder), folder / name, score_test=finalist), report=recorder)
    return result, recorder.curve


def test_the_search_is_blind_to_the_rows_that_judge_the_finalists(tmp_path: Path) -> None:
    """Their texts are turned and the test file is removed: nothing that a search run says changes in its last bit."""
    places = held_back_places(tmp_path)
    before, curve = search(tmp_path, "before")
    assert len(places) == 12
    turn(tmp_path / "validation.csv", places)
    (tmp_path / "test.csv").unlink()
    after, same_curve = search(tmp_path, "after")
    assert same_curve == curve
    assert (after.metrics, after.best_epoch, after.confusion) == (before.metrics, before.best_epoch, before.confusion)
    assert (after.test, after.held_back) == (None, None)


def test_turning_any_row_that_it_does_see_is_felt(tmp_path: Path) -> None:
    """The test above can fail: as many of the other validation rows, turned, change the curve."""
    places = held_back_places(tmp_path)
    _, curve = search(tmp_path, "before")
    turn(tmp_path / "validation.csv", [place for place in range(48) if place not in places][:12])
    assert search(tmp_path, "after")[1] != curve


def test_a_finalist_is_scored_on_both_once_and_chooses_its_epoch_without_them(tmp_path: Path) -> None:
    places = held_back_places(tmp_path)
    result, curve = search(tmp_path, "finalist", finalist=True)
    assert result.test is not None
    assert result.held_back is not None
    assert (len(result.test.truth), len(result.held_back.truth)) == (12, 12)
    assert result.confusion is not None
    assert sum(map(sum, result.confusion.counts)) == 36
    turn(tmp_path / "validation.csv", places)
    turned, same_curve = search(tmp_path, "turned", finalist=True)
    assert same_curve == curve
    assert turned.held_back is not None
    assert turned.test == result.test
    assert turned.held_back.truth == result.held_back.truth
    assert turned.held_back.metrics["loss"] != result.held_back.metrics["loss"]


@pytest.mark.parametrize("metric", ["loss", "auc", "macro_f1"])
def test_what_each_row_contributes_is_kept_where_classes_do_not_tell_it(tmp_path: Path, metric: str) -> None:
    spec = study(
        tmp_path, data={"validation": 0.4}, confirm=SHARE, training={"epochs": 1}, objective={"metric": metric}
    )
    result = run(plan(spec, tmp_path / "run", score_test=True))
    assert result.test is not None
    assert result.held_back is not None
    for score in (result.test, result.held_back):
        if metric == "macro_f1":
            assert score.by_row == ()
        else:
            assert len(score.by_row) == len(score.truth)
            assert statistics.fmean(score.by_row) == pytest.approx(score.metrics[metric], abs=1e-3)


def test_rows_that_are_held_back_are_no_others_whoever_asks(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"data": {"validation": 0.4}, "confirm": SHARE}
    seen, all_of_it = load(tmp_path, **changes), load(tmp_path, test=True, **changes)
    assert seen.held_back is None
    assert all_of_it.held_back is not None
    held = set(all_of_it.held_back.chosen.tolist())
    for data in (seen, all_of_it):
        assert not held & set(data.train.chosen.tolist())
        assert not held & set(data.validation.chosen.tolist())
        assert len(data.train) + len(data.validation) + len(held) == 60
    assert seen.fingerprint() == all_of_it.fingerprint()


@pytest.mark.parametrize(
    ("confirm", "rows", "held"),
    [
        ({}, 599, 0),
        ({}, 600, 200),
        ({}, 9000, 3000),
        ({"finalists": 0}, 9000, 0),
        ({"held_back": 0.5}, 10, 5),
        ({"held_back": 0.9}, 1, 0),
        ({"held_back": 0.0}, 9000, 0),
    ],
)
def test_few_rows_are_not_split(confirm: dict[str, float], rows: int, held: int) -> None:
    assert ConfirmSpec.model_validate(confirm).count_held_back(rows) == held
