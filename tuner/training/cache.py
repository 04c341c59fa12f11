"""What a runner keeps warm from one trial to the next."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from safetensors import SafetensorError

from tuner.study.sources import is_package, resolve_package

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


class WarmCache:
    """Results of expensive pure functions: tables, tokens, base weights, frozen features.

    A value is a function of its key alone, so a trial in a warm runner equals the same trial in a fresh one bit for bit.
    Whoever takes a value out must not change it.
    """

    def __init__(self, folder: Path | None = None, *, entries: int = 32) -> None:
        """An empty cache.

        Args:
            folder: Where files are kept across runners; None keeps everything in memory only.
            entries: How many values are kept; the one not used for longest goes first.
        """
        self.folder = folder
        self.entries = entries
        self._values: OrderedDict[Hashable, object] = OrderedDict()

    def get(self, key: Hashable, build: Callable[[], T]) -> T:
        """The value of a key, built on first use.

        Args:
            key: Everything the value depends on; its first part names the kind of value.
            build: Makes the value; what it raises is passed on and nothing is kept.
        """
        if key not in self._values:
            self._values[key] = build()
            while len(self._values) > self.entries:
                self._values.popitem(last=False)
        self._values.move_to_end(key)
        value: T = self._values[key]  # type: ignore[assignment]
        return value

    def __len__(self) -> int:
        """How many values are kept."""
        return len(self._values)


def model_key(model: str, revision: str | None) -> tuple[Hashable, ...]:
    """A model as part of a key: a folder with its files' sizes and times of change, so that an edited one is another one.

    Raises:
        DataError: If it is in a package that is not there.
    """
    folder = resolve_package(model) if is_package(model) else Path(model)
    files: list[tuple[str, int, int]] = []
    for file in folder.iterdir() if folder.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            facts = file.stat()
            if stat.S_ISREG(facts.st_mode):
                files.append((file.name, facts.st_size, facts.st_mtime_ns))
    return (model, revision, *sorted(files))


def read_tensors(path: Path) -> dict[str, Tensor] | None:
    """What a file of the cache's folder holds; None if it is absent or damaged, and must be made anew."""
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError):
        return None


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write beside the target, then rename: other runners see the whole file or none."""
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name.partition('-')[0]}-")
    os.close(handle)
    try:
        save_file(dict(tensors), name)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
