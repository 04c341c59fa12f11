"""Slots from what the box has."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from tuner.errors import UnavailableError, UsageError
from tuner.worker.devices import find_slots, visible_gpus

CORES = len(os.sched_getaffinity(0))


@pytest.fixture
def two_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A box whose nvidia-smi lists two GPUs."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf '0\\n1\\n'\n", encoding="utf-8")
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.fixture
def no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A box without any."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("tuner.worker.devices.Path", lambda _: tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("two_gpus")
@pytest.mark.parametrize(
    ("devices", "per_device", "names", "visible"),
    [
        ("auto", 1, ["cuda:0/0", "cuda:1/0"], ["0", "1"]),
        ("cuda", 1, ["cuda:0/0", "cuda:1/0"], ["0", "1"]),
        ("cuda:1", 2, ["cuda:1/0", "cuda:1/1"], ["1", "1"]),
        ("cpu", 2, ["cpu/0", "cpu/1"], ["cpu", "cpu"]),
    ],
)
def test_slots_of_a_box_with_gpus(devices: str, per_device: int, names: list[str], visible: list[str]) -> None:
    slots = find_slots(devices, per_device=per_device)
    assert [slot.name for slot in slots] == names
    assert [slot.device for slot in slots] == visible
    assert all(slot.threads >= 1 for slot in slots)
    assert sum(slot.threads for slot in slots) <= max(len(slots), len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("asked", "threads"), [("1", 1), ("1000", CORES), ("", CORES), ("0", CORES), ("4,2", CORES), ("many", CORES)]
)
def test_people_may_ask_for_fewer_threads(monkeypatch: pytest.MonkeyPatch, asked: str, threads: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert [slot.threads for slot in find_slots("cpu", per_device=1)] == [threads]


@pytest.mark.usefixtures("two_gpus")
def test_cuda_visible_devices_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [slot.device for slot in find_slots("auto", per_device=1)] == ["1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []
    with pytest.raises(UnavailableError, match=r'no CUDA device visible - CUDA_VISIBLE_DEVICES=""; --devices cpu'):
        find_slots("cuda:0", per_device=1)


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_is_not_there_is_named() -> None:
    with pytest.raises(UnavailableError, match="no device cuda:5 - this host shows 2: 0 to 1"):
        find_slots("cuda:0,5", per_device=1)


@pytest.mark.usefixtures("no_gpu")
def test_a_box_without_gpus_uses_its_cpu() -> None:
    assert [slot.name for slot in find_slots("auto", per_device=1)] == ["cpu/0"]
    with pytest.raises(UnavailableError, match="no NVIDIA GPU was found"):
        find_slots("cuda", per_device=1)


@pytest.mark.parametrize("devices", ["gpu", "cuda:", "cuda:a", "0,1", ""])
def test_other_words_are_refused(devices: str) -> None:
    with pytest.raises(UsageError, match="auto, cpu or cuda:0,1 expected"):
        find_slots(devices, per_device=1)


def test_a_slot_knows_with_how_many_it_shares_its_device() -> None:
    assert [slot.shares for slot in find_slots("cpu", per_device=3)] == [3, 3, 3]
