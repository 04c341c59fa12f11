"""The real training in a process that may not take more memory: the kernel refuses what torch asks for.

Run by a supervisor as ``python -m tests.faults.tight_training``. A file beside the checkpoints says how many MiB a process has for its
trials; where a second file is, a process that begins with it holds all but a few of them itself, as another one might.
"""

from __future__ import annotations

import importlib
import resource
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import torch

from tuner.study.plan import TrialPlan, TrialResult
from tuner.training.memory import device_kind
from tuner.training.run import run_trial
from tuner.worker.runner import Runner, read_options

for _module in ("scipy.linalg", "sklearn.metrics"):
    importlib.import_module(_module)  # with the process: a trial would load them when the room is tight

MIB = 2**20
ROOM = "room"
HELD = "held"


def _train(plan: TrialPlan, *, started: Callable[..., None], **arguments: Any) -> TrialResult:
    folder = Path(plan.checkpoint_dir).parents[3]

    def tighten(facts: Mapping[str, Any]) -> None:
        """From here on: the model stands, and what is left to import is not torch's to ask for."""
        room = int((folder / ROOM).read_text(encoding="ascii"))
        if (folder / HELD).exists():
            (folder / HELD).unlink()
            room = 1
        taken = psutil.Process().memory_info().vms
        resource.setrlimit(resource.RLIMIT_AS, (taken + room * MIB, resource.RLIM_INFINITY))
        started(facts)

    return run_trial(plan, started=tighten, **arguments)


if __name__ == "__main__":
    options = read_options()
    torch.set_num_threads(options.threads)
    Runner(read=options.read, write=options.write, cache=options.cache, train=_train, device=device_kind()).serve()
