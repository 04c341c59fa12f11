from __future__ import annotations

import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import s3fs

from tests.object_stores import found, running_store
from tests.source_tree import ROOT
from tuner.errors import ConfigurationError, PlaceError
from tuner.files import disk, remote
from tuner.files.remote import RemoteFolder


def test_what_is_written_is_there_and_what_is_removed_is_not(object_url: str, tmp_path: Path) -> None:
    folder = RemoteFolder(f"{object_url}/with a space")
    assert folder.names() == []
    (tmp_path / "large").write_bytes(content := os.urandom(6_000_000))  # more than one part of an upload
    folder.upload(tmp_path / "large", name="large")
    folder.write("small", b"1")
    folder.below("deep").write("leaf", b"2")
    assert folder.names() == ["deep", "large", "small"]
    folder.download("large", file=tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content
    assert (folder.read("small"), folder.below("deep").read("leaf")) == (b"1", b"2")
    folder.write("small", b"other")
    assert folder.read("small") == b"other"
    folder.remove("small")
    folder.remove("small")
    assert folder.names() == ["deep", "large"]
    folder.clear()
    folder.clear()
    assert folder.names() == []


def test_what_is_not_there_is_not_found(object_url: str, tmp_path: Path) -> None:
    folder = RemoteFolder(object_url)
    with pytest.raises(FileNotFoundError):
        folder.read("nothing")
    with pytest.raises(FileNotFoundError):
        folder.download("nothing", file=tmp_path / "copy")


def test_another_process_sees_at_once_what_is_written(s3_url: str) -> None:
    folder = RemoteFolder(s3_url)
    assert folder.names() == []
    script = f"from tuner.files.remote import RemoteFolder; RemoteFolder({s3_url!r}).write('new', b'1')"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
    assert folder.names() == ["new"]


def test_a_folder_that_can_be_used_is_left_empty(object_url: str) -> None:
    folder = RemoteFolder(object_url)
    folder.check()
    assert folder.names() == []


def test_a_bucket_that_is_not_there_is_a_wrong_setting(s3_url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"s3://no-such-bucket/x cannot be written - .*bucket does not exist"):
        RemoteFolder("s3://no-such-bucket/x").check()


def test_an_unknown_protocol_is_a_wrong_setting() -> None:
    with pytest.raises(ConfigurationError, match=r"s4://bucket/x: s4:// is unknown; use s3://, gs:// or a folder"):
        RemoteFolder("s4://bucket/x")


@pytest.mark.parametrize(("protocol", "package"), [("s3", "s3fs"), ("gs", "gcsfs")])
def test_a_missing_package_is_named_in_one_line(protocol: str, package: str) -> None:
    script = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from tuner.errors import ConfigurationError\n"
        "from tuner.files.remote import RemoteFolder\n"
        f"try: RemoteFolder('{protocol}://bucket/x')\n"
        "except ConfigurationError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        f"{protocol}://bucket/x: nothing that is installed here speaks {protocol}://; pip install {package}"
    ]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave trying again to us."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)


@pytest.mark.usefixtures("impatient")
def test_a_store_that_is_gone_for_a_moment_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_store("s3") as store, found(store):
        folder = RemoteFolder(f"{store.url}/x")
        folder.write("one", b"1")
        store.stop()
        monkeypatch.setattr(remote, "PATIENCE", 0.6)
        with pytest.raises(PlaceError, match=r"x cannot be written - .*; can it be reached from here\?") as caught:
            folder.write("two", b"2")
        assert not caught.value.is_refusal
        assert caught.value.place == folder.url
        monkeypatch.setattr(remote, "PATIENCE", 30.0)
        back = threading.Timer(1.0, store.start)
        back.start()
        folder.write("two", b"2")
        back.join()
        assert folder.read("two") == b"2"


def test_no_room_for_a_download_is_no_fault_of_the_store(object_url: str, tmp_path: Path) -> None:
    folder = RemoteFolder(object_url)
    folder.write("large", bytes(100_000))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    begin = time.monotonic()
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError) as caught:
            folder.download("large", file=tmp_path / "copy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert disk.is_full(caught.value)
    assert time.monotonic() - begin < 10
