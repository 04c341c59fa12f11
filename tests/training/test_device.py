from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from tests.source_tree import ROOT
from tuner.errors import ConfigurationError
from tuner.training.device import (
    Compute,
    choose_compute,
    derived_seed,
    peak_memory,
    seed_everything,
    start_measuring_memory,
)
from tuner.worker.devices import SlotPlace
from tuner.worker.slot import environment_of

CPU = torch.device("cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
@pytest.mark.parametrize(
    ("precision", "dtype"), [("auto", torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_precision_on_the_cpu(precision: str, dtype: torch.dtype) -> None:
    assert choose_compute(precision) == Compute(device=CPU, dtype=dtype)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(ConfigurationError, match="fp16 needs a CUDA device"):
        choose_compute("fp16")


def test_autocast_computes_in_its_dtype() -> None:
    layer, row = torch.nn.Linear(2, 2), torch.ones(1, 2)
    for dtype in (torch.float32, torch.bfloat16):
        with Compute(device=CPU, dtype=dtype).autocast():
            assert layer(row).dtype is dtype


def test_the_scaler_is_there_for_fp16_alone() -> None:
    assert not Compute(device=CPU, dtype=torch.bfloat16).scaler().is_enabled()
    assert Compute(device=CPU, dtype=torch.float16).scaler().is_enabled()


def test_seeds_differ_by_purpose_and_repeat() -> None:
    seeds = {derived_seed(seed, purpose, epoch) for seed in (1, 2) for purpose in ("a", "b") for epoch in (1, 11)}
    assert len(seeds) == 8 and all(0 <= seed < 2**63 for seed in seeds)
    seed_everything(1, "a", 1)
    first = torch.rand(3)
    seed_everything(1, "a", 1)
    assert torch.equal(first, torch.rand(3))


def test_peak_memory_of_the_process() -> None:
    start_measuring_memory(CPU)
    assert 2**24 < peak_memory(CPU) < 2**40


def test_the_peak_of_a_run_is_its_own() -> None:
    block = bytearray(200 * 2**20)
    block[::4096] = b"x" * len(block[::4096])  # every page is touched
    start_measuring_memory(CPU)
    with_block = peak_memory(CPU)
    del block
    start_measuring_memory(CPU)
    assert peak_memory(CPU) < with_block - 100 * 2**20


TWO_TRIALS = """
import torch
from tuner.training.device import peak_memory, start_measuring_memory
cpu = torch.device("cpu")
start_measuring_memory(cpu)
before = peak_memory(cpu)
large = [torch.ones(4 * 2**20) for _ in range(20)]
large_peak = peak_memory(cpu)
small = torch.ones(2**10)
del large
start_measuring_memory(cpu)
small = torch.ones(2**20)
print(before, large_peak, peak_memory(cpu))
"""


def test_a_small_trial_is_not_charged_for_the_large_one_before_it_on_the_same_runner() -> None:
    environment = environment_of(SlotPlace(name="cpu/0", device="cpu", threads=1))
    done = subprocess.run(
        [sys.executable, "-c", TWO_TRIALS], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    before, large, small = (int(figure) / 2**20 for figure in done.stdout.split())
    assert large > before + 300 and small < before + 60
