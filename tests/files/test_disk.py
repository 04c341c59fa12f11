from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from tuner.files.disk import free_bytes, is_full


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_no_room_is_told_by_its_number(number: int) -> None:
    assert is_full(OSError(number, os.strerror(number)))


def test_a_disk_that_is_full_says_so() -> None:
    with pytest.raises(OSError) as caught, Path("/dev/full").open("wb") as full:
        full.write(b"x")
    assert is_full(caught.value)


def test_no_room_is_told_by_the_words_of_others(tmp_path: Path) -> None:
    assert is_full(ValueError("Error while serializing: I/O error: No space left on device (os error 28)"))
    assert is_full(shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")]))
    wrapped = RuntimeError("cannot write")
    wrapped.__cause__ = OSError(errno.ENOSPC, "full")
    assert is_full(wrapped)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), ValueError("(os error 5)"), KeyError(28)])
def test_other_errors_are_not_about_room(error: Exception) -> None:
    assert not is_full(error)


def test_the_room_below_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    facts = os.statvfs(tmp_path)
    assert 0 < free_bytes(tmp_path / "a" / "b") <= facts.f_blocks * facts.f_frsize
