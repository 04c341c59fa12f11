"""Every part of a study file that the guide shows is one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.source_tree import ROOT
from tuner import catalogue
from tuner.study.build import build_space
from tuner.study.document import read_document
from tuner.study.domains import Choice
from tuner.study.file import validate_study
from tuner.study.hyperparameters import OPTIMIZER_RATES, SHARED_HYPERPARAMETERS

GUIDE = (ROOT / "docs" / "study-file.md").read_text(encoding="utf-8")
BLOCKS: list[dict[str, Any]] = [
    dict(read_document(text, source="guide").data) for text in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL)
]
WHOLE, *PARTS = BLOCKS


def test_there_is_a_whole_file_first() -> None:
    assert {"name", "task", "model", "data", "objective", "strategies"} <= WHOLE.keys()
    assert len(PARTS) >= 8


@pytest.mark.parametrize("part", [{}, *PARTS], ids=lambda part: "-".join(part) or "whole")
def test_every_block_is_part_of_a_study(part: dict[str, Any], tmp_path: Path) -> None:
    spec = validate_study(WHOLE | part, catalogue=catalogue(), base=tmp_path)
    space = build_space(spec, catalogue=catalogue(), parameters=6.6e7)
    assert space.names == spec.strategy_names
    for name in part.get("space", {}):
        assert any(name in key for block in space.strategies for key in block.domains), name


def test_every_shared_knob_and_choice_is_shown() -> None:
    shown = {name for part in PARTS for name in part.get("space", {})}
    hidden = {"learning_rate_decades"}
    assert {knob.name for knob in SHARED_HYPERPARAMETERS} - hidden <= shown
    for knob in SHARED_HYPERPARAMETERS:
        if isinstance(knob.allowed, Choice):
            assert all(re.search(rf"\b{option}\b", GUIDE) for option in knob.allowed.options), knob.name
    assert all(re.search(rf"\b{name}\b", GUIDE) for name in OPTIMIZER_RATES)
