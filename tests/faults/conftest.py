"""What all tests of faults share."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _processes_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is killed tells nothing of its coverage, and measuring it costs a quarter of its start."""
    monkeypatch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)
