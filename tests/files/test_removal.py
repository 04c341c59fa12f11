from __future__ import annotations

from pathlib import Path

from tuner.files.remote import RemoteFolder
from tuner.files.removal import remove_below


def test_all_folders_but_the_one_that_holds_what_is_kept_are_removed(tmp_path: Path) -> None:
    for name in ("attempt-1", "attempt-2", "attempt-21"):
        (tmp_path / name / "final").mkdir(parents=True)
    remove_below(str(tmp_path), kept=str(tmp_path / "attempt-2" / "final"))
    assert [path.name for path in tmp_path.iterdir()] == ["attempt-2"]
    remove_below(str(tmp_path), kept="")
    assert list(tmp_path.iterdir()) == []
    remove_below(str(tmp_path / "nowhere"), kept="")
    assert not (tmp_path / "nowhere").exists()


def test_in_an_object_store_too(object_url: str) -> None:
    root = RemoteFolder(object_url)
    for name in ("attempt-1", "attempt-2", "attempt-21"):
        root.below(name).below("final").write("manifest.json", b"{}")
    remove_below(object_url, kept=f"{object_url}/attempt-2/final")
    assert root.names() == ["attempt-2"]
    remove_below(object_url, kept="")
    assert root.names() == []
    remove_below(object_url, kept="")
    assert root.names() == []
