"""Checkpoints that are damaged, half written, or gone on from after a kill: none is believed that is not whole."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.faults.doomed import Doomed, doomed
from tests.faults.figures import LONG, RecordProperty, record
from tests.training.samples import Recorder, plan, run, study
from tuner.training.checkpoint import WEIGHTS, Checkpoints, newest_checkpoint

VARIANTS = 10 if LONG else 2
SIGKILL = -9


def save(folder: Path, epoch: int, *, best: int) -> None:
    """A checkpoint as the training writes it, of some kilobytes."""
    state = {"identity": "run", "best_epoch": best, "history": {"epochs": [{"loss": 1 / 3}] * epoch}, "scaler": {}}
    weights = {"w": torch.full((1500,), float(epoch)), "b": torch.arange(7.0)}
    Checkpoints(folder).save(state=state, weights=weights, optimizer={"m": weights["w"] * 2}, best=best)


def truncate(path: Path, draw: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])


def flip_a_bit(path: Path, draw: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


def test_damage_of_any_kind_is_seen(tmp_path: Path, record_property: RecordProperty) -> None:
    """The file and the place in it are drawn; the manifest is one of the files."""
    draw, whole = random.Random(26), tmp_path / "whole"
    for epoch in (1, 2, 3):
        save(whole, epoch, best=1)
    files = sorted(path.name for path in (whole / "epoch-0003").iterdir())
    assert len(files) == 4
    seen = loaded = 0
    for number in range(70):
        first, second = tmp_path / f"{number}-1", tmp_path / f"{number}-2"
        shutil.copytree(whole, first)
        damage = truncate if number < 20 else flip_a_bit
        damage(first / "epoch-0003" / files[number % 4], draw)
        found, notes = Checkpoints(second).adopt_newest([first], identity="run")
        seen += len(notes) == 1 and (first / "damaged-epoch-0003").is_dir() and not (first / "epoch-0003").exists()
        loaded += found is None or found.epoch != 2 or found.weights()["w"].unique().tolist() != [2.0]
    figures = {"truncated": 20, "bits flipped": 50, "detected": seen, "loaded": loaded}
    record(record_property, row=26, figures=figures)
    assert (seen, loaded) == (70, 0)


@pytest.fixture(scope="module")
def child() -> Iterator[Doomed]:
    with doomed() as parent:
        yield parent


def is_whole(folder: Path) -> bool:
    """Whether every checkpoint that can be seen is one that can be gone on from, or the best one of such a one."""
    names = [path.name for path in folder.iterdir() if not path.name.startswith(".")]
    for name in names:
        _, notes = newest_checkpoint([folder], identity="run")
        if notes or not (folder / name / "manifest.json").exists():
            return False
    return True


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_crash_between_any_two_steps_leaves_nothing_in_part(
    tmp_path: Path, child: Doomed, record_property: RecordProperty
) -> None:
    """Every call that touches a file is a step: a child dies before each of them, and others go on from what it left."""
    kills = partial = unswept = lost = 0
    for variant in range(VARIANTS):
        epoch, size = 3 + variant, 500 * 4**variant % 100_000 + 10
        best = epoch if variant % 2 else 1
        before = tmp_path / f"before-{variant}"
        for earlier in range(1, epoch):
            save(before, earlier, best=earlier if variant % 2 else 1)
        for task in ("save", "finish", "adopt"):
            told: dict[str, Any] = {"epoch": epoch, "best": best, "size": size, "earlier": [str(before)]}
            steps = 0
            for die_at in range(1_000):
                folder = tmp_path / f"{variant}-{task}-{die_at}"
                if task == "adopt":
                    folder.mkdir()
                else:
                    shutil.copytree(before, folder)
                status, steps = child(task, die_at=die_at, folder=str(folder), **told)
                if status == 0 and die_at:  # it had done all its steps before
                    break
                assert status == (SIGKILL if die_at else 0)
                kills += die_at > 0
                partial += not is_whole(folder)
                found, _ = newest_checkpoint([folder, before], identity="run")
                lost += found is None or found.epoch < epoch - 1
                save(folder, epoch + 1, best=epoch + 1)  # what goes on there sweeps
                unswept += any(path.name.startswith(".") for path in folder.iterdir())
                shutil.rmtree(folder)
            assert steps > 10
    figures = {"kills": kills, "partly visible": partial, "not swept": unswept, "lost": lost}
    record(record_property, row=27, figures=figures)
    assert kills > 100
    assert (partial, unswept, lost) == (0, 0, 0)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("strategy", ["full", "head", "lora", "bitfit", "head>full"] if LONG else ["lora"])
def test_a_run_killed_at_any_epoch_ends_as_if_nobody_had_killed_it(
    tmp_path: Path, child: Doomed, record_property: RecordProperty, strategy: str
) -> None:
    """Killed within each epoch and at each report, all in one run: its last attempt ends with the bits of a run in peace."""
    epochs = 4 if LONG else 3
    spec = study(tmp_path, training={"epochs": epochs}, data={"validation": 0.3})
    whole = Recorder()
    expected = run(plan(spec, tmp_path / "whole", strategy=strategy, score_test=True), report=whole)
    deaths = [(epoch, where) for epoch in range(1, epochs + 1) for where in ("epoch", "report")]
    for number, (epoch, where) in enumerate([*deaths, (0, "")]):
        earlier = [tmp_path / f"attempt-{before}" for before in reversed(range(number))]
        last = plan(
            spec, tmp_path / f"attempt-{number}", strategy=strategy, score_test=True, resume_from=earlier
        ).to_json()
        status, _ = child("train", die_at=epoch, where=where, plan=last, curve=str(tmp_path / f"curve-{number}"))
        assert status == (SIGKILL if epoch else 0)
    lines = [json.loads(line) for number in range(len(deaths) + 1) for line in _lines(tmp_path / f"curve-{number}")]
    found = json.loads((tmp_path / f"curve-{len(deaths)}.result").read_text(encoding="utf-8"))
    ours, theirs = (load_file(Path(where) / WEIGHTS) for where in (found["checkpoint"], expected.checkpoint))
    different = sum(lines.count([epoch, metrics]) < 1 for epoch, metrics in whole.curve)
    different += sum([epoch, metrics] not in [list(pair) for pair in whole.curve] for epoch, metrics in lines)
    figures = {"kills": len(deaths), "epochs": epochs, "metrics that differ": different}
    record(record_property, row=31, figures=figures)
    assert different == 0
    assert found["metrics"] == dict(expected.metrics)
    assert expected.test is not None and found["test"]["predictions"] == list(expected.test.predictions)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
