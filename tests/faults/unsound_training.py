"""The real training, in which each trial loses its numbers at a step of its own; the trial's number says how and where.

Run by a supervisor as ``python -m tests.faults.unsound_training``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tuner.study.plan import TrialPlan, TrialResult
from tuner.training.objective import Objective
from tuner.training.run import run_trial
from tuner.worker.runner import Runner, read_options

KINDS = ("loss nan", "loss inf", "gradient nan", "gradient inf", "loss explodes")


def kind_of(number: int) -> str:
    """What happens in a trial."""
    return KINDS[number % len(KINDS)]


def step_of(number: int) -> int:
    """The 0-based step at which it happens; a loss needs a first one to explode from."""
    step = number // len(KINDS) + number % 3
    return max(step, 1) if kind_of(number) == "loss explodes" else step


_real_backward = Objective.backward
_number = 0


def _backward(self: Objective, rows: Tensor, *, step: int, micro_batch: int) -> tuple[Tensor, int]:
    loss, micro_batch = _real_backward(self, rows, step=step, micro_batch=micro_batch)
    if step == step_of(_number):
        what, _, how = kind_of(_number).partition(" ")
        bad = 1e6 if how == "explodes" else float(how)
        if what == "loss":
            return loss * bad, micro_batch
        gradient = next(weight.grad for weight in self.model.parameters() if weight.grad is not None)
        with torch.no_grad():
            gradient.view(-1)[0] = bad
    assert step <= step_of(_number), "the run went on"
    return loss, micro_batch


def _train(plan: TrialPlan, **arguments: Any) -> TrialResult:
    global _number  # noqa: PLW0603 - one run at a time
    _number = plan.number
    return run_trial(plan, **arguments)


if __name__ == "__main__":
    options = read_options()
    torch.set_num_threads(options.threads)
    Objective.backward = _backward  # type: ignore[method-assign]
    Runner(read=options.read, write=options.write, cache=options.cache, train=_train).serve()
