"""Checkpoints: one folder for each epoch that matters, whole or absent, and checked before it is used.

::

    <folder of the attempt>/
        epoch-0003/   the best epoch so far
        epoch-0004/   the last but one, with its best one, if the last one turns out to be damaged
        epoch-0005/   the last one
            weights.safetensors     what the strategy trains
            optimizer.safetensors   the optimizer's moments
            state.json              the curve so far, what the run is, the gradient scaler
            manifest.json           size and SHA-256 of the other files
        final/        instead of all of them, when the run is complete: weights of the epoch that counts, and the curve
        damaged-…/    what was not what its manifest says; nobody goes on from it, it is kept until the run is over

A folder is written under another name, synced to disk and renamed, so a crash at any moment leaves the one before.
Never pickle: safetensors and JSON only. The state of random generators is not in it because every epoch seeds its own.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from tuner.errors import PlaceError
from tuner.files.disk import is_full
from tuner.training.sealed import (
    MANIFEST,
    REMOVING,
    WRITING,
    check_seal,
    publish,
    read_json,
    remove,
    seal,
    size_of,
    temporary,
    write_json,
)

__all__ = ["FINAL", "MANIFEST", "OPTIMIZER", "STATE", "WEIGHTS", "Checkpoint", "Checkpoints", "NoCheckpoints"]

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
FINAL = "final"
DAMAGED = "damaged-"

TRIES = 4
"""How often a checkpoint is chosen before the folders count as unusable."""

_EPOCH = re.compile(r"epoch-(\d{4,})")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A folder whose files are what they were when it was written.

    Attributes:
        path: The folder.
        state: What ``state.json`` says.
    """

    path: Path
    state: Mapping[str, Any]

    @property
    def epoch(self) -> int:
        """Epochs trained when it was written."""
        return len(self.state["history"]["epochs"])

    @property
    def is_final(self) -> bool:
        """Whether the run was complete."""
        return self.path.name == FINAL

    @property
    def best_path(self) -> Path:
        """The folder with the weights of the epoch that counts: this one or one beside it."""
        return self.path if self.is_final else _epoch_path(self.path.parent, int(self.state["best_epoch"]))

    def weights(self) -> dict[str, Tensor]:
        """What the strategy trained."""
        return load_file(self.path / WEIGHTS)

    def optimizer(self) -> dict[str, Tensor]:
        """The optimizer's moments; empty in a final checkpoint, which nobody goes on from."""
        path = self.path / OPTIMIZER
        return load_file(path) if path.exists() else {}


class Checkpoints:
    """The checkpoints of one attempt in a folder; no other attempt writes to it, but later ones read it."""

    def __init__(self, folder: Path) -> None:
        """The checkpoints in a folder, which is made when the first one is written."""
        self.folder = folder

    def save(
        self, *, state: Mapping[str, Any], weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], best: int
    ) -> None:
        """Write the last epoch's checkpoint, then remove all but it, the one before and the best ones of both.

        Args:
            state: What ``state.json`` will say; its curve tells the epoch.
            weights: What the strategy trains.
            optimizer: The optimizer's moments.
            best: The epoch that counts so far.

        Raises:
            PlaceError: If there is no room for it; those before are as they were.
        """
        epoch = len(state["history"]["epochs"])
        self._write(self.epoch_path(epoch), state=state, tensors={WEIGHTS: weights, OPTIMIZER: optimizer})
        self._keep({self.epoch_path(epoch), self.epoch_path(best), *self._needed_by(self.epoch_path(epoch - 1))})

    def finish(self, *, state: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
        """Write the final checkpoint and remove all others.

        Args:
            state: What ``state.json`` will say.
            weights: Those of the epoch that counts.

        Returns:
            Where it is.

        Raises:
            PlaceError: If there is no room for it; the others are as they were.
        """
        path = self.folder / FINAL
        self._write(path, state=state, tensors={WEIGHTS: weights})
        self._keep({path})
        return self.place_of(path)

    def adopt_newest(self, earlier: Sequence[str | Path], *, identity: str) -> tuple[Checkpoint | None, list[str]]:
        """The checkpoint to go on from, in this folder.

        An earlier attempt that was given up may be alive after all, and replace its checkpoints while they are looked at
        or copied. Then the choice is made again, a few times. What is damaged is set aside, also in earlier folders.

        Args:
            earlier: Folders of earlier attempts, the newest first.
            identity: What the run is.

        Returns:
            As :func:`newest_checkpoint`.

        Raises:
            PlaceError: If there is no room for a copy.
            OSError: If copying fails again and again.
            ValueError: If what was copied is damaged again and again.
        """
        folders = [self.folder, *(Path(folder) for folder in earlier)]
        adopted, seen = None, _look(folders, identity=identity)
        for tries_left in reversed(range(TRIES)):
            try:
                if seen.found is not None:
                    adopted = self.adopt(seen.found)
                    break
            except (OSError, ValueError):
                if not tries_left:
                    raise
            before, seen = seen, _look(folders, identity=identity)
            if seen == before and seen.found is None:  # nothing has moved since: there is nothing to go on from
                break
        for path in seen.damaged:
            _set_aside(path)
        for note in seen.skipped:
            _log.warning("%s", note)
        return adopted, seen.skipped

    def adopt(self, checkpoint: Checkpoint) -> Checkpoint:
        """Copy a checkpoint of an earlier attempt, and the best one that belongs to it, into this folder.

        The earlier attempt's folder may be cleaned away at any time afterwards.

        Returns:
            The copy.

        Raises:
            PlaceError: If there is no room for it.
            OSError: If a file cannot be copied, such as when the earlier attempt is alive after all and removed it.
            ValueError: If a copy is damaged.
        """
        if checkpoint.path.parent == self.folder:
            return checkpoint
        paths = dict.fromkeys((checkpoint.best_path, checkpoint.path))
        # Without its best one the last one is worth nothing: it is published after it.
        with self._room_for(size_of(*paths)):
            for path in paths:
                copy = temporary(self.folder / path.name)
                shutil.copytree(path, copy)
                open_checkpoint(copy)
                self._publish(copy, self.folder / path.name)
        return Checkpoint(path=self.folder / checkpoint.path.name, state=checkpoint.state)

    def epoch_path(self, epoch: int) -> Path:
        """The folder of an epoch."""
        return _epoch_path(self.folder, epoch)

    def place_of(self, path: Path) -> str:
        """Where others find what is in a folder."""
        return str(path)

    def clear(self) -> None:
        """Remove the folder: the run was pruned or cannot go on."""
        remove(self.folder)

    def close(self) -> None:
        """The attempt is over."""

    def _write(self, path: Path, *, state: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        content = [tensor for group in tensors.values() for tensor in group.values()]
        with self._room_for(sum(tensor.numel() * tensor.element_size() for tensor in content)):
            written = temporary(path)
            written.mkdir()
            for name, group in tensors.items():
                save_file({key: tensor.detach().contiguous() for key, tensor in group.items()}, written / name)
            write_json(written / STATE, state)
            seal(written)
            self._publish(written, path)

    def _publish(self, written: Path, path: Path) -> None:
        publish(written, path)

    def _needed_by(self, path: Path) -> set[Path]:
        """A checkpoint and its best one; nothing if it is not there."""
        try:
            return {path, Checkpoint(path=path, state=read_json(path / STATE)).best_path}
        except (OSError, ValueError, KeyError, TypeError):
            return set()

    def _keep(self, paths: set[Path]) -> None:
        is_over = any(path.name == FINAL for path in paths)
        for entry in self.folder.iterdir():
            if entry in paths:
                continue
            if is_checkpoint(entry.name) or (is_over and entry.name.startswith(DAMAGED)):
                remove(entry)
            elif entry.name.startswith((WRITING, REMOVING)):
                shutil.rmtree(entry, ignore_errors=True)

    @contextlib.contextmanager
    def _room_for(self, size: int) -> Iterator[None]:
        """Whoever writes inside finds room, or leaves nothing behind."""
        try:
            yield
        except Exception as error:
            if not is_full(error):
                raise
            for half in self.folder.glob(f"{WRITING}*"):
                shutil.rmtree(half, ignore_errors=True)
            raise PlaceError(
                f"disk full: no room for a checkpoint of {size / 2**20:.1f} MiB in {self.folder}",
                fix="make room there, or start the worker with other --checkpoints",
                place=str(self.folder),
                needed=size,
            ) from error


class NoCheckpoints(Checkpoints):
    """Of a run that nobody goes on from: nothing is written, nothing is found."""

    def __init__(self) -> None:
        super().__init__(Path(os.devnull))

    def save(
        self, *, state: Mapping[str, Any], weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], best: int
    ) -> None:
        """Nothing."""

    def adopt_newest(self, earlier: Sequence[str | Path], *, identity: str) -> tuple[Checkpoint | None, list[str]]:
        """Nothing is there."""
        return None, []

    def clear(self) -> None:
        """Nothing."""


@dataclass(kw_only=True, slots=True)
class _Seen:
    """What a look at folders of checkpoints has found: as :func:`newest_checkpoint`, and the folders that are damaged."""

    found: Checkpoint | None = None
    skipped: list[str] = field(default_factory=list)
    damaged: set[Path] = field(default_factory=set)


class _OfAnotherRun(ValueError):
    """Whole, but not ours."""


def newest_checkpoint(folders: Sequence[Path], *, identity: str) -> tuple[Checkpoint | None, list[str]]:
    """The checkpoint to go on from.

    Args:
        folders: Folders of this run's attempts, the newest first.
        identity: What the run is; a checkpoint of another run does not count.

    Returns:
        The most advanced checkpoint that is whole, and whose best one is whole too; and why others were skipped, one
        line each.
    """
    seen = _look(folders, identity=identity)
    return seen.found, seen.skipped


def _look(folders: Sequence[Path], *, identity: str) -> _Seen:
    found = [path for folder in folders if folder.is_dir() for path in folder.iterdir() if is_checkpoint(path.name)]
    seen = _Seen()
    for path in sorted(found, key=lambda path: progress(path.name), reverse=True):  # stable: the newest folder first
        looked_at = path
        try:
            checkpoint = open_checkpoint(path)
            check_identity(checkpoint, identity)
            if (looked_at := checkpoint.best_path) != path:
                open_checkpoint(looked_at)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            is_damaged = not isinstance(error, OSError | _OfAnotherRun) or isinstance(error, FileNotFoundError)
            if is_damaged:
                seen.damaged.add(looked_at)
            seen.skipped.append(skipped_line(f"{path.parent.name}/{path.name}", error))
        else:
            seen.found = checkpoint
            break
    return seen


def is_checkpoint(name: str) -> bool:
    """Whether a folder's name is one of a checkpoint that counts."""
    return name == FINAL or _EPOCH.fullmatch(name) is not None


def progress(name: str) -> tuple[bool, int]:
    """What checkpoints are sorted by: how far the run was."""
    return name == FINAL, 0 if name == FINAL else int(name.rpartition("-")[2])


def skipped_line(name: str, error: Exception) -> str:
    """Why a checkpoint does not count, for people."""
    if isinstance(error, FileNotFoundError) and error.filename:
        return f"checkpoint {name} was skipped: {Path(error.filename).name} is missing"
    return f"checkpoint {name} was skipped: {error}"


def check_identity(checkpoint: Checkpoint, identity: str) -> None:
    """See that a checkpoint is of a run.

    Raises:
        ValueError: If it is not.
    """
    if checkpoint.state["identity"] != identity:
        raise _OfAnotherRun("it belongs to another run")


def open_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint that is known to be there.

    Raises:
        ValueError: If it is damaged.
        OSError: If it cannot be read.
    """
    if not {WEIGHTS, STATE} <= check_seal(path):
        raise ValueError("it is not complete")
    return Checkpoint(path=path, state=read_json(path / STATE))


def _set_aside(path: Path) -> None:
    """Rename what is damaged, so that it is neither taken nor lost; unless it is gone."""
    aside = path.with_name(f"{DAMAGED}{path.name}")
    with contextlib.suppress(OSError):
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)


def _epoch_path(folder: Path, epoch: int) -> Path:
    return folder / f"epoch-{epoch:04d}"
