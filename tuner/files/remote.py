"""A folder in an object store, through fsspec: what a checkpoint needs of it, with errors that say what to do.

Object stores know no folders and no rename: a folder is there as long as something is in it, and what must be whole or absent
needs a file that is written last and removed first.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tuner.errors import ConfigurationError, PlaceError
from tuner.files import disk
from tuner.files.place import join

Result = TypeVar("Result")

PATIENCE = 30.0
"""Seconds for which a store that does not answer is asked again."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
# What the vendors' own errors are called that asking again does not change.
_REFUSALS = frozenset({"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "DefaultCredentialsError"})


def nothing() -> None:
    """Nobody wants to know."""


class RemoteFolder:
    """A folder in an object store; nothing is asked of the store before it is needed."""

    def __init__(self, url: str, *, moves: Callable[[], object] = nothing) -> None:
        """The folder of a URL; see :func:`tuner.files.place.parse_place`.

        Args:
            url: Of the folder.
            moves: Called now and then while something is copied or waited for, perhaps in another thread.

        Raises:
            ConfigurationError: If nothing is installed that speaks its protocol.
        """
        self.url = url
        self._moves = moves
        self._files, self._path = _open(url)

    def below(self, name: str) -> RemoteFolder:
        """A folder in this one."""
        return RemoteFolder(join(self.url, name), moves=self._moves)

    def names(self) -> list[str]:
        """What is directly in it, sorted; nothing if it is not there."""

        def _list() -> list[str]:
            self._files.invalidate_cache()
            found = self._files.ls(self._path, detail=False)
            return sorted({str(entry).rstrip("/").rpartition("/")[2] for entry in found} - {""})

        try:
            return self._ask(_list, "listed")
        except FileNotFoundError:
            return []

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: If it is not there.
        """
        return bytes(self._ask(lambda: self._files.cat_file(self._at(name)), "read"))

    def write(self, name: str, content: bytes) -> None:
        """A file with this content."""
        self._ask(lambda: self._files.pipe_file(self._at(name), content), "written")

    def upload(self, file: Path, *, name: str) -> None:
        """A copy of a local file, as long as that one.

        Raises:
            OSError: If the local file cannot be read.
        """
        size = file.stat().st_size

        def _put() -> None:
            self._files.put_file(str(file), self._at(name), callback=_progress(self._moves))
            self._files.invalidate_cache()
            arrived = self._files.info(self._at(name))["size"]
            if arrived != size:
                raise ConnectionError(f"{arrived} of {size} bytes arrived")

        self._ask(_put, "written")

    def download(self, name: str, *, file: Path) -> None:
        """A local copy of a file.

        Raises:
            FileNotFoundError: If it is not there.
            OSError: If the local file cannot be written.
        """
        callback = _progress(self._moves)
        self._ask(lambda: self._files.get_file(self._at(name), str(file), callback=callback), "read")

    def remove(self, name: str) -> None:
        """Remove a file; it may be gone."""
        with contextlib.suppress(FileNotFoundError):
            self._ask(lambda: self._files.rm_file(self._at(name)), "removed")

    def clear(self) -> None:
        """Remove all that is in it."""

        def _remove() -> None:
            self._files.invalidate_cache()
            self._files.rm(self._path, recursive=True)

        with contextlib.suppress(FileNotFoundError):
            self._ask(_remove, "removed")

    def check(self) -> None:
        """Write a file, read it and remove it.

        Raises:
            ConfigurationError: If the store refuses; it would refuse every checkpoint.
        """
        name = f".tuner-{uuid.uuid4().hex}"
        try:
            self.write(name, b"tuner")
            self.read(name)
            self.remove(name)
        except PlaceError as error:
            if error.is_refusal:
                raise ConfigurationError(error.what, why=error.why, fix=error.fix) from error
            raise
        except FileNotFoundError as error:
            raise ConfigurationError(f"{self.url} does not keep what is written to it") from error

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}"

    def _ask(self, act: Callable[[], Result], done: str) -> Result:
        """Do it, again and again while the store does not answer.

        Raises:
            PlaceError: If it never does, or refuses.
            FileNotFoundError: If there is no such file.
            OSError: If a disk here is full.
        """
        pause, deadline = _FIRST_PAUSE, time.monotonic() + PATIENCE
        while True:
            try:
                return act()
            except FileNotFoundError as error:
                if done != "written":
                    raise
                raise self._error(error, done, is_refusal=True) from error  # such as a bucket that is not there
            except Exception as error:
                if disk.is_full(error):
                    raise
                is_refusal = _is_refusal(error)
                if is_refusal or time.monotonic() + pause > deadline:
                    raise self._error(error, done, is_refusal=is_refusal) from error
            self._moves()
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _error(self, error: Exception, done: str, *, is_refusal: bool) -> PlaceError:
        lines = str(error).strip().splitlines()
        return PlaceError(
            f"{self.url} cannot be {done}",
            why=lines[0][:300] if lines else type(error).__name__,
            fix="look at the credentials and the bucket's policy" if is_refusal else "can it be reached from here?",
            place=self.url,
            is_refusal=is_refusal,
        )


def _is_refusal(error: Exception) -> bool:
    if isinstance(error, PermissionError | NotImplementedError) or type(error).__name__ in _REFUSALS:
        return True
    return getattr(error, "code", None) in {401, 403} or str(error).startswith("Forbidden")  # gcsfs


def _progress(moves: Callable[[], object]) -> Any:
    """What fsspec tells of every part that it has copied."""
    from fsspec.callbacks import Callback

    return Callback(hooks={"moves": lambda *_, **__: moves()})


def _open(url: str) -> tuple[Any, str]:
    """The file system of a URL, by fsspec, and the path in it."""
    import fsspec.core

    protocol = url.partition("://")[0]
    try:
        files, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        package = _PACKAGES.get(protocol)
        raise ConfigurationError(
            f"{url}: nothing that is installed here speaks {protocol}://",
            why="" if package else str(error),
            fix=f"pip install {package}" if package else "",
        ) from error
    except ValueError as error:
        raise ConfigurationError(f"{url}: {protocol}:// is unknown", fix="use s3://, gs:// or a folder") from error
    return files, str(path).rstrip("/")
