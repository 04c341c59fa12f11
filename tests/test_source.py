"""Which code a study was made by: any change to what trains changes the digest, and nothing else does."""

from __future__ import annotations

import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.source_tree import PACKAGE, ROOT
from tuner.source import digest_of, this_code


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package's source."""
    ignored = shutil.ignore_patterns("__pycache__")
    return Path(shutil.copytree(ROOT / PACKAGE, tmp_path / PACKAGE, ignore=ignored))


def test_version_and_digest() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+[^/]*/[0-9a-f]{12}", this_code())
    assert len(this_code()) <= 80


def test_a_copy_is_the_same_code(package: Path) -> None:
    assert this_code().endswith(f"/{digest_of(package)}")


def _edit(package: Path) -> None:
    file = package / "strategies" / "lora.py"
    file.write_text(file.read_text(encoding="utf-8") + "\nRATE = 2\n", encoding="utf-8")


def _add(package: Path) -> None:
    (package / "training" / "another.py").write_text("", encoding="utf-8")


def _rename(package: Path) -> None:
    (package / "tasks" / "base.py").rename(package / "tasks" / "basis.py")


@pytest.mark.parametrize("change", [_edit, _add, _rename])
def test_what_trains_counts(package: Path, change: Callable[[Path], None]) -> None:
    before = digest_of(package)
    change(package)
    assert digest_of(package) != before


def test_what_does_not_train_does_not_count(package: Path) -> None:
    before = digest_of(package)
    (package / "cli" / "app.py").write_text("", encoding="utf-8")
    (package / "training" / "__pycache__").mkdir()
    (package / "training" / "__pycache__" / "run.cpython-311.pyc").write_bytes(b"x")
    for file in (package / "study").glob("*.py"):  # as a checkout on Windows has them
        file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert digest_of(package) == before


def test_an_archive_is_read_like_a_folder(package: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "tuner.zip", "w") as archive:
        for file in sorted(package.rglob("*.py")):
            archive.write(file, file.relative_to(package.parent).as_posix())
    with zipfile.ZipFile(tmp_path / "tuner.zip") as archive:
        assert digest_of(zipfile.Path(archive, f"{PACKAGE}/")) == digest_of(package)
