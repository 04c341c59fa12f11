from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.source_tree import ROOT
from tuner.errors import ConfigurationError, UnavailableError
from tuner.files.remote import RemoteFolder
from tuner.worker.events import Event
from tuner.worker.shelf import Shelf


def ignore(_: Event) -> None:
    """Nobody watches."""


def test_a_folder_needs_nothing_else(tmp_path: Path) -> None:
    shelf = Shelf(str(tmp_path / "kept"), files=tmp_path, worker="w", show=ignore)
    shelf.open()
    place = shelf.run_place("study", run="trial-3")
    assert (place, shelf.scratch_of("key")) == (str(tmp_path / "kept" / "study" / "trial-3"), "")
    for number in (1, 2, 10, 11):
        Path(place, f"attempt-{number}", "final").mkdir(parents=True)
    shelf.clear(place, kept=f"{place}/attempt-2/final", newest=10)
    assert sorted(path.name for path in Path(place).iterdir()) == ["attempt-11", "attempt-2"]
    shelf.close()
    assert not (tmp_path / "scratch").exists()


def test_in_a_store_what_is_over_is_removed_meanwhile(s3_url: str, tmp_path: Path) -> None:
    shelf = Shelf(s3_url, files=tmp_path, worker="w", show=ignore)
    shelf.open()
    place = shelf.run_place("study", run="trial-3")
    for number in (1, 2, 4):
        RemoteFolder(f"{place}/attempt-{number}/final").write("manifest.json", b"{}")
    scratch = Path(shelf.scratch_of("key"))
    scratch.mkdir()
    shelf.clear(place, kept=f"{place}/attempt-2/final", newest=3)
    shelf.left("key")
    assert not scratch.exists()
    shelf.close()
    assert RemoteFolder(place).names() == ["attempt-2", "attempt-4"]
    assert list((tmp_path / "scratch").iterdir()) == []


def test_what_dead_workers_left_is_cleared_and_what_living_ones_have_is_not(s3_url: str, tmp_path: Path) -> None:
    living = Shelf(s3_url, files=tmp_path, worker="living", show=ignore)
    living.open()
    script = (
        "import os\nfrom pathlib import Path\nfrom tuner.worker.shelf import Shelf\n"
        f"shelf = Shelf({s3_url!r}, files=Path({str(tmp_path)!r}), worker='dead', show=print)\n"
        "shelf.open()\nPath(shelf.scratch_of('key')).mkdir()\nos._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 9
    assert (tmp_path / "scratch" / "dead" / "key").is_dir()
    new = Shelf(s3_url, files=tmp_path, worker="new", show=ignore)
    new.open()
    assert sorted(path.name for path in (tmp_path / "scratch").iterdir()) == ["living", "new"]
    living.close()
    new.close()


def test_a_store_that_refuses_is_told_before_anything_is_claimed(s3_url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="s3://no-such-bucket cannot be written"):
        Shelf("s3://no-such-bucket", files=tmp_path, worker="w", show=ignore).open()
    with pytest.raises(ConfigurationError, match="s4:// is unknown"):
        Shelf("s4://bucket", files=tmp_path, worker="w", show=ignore).open()


def test_a_folder_for_files_that_is_none_is_one_line(s3_url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match=r"cannot use .*/file/scratch/w - Not a directory"):
        Shelf(s3_url, files=tmp_path / "file", worker="w", show=ignore).open()


def test_closing_does_not_wait_for_a_store_that_does_not_answer(
    s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuner.worker.shelf._CLOSE_SECONDS", 0.2)
    monkeypatch.setattr("tuner.worker.shelf.remove_below", lambda *_, **__: time.sleep(2))
    shelf = Shelf(s3_url, files=tmp_path, worker="w", show=ignore)
    shelf.open()
    shelf.clear(f"{s3_url}/run", kept="", newest=1)
    begin = time.monotonic()
    shelf.close()
    assert time.monotonic() - begin < 1.5
