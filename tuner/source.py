"""Which code this is: the version, and a digest of the source that decides what a trial measures.

Two workers of one version may still differ, by a strategy that somebody edits. Their trials would not be comparable, so that a study
remembers what made it and workers of other code leave it alone; see :mod:`tuner.worker.claiming`.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from importlib import resources
from importlib.metadata import version
from importlib.resources.abc import Traversable

_ROOMS = ("strategies", "study", "tasks", "training")
_DIGITS = 12


@functools.cache
def this_code() -> str:
    """This tuner as ``VERSION/DIGEST``, such as ``0.1.0/3f2a90c1d47e``."""
    return f"{version('tuner')}/{digest_of(resources.files('tuner'))}"


def digest_of(package: Traversable) -> str:
    """A digest of what trains in a package, wherever it lies, in a folder or in an archive."""
    digest = hashlib.sha256()
    for room in _ROOMS:
        for name, file in sorted(_sources(package / room, room)):
            text = file.read_bytes().replace(b"\r\n", b"\n")  # a checkout on Windows is the same code
            digest.update(f"{name}\0{len(text)}\0".encode() + text)
    return digest.hexdigest()[:_DIGITS]


def _sources(folder: Traversable, name: str) -> Iterator[tuple[str, Traversable]]:
    for item in folder.iterdir():
        path = f"{name}/{item.name}"
        if item.is_dir():
            yield from _sources(item, path)
        elif item.name.endswith(".py"):
            yield path, item
