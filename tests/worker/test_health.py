"""Devices that are not well, and what the kernel tells of its kills."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tuner.worker import health
from tuner.worker.devices import SlotPlace
from tuner.worker.events import Event, Notice
from tuner.worker.health import Check, Health, kernel_kills
from tuner.worker.slot import Job, Slot

REASON = "CUDA error: unspecified launch failure"


class Ward:
    """Two shares of one GPU and one of the CPU, and a file that says how their check ends."""

    def __init__(self, folder: Path) -> None:
        self.said = folder / "said"
        self.notices: list[str] = []
        self.told: list[dict[str, Any]] = []
        self.slots = [
            Slot(place=SlotPlace(name=name, device=device, threads=1), log=folder / "log", cache=folder)
            for name, device in (("cuda:0/0", "0"), ("cuda:0/1", "0"), ("cpu/0", "cpu"))
        ]
        self.health = Health(
            module="tests.worker.odd_check", show=self._show, tell=lambda **told: self.told.append(told)
        )
        self.health.watch(self.slots)

    def _show(self, event: Event) -> None:
        assert isinstance(event, Notice)
        self.notices.append(event.text)

    def settle(self) -> list[str]:
        """Look until no check goes on; why each slot is out of use."""
        self.health.look()
        deadline = time.monotonic() + 60
        while any(slot.out_of_use in ("it is checked", "it is checked first") for slot in self.slots):
            assert time.monotonic() < deadline
            time.sleep(0.02)
            self.health.look()
        return [slot.out_of_use for slot in self.slots]


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ward:
    found = Ward(tmp_path)
    monkeypatch.setenv("ODD_CHECK", str(found.said))
    return found


def test_gpus_are_checked_before_the_first_trial(ward: Ward) -> None:
    assert [slot.out_of_use for slot in ward.slots] == ["it is checked first", "it is checked first", ""]
    assert ward.settle() == ["", "", ""]
    assert ward.notices == []


def test_a_gpu_that_fails_its_check_is_left_alone_and_looked_at_again(
    ward: Ward, monkeypatch: pytest.MonkeyPatch
) -> None:
    ward.said.write_text("a product was wrong", encoding="utf-8")
    assert ward.settle() == ["a product was wrong", "a product was wrong", ""]
    ward.health.report()
    (told,) = ward.told
    assert told["devices"] == ["cuda:0/0 (out of use)", "cuda:0/1 (out of use)", "cpu/0"]
    assert told["kind"] == "device_quarantined"
    assert told["text"] == ward.notices[0]
    assert ward.notices[0].startswith(
        "cuda:0 is out of use: a product was wrong; see nvidia-smi and Xid lines in dmesg"
    )
    ward.settle()
    assert len(ward.notices) == 1, "said once"

    monkeypatch.setattr(health, "_AGAIN_SECONDS", 0.2)
    ward.health._devices["0"].again_at = 0.0
    ward.said.unlink()
    deadline = time.monotonic() + 60
    while ward.slots[0].out_of_use and time.monotonic() < deadline:
        ward.health.look()
        time.sleep(0.02)
    assert [slot.out_of_use for slot in ward.slots] == ["", "", ""]
    ward.health.report()
    assert ward.told[1]["devices"] == ["cuda:0/0", "cuda:0/1", "cpu/0"]
    assert ward.notices[1:] == ["cuda:0 is well again and is used"]


@pytest.mark.parametrize("end", ["crashes", "hangs"])
def test_a_check_that_gives_no_answer_is_an_answer(ward: Ward, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_CHECK_SECONDS", 1.0 if end == "hangs" else 60.0)
    ward.said.write_text(end, encoding="utf-8")
    assert (
        ward.settle()[0] == {"crashes": "a check ended with status -6", "hangs": "a check did not end within 1 s"}[end]
    )


def test_three_runs_in_a_row_that_break_on_a_device_give_it_a_rest(ward: Ward) -> None:
    ward.settle()
    for run in (1, 1, 1, 2):
        ward.health.broke(ward.slots[run % 2], run=run, reason=REASON)
        assert ward.settle() == ["", "", ""], "it passes its checks, and one run may be to blame itself"
    ward.health.broke(ward.slots[0], run=3, reason=REASON)
    assert ward.settle()[0] == f"3 runs in a row ended with its errors, the last with: {REASON}"


def test_a_run_that_ends_well_clears_the_device(ward: Ward) -> None:
    ward.settle()
    for run in range(9):
        ward.health.broke(ward.slots[0], run=run, reason=REASON)
        if run % 2:
            ward.health.worked(ward.slots[1])
    assert ward.settle() == ["", "", ""]


def test_three_deaths_without_a_word_are_judged_by_the_check(ward: Ward) -> None:
    cpu = ward.slots[2]
    for run in range(6):
        ward.health.died(cpu, run=run)
        assert ward.settle() == ["", "", ""]
    ward.said.write_text("out of memory", encoding="utf-8")
    ward.health.died(cpu, run=6)
    ward.health.died(cpu, run=7)
    assert ward.settle()[2] == ""
    ward.health.died(cpu, run=8)
    assert ward.settle()[2] == "out of memory"
    assert "see free memory" in ward.notices[-1]


def test_a_gpu_is_checked_after_a_hang(ward: Ward) -> None:
    ward.settle()
    ward.said.write_text("it has fallen off the bus", encoding="utf-8")
    ward.health.hung(ward.slots[2])
    assert ward.settle() == ["", "", ""], "a CPU does not fall off"
    ward.health.hung(ward.slots[0])
    assert ward.settle()[0] == "it has fallen off the bus"


def test_a_device_is_not_checked_while_a_share_of_it_works(ward: Ward) -> None:
    ward.settle()
    ward.slots[1].job = object.__new__(Job)
    ward.health.hung(ward.slots[0])
    ward.health.look()
    assert [slot.out_of_use for slot in ward.slots] == ["it is checked", "it is checked", ""]
    assert ward.health._devices["0"].check is None
    ward.slots[1].job = None
    assert ward.settle() == ["", "", ""]


@pytest.mark.slow
def test_the_real_check_finds_this_cpu_well(ward: Ward) -> None:
    check = Check(ward.slots[2], module="tuner.training.device_check")
    while (reason := check.result()) is None:
        time.sleep(0.05)
    assert reason == ""


@pytest.mark.slow
def test_the_real_check_does_not_take_a_cpu_for_a_gpu(ward: Ward) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    check = Check(ward.slots[0], module="tuner.training.device_check")
    while (reason := check.result()) is None:
        time.sleep(0.05)
    assert reason == "torch sees no CUDA device"


V2, V1 = "0::/user.slice/worker\n", "4:memory:/jobs/7\n0::/\n"


@pytest.mark.parametrize(
    ("groups", "counters", "expected"),
    [
        (V2, {"user.slice/worker/memory.events": "low 0\nmax 3\noom 2\noom_kill 2\n"}, 2),
        (V1, {"memory/jobs/7/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n"}, 4),
        (V1, {"memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"}, 5),
        (V2, {}, 9),
        ("", {}, 9),
    ],
)
def test_the_kernels_count_of_this_control_group_goes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, groups: str, counters: dict[str, str], expected: int
) -> None:
    (tmp_path / "cgroup").write_text(groups, encoding="ascii")
    (tmp_path / "vmstat").write_text("nr_free_pages 12\noom_kill 9\n", encoding="ascii")
    for path, text in counters.items():
        (tmp_path / "mount" / path).parent.mkdir(parents=True)
        (tmp_path / "mount" / path).write_text(text, encoding="ascii")
    monkeypatch.setattr(health, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(health, "_MOUNT", tmp_path / "mount")
    monkeypatch.setattr(health, "_VMSTAT", tmp_path / "vmstat")
    assert kernel_kills() == expected


def test_a_kernel_that_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_GROUPS", "_VMSTAT"):
        monkeypatch.setattr(health, name, tmp_path / "none")
    assert kernel_kills() is None


@pytest.mark.skipif(not Path("/proc/vmstat").exists(), reason="no Linux")
def test_this_kernel_tells() -> None:
    assert kernel_kills() is not None
