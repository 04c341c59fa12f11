"""The guide to the strategies is what the registry and the matrix say now."""

from __future__ import annotations

import re

from tests.contract.strategy_guide import FILE, guide
from tuner.strategies import STRATEGIES


def test_the_guide_is_up_to_date() -> None:
    assert FILE.read_text(encoding="utf-8") == guide(), "say: make docs"


def test_every_strategy_has_its_section() -> None:
    assert re.findall(r"^### (\w+)$", FILE.read_text(encoding="utf-8"), re.MULTILINE) == list(STRATEGIES)
