from __future__ import annotations

from pathlib import Path

import pytest

from tuner.errors import ConfigurationError
from tuner.files.place import is_url, join, parse_place


def test_a_folder_is_an_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse_place("here") == str(tmp_path / "here")
    assert parse_place("~/there") == str(tmp_path / "there")
    assert parse_place("file:///a%20b/c") == "/a b/c"
    assert not is_url(parse_place("file:///a"))


def test_a_url_is_kept_without_its_last_slash() -> None:
    assert parse_place("s3://bucket/tuner/") == "s3://bucket/tuner"
    assert is_url("gs://bucket")
    assert join("s3://bucket/", "a", "b") == "s3://bucket/a/b"
    assert join("/files", "a") == "/files/a"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("sftp://me:s3cret@host/folder", "holds a password"),
        ("s3://bucket/x?versionId=1", "not the URL of a folder"),
        ("s3://bucket/x?secret=s3cret", "not the URL of a folder"),
        ("simplecache::s3://bucket/x", "not the URL of a folder"),
        ("s3://", "names no bucket"),
        ("memory://tuner", "memory:// is gone with the process"),
        ("s3://[bucket", "not a URL"),
    ],
)
def test_what_is_no_place_is_refused_and_no_password_repeated(text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        parse_place(text)
    assert "s3cret" not in caught.value.message
