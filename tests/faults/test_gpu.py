"""A GPU whose memory runs out, or whose context is lost: the process is at fault, the next one is well."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest
import torch

from tests.faults.figures import RecordProperty, record
from tests.source_tree import ROOT
from tuner.training.device_check import why_unwell

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

MIB = 2**20
ROUNDS = 5

ALLOCATE = """
import torch
from tuner.training.memory import is_broken_device, is_out_of_memory
try:
    torch.empty(2 * torch.cuda.get_device_properties(0).total_memory, dtype=torch.uint8, device="cuda")
except Exception as error:
    print(is_out_of_memory(error), is_broken_device(error))
print(int(torch.ones(8, device="cuda").sum()))
"""

ASSERT = """
import torch
from tuner.training.memory import is_broken_device, is_out_of_memory
for _ in range(2):
    try:
        torch.zeros(3, device="cuda")[torch.tensor([7], device="cuda")].cpu()
    except Exception as error:
        print(is_out_of_memory(error), is_broken_device(error))
"""


def said_by(code: str) -> list[str]:
    """What a process of its own prints."""
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300
    ).stdout.splitlines()


def used_memory() -> int:
    """MiB that are in use on all GPUs together, by their driver."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    return sum(int(line) for line in said.split())


def test_a_process_that_asks_for_twice_the_memory_leaves_none_behind(record_property: RecordProperty) -> None:
    idle = used_memory()
    assert said_by(ALLOCATE) == ["True False", "8"], "it is no lost context"
    left = used_memory() - idle
    assert left < 50
    record(record_property, row=19, figures={"MiB left behind by the process": left})


def test_a_lost_context_is_known_and_the_next_process_is_well(record_property: RecordProperty) -> None:
    check = partial(why_unwell, device="cuda", needs=16 * MIB)
    assert check() == ""
    for _ in range(ROUNDS):
        assert said_by(ASSERT) == ["False True"] * 2, "every later call of the process fails, too"
        assert check() == ""
    record(record_property, row=20, figures={"lost contexts": ROUNDS, "next processes that were well": ROUNDS})
