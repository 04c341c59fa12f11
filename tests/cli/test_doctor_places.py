from __future__ import annotations

from pathlib import Path

import pytest

from tuner.cli.checkup.finding import Level
from tuner.cli.checkup.places import check_checkpoints


def test_without_a_place_of_its_own_there_is_nothing_to_say() -> None:
    assert list(check_checkpoints()) == []


def test_an_object_store_is_tried(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_CHECKPOINTS", s3_url)
    (found,) = check_checkpoints()
    assert (found.level, found.text) == (Level.OK, f"{s3_url} takes what is written to it")
    monkeypatch.setenv("TUNER_CHECKPOINTS", "s3://no-such-bucket/x")
    (found,) = check_checkpoints()
    assert (found.level, found.status) == (Level.FAIL, 78)
    assert found.text.startswith("s3://no-such-bucket/x cannot be written - ")
    assert found.fix


def test_a_folder_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_CHECKPOINTS", str(tmp_path / "kept"))
    (found,) = check_checkpoints()
    assert found.name == "checkpoints" and f"free for checkpoints in {tmp_path / 'kept'}" in found.text


def test_a_place_with_a_password_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNER_CHECKPOINTS", "sftp://me:s3cret@host/x")
    (found,) = check_checkpoints()
    assert (found.level, found.status) == (Level.FAIL, 78)
    assert "s3cret" not in found.text + found.fix
