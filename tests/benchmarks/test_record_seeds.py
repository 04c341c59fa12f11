"""The tables of many seeds are what the recorder records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import record_seeds
from benchmarks.honesty import SOURCES
from benchmarks.record_seeds import SUBJECTS, record


def test_the_kept_tables_are_of_all_subjects() -> None:
    with np.load(SOURCES["many"]) as tables:
        assert set(tables.files) == {f"{name}_{what}" for name in SUBJECTS for what in ("scores", "group")}
        assert {tables[f"{name}_scores"].shape for name in SUBJECTS} == {(160, 20)}


@pytest.mark.parametrize("name", ["wine_tree", "cancer_machine"])
def test_a_kept_table_can_be_recorded_again(name: str) -> None:
    again = record(SUBJECTS[name], configurations=4, seeds=2)
    with np.load(SOURCES["many"]) as tables:
        kept = tables[f"{name}_scores"][:4, :2]
    assert np.abs(again - kept).max() < 2.0  # another release may break ties otherwise


def test_a_table_that_is_there_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record_seeds, "SUBJECTS", {"wine_tree": SUBJECTS["wine_tree"]})
    file = tmp_path / "seeds.npz"
    for _ in range(2):
        assert record_seeds.main([str(file), "--configurations", "3", "--seeds", "2"]) == 0
    assert capsys.readouterr().err == "wine_tree: 3 configurations, 2 seeds\n"
    with np.load(file) as tables:
        assert tables["wine_tree_scores"].shape == (3, 2)
