"""Checkpoints: one folder for each epoch that matters, whole or absent, and checked before it is used.

::

    <checkpoint_dir>/
        epoch-0003/   the best epoch so far
        epoch-0005/   the last one
            weights.safetensors     what the strategy trains
            optimizer.safetensors   the optimizer's moments
            state.json              the curve so far, what the run is, the gradient scaler
            manifest.json           size and SHA-256 of the other files
        final/        instead of both, when the run is complete: weights of the epoch that counts, and the curve

A folder is written under another name, synced to disk and renamed, so a crash at any moment leaves the one before.
Never pickle: safetensors and JSON only. The state of random generators is not in it because every epoch seeds its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
MANIFEST = "manifest.json"
FINAL = "final"

_FORMAT = 1
_EPOCH = re.compile(r"epoch-(\d{4,})")
_TEMPORARY = ".writing-"
_TRIES = 4  # how often a checkpoint is chosen before the folders count as unusable


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

    def weights(self) -> dict[str, Tensor]:
        """What the strategy trained."""
        return load_file(self.path / WEIGHTS)

    def optimizer(self) -> dict[str, Tensor]:
        """The optimizer's moments; empty in a final checkpoint, which nobody goes on from."""
        path = self.path / OPTIMIZER
        return load_file(path) if path.exists() else {}


class Checkpoints:
    """The checkpoints of one attempt; no other attempt writes to its folder, but later ones read it."""

    def __init__(self, folder: Path) -> None:
        """The checkpoints in a folder, which is made when the first one is written."""
        self.folder = folder

    def save(
        self, *, state: Mapping[str, Any], weights: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], best: int
    ) -> None:
        """Write the last epoch's checkpoint, then remove all but it and the best one.

        Args:
            state: What ``state.json`` will say; its curve tells the epoch.
            weights: What the strategy trains.
            optimizer: The optimizer's moments.
            best: The epoch that counts so far.
        """
        epoch = len(state["history"]["epochs"])
        self._write(self.epoch_path(epoch), state=state, tensors={WEIGHTS: weights, OPTIMIZER: optimizer})
        self._keep({self.epoch_path(epoch), self.epoch_path(best)})

    def finish(self, *, state: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Path:
        """Write the final checkpoint and remove all others.

        Args:
            state: What ``state.json`` will say.
            weights: Those of the epoch that counts.

        Returns:
            Its folder.
        """
        path = self.folder / FINAL
        self._write(path, state=state, tensors={WEIGHTS: weights})
        self._keep({path})
        return path

    def adopt(self, checkpoint: Checkpoint) -> Checkpoint:
        """Copy a checkpoint of an earlier attempt, and the best one that belongs to it, into this folder.

        The earlier attempt's folder may be cleaned away at any time afterwards.

        Returns:
            The copy.

        Raises:
            OSError: If a file cannot be copied, such as when the earlier attempt is alive after all and removed it.
            ValueError: If a copy is damaged.
        """
        if checkpoint.path.parent == self.folder:
            return checkpoint
        # Without its best one the last one is worth nothing: it is published after it.
        for path in dict.fromkeys((best_path(checkpoint), checkpoint.path)):
            copy = self._temporary(path.name)
            shutil.copytree(path, copy)
            _open(copy)
            self._publish(copy, self.folder / path.name)
        return Checkpoint(path=self.folder / checkpoint.path.name, state=checkpoint.state)

    def adopt_newest(self, earlier: Sequence[Path], *, identity: str) -> tuple[Checkpoint | None, list[str]]:
        """The checkpoint to go on from, in this folder.

        An earlier attempt that was given up may be alive after all, and replace its checkpoints while they are looked at
        or copied. Then the choice is made again, a few times.

        Args:
            earlier: Folders of earlier attempts, the newest first.
            identity: What the run is.

        Returns:
            As :func:`newest_checkpoint`.

        Raises:
            OSError: If copying fails again and again.
            ValueError: If what was copied is damaged again and again.
        """
        skipped: list[str] = []
        for tries_left in reversed(range(_TRIES)):
            before = skipped
            try:
                found, skipped = newest_checkpoint([self.folder, *earlier], identity=identity)
                if found is not None:
                    return self.adopt(found), skipped
            except (OSError, ValueError):
                if not tries_left:
                    raise
            else:
                if skipped == before:  # nothing has moved since: there is nothing to go on from
                    break
        return None, skipped

    def epoch_path(self, epoch: int) -> Path:
        """The folder of an epoch."""
        return self.folder / f"epoch-{epoch:04d}"

    def clear(self) -> None:
        """Remove the folder: the run was pruned or cannot go on."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, path: Path, *, state: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        temporary = self._temporary(path.name)
        temporary.mkdir()
        for name, content in tensors.items():
            save_file({key: tensor.detach().contiguous() for key, tensor in content.items()}, temporary / name)
        _write_json(temporary / STATE, state)
        _write_json(
            temporary / MANIFEST,
            {"format": _FORMAT, "files": {file.name: _facts(file) for file in sorted(temporary.iterdir())}},
        )
        self._publish(temporary, path)

    def _temporary(self, name: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{_TEMPORARY}{name}"
        shutil.rmtree(path, ignore_errors=True)
        return path

    def _publish(self, temporary: Path, path: Path) -> None:
        """Make a written folder last, then visible; one of the same name, which was damaged, makes way."""
        for file in (*temporary.iterdir(), temporary):
            _sync(file)
        if path.exists():
            shutil.rmtree(path)
        temporary.rename(path)
        _sync(self.folder)

    def _keep(self, paths: set[Path]) -> None:
        for entry in self.folder.iterdir():
            ours = entry.name == FINAL or _EPOCH.fullmatch(entry.name) or entry.name.startswith(_TEMPORARY)
            if ours and entry not in paths:
                shutil.rmtree(entry, ignore_errors=True)


def newest_checkpoint(folders: Sequence[Path], *, identity: str) -> tuple[Checkpoint | None, list[str]]:
    """The checkpoint to go on from.

    Args:
        folders: Folders of this run's attempts, the newest first.
        identity: What the run is; a checkpoint of another run does not count.

    Returns:
        The most advanced checkpoint that is whole, and whose best one is whole too; and why others were skipped, one
        line each.
    """
    found = [
        (path.name == FINAL, int(path.name.rpartition("-")[2]) if path.name != FINAL else 0, path)
        for folder in folders
        if folder.is_dir()
        for path in folder.iterdir()
        if path.name == FINAL or _EPOCH.fullmatch(path.name)
    ]
    skipped: list[str] = []
    for _, _, path in sorted(found, key=lambda entry: entry[:2], reverse=True):  # stable: the newest folder first
        try:
            checkpoint = _open(path)
            if checkpoint.state["identity"] != identity:
                raise ValueError("it belongs to another run")
            if best_path(checkpoint) != path:
                _open(best_path(checkpoint))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            skipped.append(f"checkpoint {path.parent.name}/{path.name} was skipped: {error}")
        else:
            return checkpoint, skipped
    return None, skipped


def best_path(checkpoint: Checkpoint) -> Path:
    """The folder with the weights of the epoch that counts: the checkpoint's own or one beside it."""
    if checkpoint.is_final:
        return checkpoint.path
    return Checkpoints(checkpoint.path.parent).epoch_path(int(checkpoint.state["best_epoch"]))


def open_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint that is known to be there.

    Raises:
        ValueError: If it is damaged.
        OSError: If it cannot be read.
    """
    return _open(path)


def _open(path: Path) -> Checkpoint:
    manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    if manifest["format"] != _FORMAT:
        raise ValueError(f"its format {manifest['format']} is not {_FORMAT}")
    for name, facts in manifest["files"].items():
        if _facts(path / name) != facts:
            raise ValueError(f"{name} is damaged")
    if not {WEIGHTS, STATE} <= manifest["files"].keys():
        raise ValueError("it is not complete")
    return Checkpoint(path=path, state=json.loads((path / STATE).read_text(encoding="utf-8")))


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"size": path.stat().st_size, "sha256": file_digest(file, "sha256").hexdigest()}


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, allow_nan=False), encoding="utf-8")


def _sync(path: Path) -> None:
    """Flush a file or a folder to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
