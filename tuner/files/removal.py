"""What nobody needs any more, in folders and in object stores."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from tuner.files.place import is_url, join
from tuner.files.remote import RemoteFolder

HIDDEN = ".removing-"
"""What the name of a folder begins with that is on its way out."""


def remove_below(place: str, *, kept: str, spared: Callable[[str], bool] = lambda _: False) -> None:
    """Remove the folders of a place, but the one that is, or holds, another place.

    Args:
        place: Absent is as good as empty.
        kept: Empty if nothing is to be kept.
        spared: Says of a folder's name that it is no business of ours.

    Raises:
        PlaceError: If an object store cannot be reached or refuses.
    """
    if is_url(place):
        folder = RemoteFolder(place)
        for name in _not_holding(folder.names(), place=place, kept=kept):
            if not spared(name):
                folder.below(name).clear()
        return
    root = Path(place)
    names = [entry.name for entry in root.iterdir() if entry.is_dir()] if root.is_dir() else []
    for name in _not_holding(names, place=place, kept=kept):
        if spared(name):
            continue
        hidden = root / f"{HIDDEN}{name.removeprefix(HIDDEN)}"
        with contextlib.suppress(OSError):  # whoever is killed here leaves no checkpoint of which a part is gone
            (root / name).rename(hidden)
        shutil.rmtree(hidden if hidden.exists() else root / name, ignore_errors=True)


def _not_holding(names: Sequence[str], *, place: str, kept: str) -> list[str]:
    return [name for name in names if kept != join(place, name) and not kept.startswith(join(place, name, ""))]
