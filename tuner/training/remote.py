"""Checkpoints in an object store: written in a local folder first, then copied there, the manifest last.

An object store has no rename. A checkpoint there begins to exist with its manifest, which is written last and removed first, so
that none is ever seen in part; whoever goes on from one has a copy whose files are those of the manifest.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tuner.errors import PlaceError
from tuner.files.place import is_url, join
from tuner.files.remote import RemoteFolder, nothing
from tuner.study.plan import TrialPlan
from tuner.training.checkpoint import (
    FINAL,
    TRIES,
    Checkpoint,
    Checkpoints,
    NoCheckpoints,
    check_identity,
    is_checkpoint,
    open_checkpoint,
    progress,
    skipped_line,
)
from tuner.training.sealed import MANIFEST, publish, temporary

_DAMAGED = "damaged.json"
"""What stands in the place of the manifest of a checkpoint that nobody shall go on from."""

_log = logging.getLogger(__name__)


def checkpoints_of(plan: TrialPlan, *, moves: Callable[[], object] = nothing) -> Checkpoints:
    """Where a run keeps its checkpoints.

    Args:
        plan: The run.
        moves: Called now and then while something is copied over the network.

    Raises:
        ConfigurationError: If nothing is installed that speaks to their object store.
    """
    if is_url(plan.checkpoint_dir):
        return RemoteCheckpoints(plan.checkpoint_dir, scratch=Path(plan.scratch), moves=moves)
    if not plan.checkpoint_dir:
        return NoCheckpoints()
    return Checkpoints(Path(plan.checkpoint_dir))


@contextlib.contextmanager
def kept_checkpoint(place: str) -> Iterator[Checkpoint]:
    """The checkpoint that a run has kept, as long as it is looked at.

    Raises:
        ValueError: If it is damaged.
        OSError: If it is not there, or cannot be read.
        PlaceError: If its object store cannot be reached.
    """
    if not is_url(place):
        yield open_checkpoint(Path(place))
        return
    with tempfile.TemporaryDirectory(prefix="tuner-") as folder:
        copy = Path(folder, "checkpoint")
        _download(RemoteFolder(place), copy)
        yield open_checkpoint(copy)


class RemoteCheckpoints(Checkpoints):
    """The checkpoints of one attempt in an object store; those here are copies that make it quicker."""

    def __init__(self, url: str, *, scratch: Path, moves: Callable[[], object] = nothing) -> None:
        """The checkpoints below a URL.

        Args:
            url: Of the attempt; nobody else writes there.
            scratch: Local folder of the attempt.
            moves: As for :func:`checkpoints_of`.

        Raises:
            ConfigurationError: If nothing is installed that speaks to the object store.
        """
        super().__init__(scratch)
        self._url = url
        self._moves = moves
        self._remote = RemoteFolder(url, moves=moves)

    def place_of(self, path: Path) -> str:
        """Where others find what is in a folder."""
        return join(self._url, path.name)

    def adopt_newest(self, earlier: Sequence[str | Path], *, identity: str) -> tuple[Checkpoint | None, list[str]]:
        """As the method of local checkpoints; folders of earlier attempts are URLs.

        Raises:
            PlaceError: If the object store cannot be reached, or there is no room for a copy.
        """
        skipped: list[str] = []
        before: list[tuple[str, str]] | None = None
        for _ in range(TRIES):
            found = [
                (url, name)
                for url in (self._url, *map(str, earlier))
                for name in RemoteFolder(url, moves=self._moves).names()
                if is_checkpoint(name)
            ]
            found.sort(key=lambda entry: progress(entry[1]), reverse=True)  # stable: the newest attempt first
            if found == before:
                break
            before = [*found]
            for url, name in found:
                try:
                    return self._take(url, name, identity=identity), skipped
                except FileNotFoundError:
                    continue  # it was never whole, or an attempt that is alive after all has removed it
                except (ValueError, KeyError, TypeError, AttributeError) as error:
                    skipped.append(skipped_line(f"{url.rpartition('/')[2]}/{name}", error))
                    _log.warning("%s", skipped[-1])
        return None, skipped

    def clear(self) -> None:
        """Remove all: the run was pruned or cannot go on."""
        super().clear()
        try:
            self._remote.clear()
        except PlaceError as error:  # why the run ends matters more
            _log.warning("%s", error)

    def close(self) -> None:
        """Remove the local copies."""
        super().clear()

    def _publish(self, written: Path, path: Path) -> None:
        super()._publish(written, path)
        self._upload(path)

    def _keep(self, paths: set[Path]) -> None:
        super()._keep(paths)
        names = {path.name for path in paths}
        for name in self._remote.names():
            if name not in names and is_checkpoint(name):
                self._remove(name)

    def _upload(self, path: Path) -> None:
        folder = self._remote.below(path.name)
        for file in sorted(path.iterdir(), key=lambda file: file.name == MANIFEST):
            folder.upload(file, name=file.name)

    def _remove(self, name: str) -> None:
        try:
            self._remote.below(name).remove(MANIFEST)
            self._remote.below(name).clear()
        except PlaceError as error:  # it takes room until the run is over, that is all
            _log.warning("%s", error)

    def _take(self, url: str, name: str, *, identity: str) -> Checkpoint:
        """Copy a checkpoint and its best one here, checked, and to this attempt's own URL.

        Raises:
            ValueError: If one of them is damaged, or of another run.
            FileNotFoundError: If one of them is not there.
        """
        last = self._fetch(url, name)
        check_identity(last, identity)
        fetched = {name: last}
        best = name if name == FINAL else last.best_path.name
        if best != name:
            fetched = {best: self._fetch(url, best), name: last}
        # Without its best one the last one is worth nothing: it is published after it.
        for each, copy in fetched.items():
            if url == self._url:
                publish(copy.path, self.folder / each)
            else:
                self._publish(copy.path, self.folder / each)
        return Checkpoint(path=self.folder / name, state=last.state)

    def _fetch(self, url: str, name: str) -> Checkpoint:
        """Copy a checkpoint here, under a name that does not count yet."""
        folder = RemoteFolder(join(url, name), moves=self._moves)
        copy = temporary(self.folder / name)
        for is_second in (False, True):  # it may have been damaged on its way
            try:
                with self._room_for(0):
                    _download(folder, copy)
                return open_checkpoint(copy)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                shutil.rmtree(copy, ignore_errors=True)
                if is_second:
                    self._set_aside(folder, why=str(error))
                    raise
        raise AssertionError("unreachable")

    @staticmethod
    def _set_aside(folder: RemoteFolder, *, why: str) -> None:
        """Take the manifest from a checkpoint, so that nobody goes on from it."""
        try:
            folder.write(_DAMAGED, json.dumps({"why": why}).encode())
            folder.remove(MANIFEST)
        except PlaceError as error:  # whoever may only read
            _log.warning("%s", error)


def _download(folder: RemoteFolder, copy: Path) -> None:
    """Copy all files that a manifest names, and the manifest itself.

    Raises:
        ValueError: If the manifest is none, or a file is missing that it names.
        FileNotFoundError: If there is no manifest.
    """
    manifest = folder.read(MANIFEST)
    names = list(json.loads(manifest)["files"])
    copy.mkdir(parents=True)
    for name in names:
        if Path(name).name != name:  # whoever may write to the bucket shall not write here
            raise ValueError(f"{name} is no name of a file")
        try:
            folder.download(name, file=copy / name)
        except FileNotFoundError as error:
            folder.read(MANIFEST)  # else it was removed meanwhile, manifest first
            raise ValueError(f"{name} is missing") from error
    (copy / MANIFEST).write_bytes(manifest)
