"""What the tests of launchers share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.launch.stub import Stub


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    return Stub(tmp_path, monkeypatch)
