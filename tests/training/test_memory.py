"""Memory that runs out for real, and processes that keep too much."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

from tests.source_tree import ROOT
from tests.training.samples import Recorder, plan, study
from tests.training.toy import CPU, Linear, a_run, examples
from tuner.errors import TrialOutOfMemory
from tuner.training import memory
from tuner.training.evaluate import predict
from tuner.training.memory import LeakWatch, device_kind, host_memory, in_parts, is_broken_device, is_out_of_memory
from tuner.training.run import run_trial
from tuner.training.settings import Settings

MIB = 2**20


def test_out_of_memory_is_recognised() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    assert is_out_of_memory(ImportError("libcublas.so.12: failed to map segment from shared object"))
    assert not is_out_of_memory(OSError(errno.ENOSPC, "No space left on device"))
    assert not is_out_of_memory(ImportError("No module named 'lion'"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


# What torch and the libraries below it have said, by the kind of the error.
SAID = {
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB": "memory",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported": "memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`": "memory",
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory": "memory",
    "could not create a primitive": "memory",
    "CUDA error: device-side assert triggered": "device",
    "CUDA error: an illegal memory access was encountered": "device",
    "CUDA error: uncorrectable ECC error encountered": "device",
    "CUDA error: unspecified launch failure": "device",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`": "device",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR": "device",
    "mat1 and mat2 shapes cannot be multiplied (8x6 and 5x3)": "",
    "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!": "",
}


@pytest.mark.parametrize("said", SAID)
def test_an_error_is_told_by_its_words(said: str) -> None:
    error = RuntimeError(said)
    assert (is_out_of_memory(error), is_broken_device(error)) == (SAID[said] == "memory", SAID[said] == "device")


def test_only_torch_speaks_of_devices() -> None:
    assert not is_broken_device(ValueError("CUDA error in the text of a row"))


def test_newer_torch_has_a_class_for_broken_devices() -> None:
    lost: type[Exception] | None = getattr(torch, "AcceleratorError", None)
    if lost is None:
        pytest.skip("this torch has no AcceleratorError")
    assert is_broken_device(lost("it is gone"))
    assert not is_broken_device(lost("CUDA error: out of memory"))


def test_what_does_not_fit_is_evaluated_in_parts() -> None:
    sizes = []

    def double(rows: Tensor) -> Tensor:
        if len(rows) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(rows))
        return 2 * rows

    batches = list(torch.arange(20).split(9))
    assert torch.equal(torch.cat(in_parts(batches, double, device=torch.device("cpu"))), 2 * torch.arange(20))
    assert sizes == [3, 2, 2, 2, 3, 2, 2, 2, 2]


def test_a_row_that_does_not_fit_is_told_as_torch_tells_it() -> None:
    def never(_: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        in_parts([torch.arange(4)], never, device=torch.device("cpu"))


class Narrow(Linear):
    """Its evaluation has room for few rows, too."""

    def forward(self, input_ids: Tensor, inputs_embeds: Tensor) -> Any:
        if len(inputs_embeds) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(input_ids, inputs_embeds)


def test_an_evaluation_that_does_not_fit_gives_the_same_answers() -> None:
    narrow, wide = (predict(Narrow(room=room), examples=examples(30), compute=CPU) for room in (5, 1000))
    torch.testing.assert_close(narrow, wide)


class Wordless(Linear):
    """Python runs out of memory in it, and says so without a word."""

    def forward(self, input_ids: Tensor, inputs_embeds: Tensor) -> Any:
        if len(inputs_embeds) > self.room:
            raise MemoryError
        return super().forward(input_ids, inputs_embeds)


def test_a_batch_that_python_has_no_memory_for_is_halved(tmp_path: Path) -> None:
    assert a_run(tmp_path, model=Wordless(room=2)).objective.backward(torch.arange(8), step=0, micro_batch=8)[1] == 2
    with pytest.raises(TrialOutOfMemory, match=r"with 1 row of .* - MemoryError; lower training.max_length"):
        a_run(tmp_path, model=Wordless(room=0)).objective.backward(torch.arange(8), step=0, micro_batch=8)


@pytest.mark.parametrize(
    ("known", "asked", "expected"), [(0, None, 8), (2, None, 2), (2, 4, 2), (4, 2, 2), (32, None, 8)]
)
def test_a_run_begins_with_what_is_known_to_fit(tmp_path: Path, known: int, asked: int | None, expected: int) -> None:
    from dataclasses import replace

    spec = study(tmp_path, training={"micro_batch": asked})
    assert Settings.of(replace(plan(spec, tmp_path), micro_batch=known)).micro_batch == expected


def test_a_smaller_micro_batch_gives_the_same_curve(tmp_path: Path) -> None:
    from dataclasses import replace

    curves = []
    for size in (0, 3):
        report = Recorder()
        told = plan(study(tmp_path), tmp_path / str(size), dropout=0.0)
        run_trial(replace(told, micro_batch=size), report=report)
        curves.append([metrics["train_loss"] for _, metrics in report.curve])
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)


def test_the_kind_of_a_device_names_its_memory() -> None:
    kind = device_kind()
    assert kind.endswith(" GiB")
    assert kind.startswith("cpu, ") is not torch.cuda.is_available()
    assert 2**28 < host_memory() <= psutil.virtual_memory().total


def test_the_memory_of_a_control_group_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = (tmp_path / "none", tmp_path / "max", tmp_path / "memory.max")
    limits[1].write_text("max\n", encoding="ascii")
    limits[2].write_text(f"{512 * MIB}\n", encoding="ascii")
    monkeypatch.setattr(memory, "_LIMITS", limits)
    assert host_memory() == 512 * MIB


LEAKY = """
import torch
from tuner.training import memory

memory._BEYOND = 64 * 2**20
watch, kept = memory.LeakWatch(), []
for trial in range(40):
    torch.ones({taken} * 2**18)  # freed at the end of the trial
    kept.append(torch.ones({leaked} * 2**18))
    if why := watch.look():
        print(trial, why)
        break
"""


@pytest.mark.slow
@pytest.mark.parametrize(("leaked", "taken", "found"), [(32, 0, True), (0, 256, False)])
def test_a_process_that_keeps_more_and_more_is_noticed(leaked: int, taken: int, found: bool) -> None:
    """In a process of its own: pytest's own memory grows with other tests."""
    code = LEAKY.format(leaked=leaked, taken=taken)
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.endswith(" trials\n") is found, said
    if found:
        assert 4 <= int(said.split()[0]) < 20
        assert "its memory grew from 0." in said


def test_the_first_two_trials_may_take_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = iter([(10 * 2**30, 0), (20 * 2**30, 0), (30 * 2**30, 0), (32 * 2**30, 0), (32 * 2**30, 0)])
    monkeypatch.setattr(memory, "_levels", lambda: next(levels))
    watch = LeakWatch()
    assert [watch.look() for _ in range(3)] == ["", "", ""]
    assert watch.look() == "its memory grew from 20.0 to 32.0 GiB over 2 trials"
