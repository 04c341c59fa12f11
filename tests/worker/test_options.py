"""A worker's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuner.errors import UsageError
from tuner.worker.options import WorkerOptions


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lease": 20.0}, "lease 20 s must be at least 3 x heartbeat 15 s; raise --lease or lower --heartbeat"),
        ({"per_device": 0}, "--per-device must be at least 1, got 0"),
        ({"max_trials": 0}, "--max-trials must be at least 1, got 0"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        WorkerOptions(storage="sqlite:///x.db", files=Path("files"), **changes)
    assert str(caught.value) == message
