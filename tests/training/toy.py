"""The smallest model that the loop can train, and a run of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from tests.training.samples import Recorder, plan, study
from tuner.strategies.base import Phase, Strategy
from tuner.strategies.full import Full
from tuner.strategies.state import trained_names
from tuner.study.domains import Value
from tuner.tasks import TASKS
from tuner.training.averaging import Average
from tuner.training.checkpoint import Checkpoints
from tuner.training.device import Compute
from tuner.training.features import FeatureExamples
from tuner.training.history import History
from tuner.training.loop import Fitted, Run, train
from tuner.training.objective import Objective
from tuner.training.optimizer import build_optimizer
from tuner.training.settings import Settings

ROWS = torch.tensor([0, 4, 7, 9, 11, 13, 17, 20])
WEIGHTS = torch.tensor([0.5, 1.0, 3.0])
CPU = Compute(device=torch.device("cpu"), dtype=torch.float32)


class Linear(nn.Module):
    """The smallest model that the loop can train; `room` is how many rows fit into a training step."""

    def __init__(self, *, width: int = 6, classes: int = 3, room: int = 1000) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(width, classes)
        self.room = room
        self.largest = 0

    def forward(self, input_ids: Tensor, inputs_embeds: Tensor) -> Any:
        if self.training:
            if len(inputs_embeds) > self.room:
                raise torch.OutOfMemoryError(f"tried to allocate {len(inputs_embeds)} rows")
            self.largest = max(self.largest, len(inputs_embeds))
        return SimpleNamespace(logits=self.layer(inputs_embeds[:, 0]))


def examples(rows: int, *, scale: float = 1.0) -> FeatureExamples:
    generator = torch.Generator().manual_seed(1)
    targets = torch.arange(rows) % 3
    features = torch.randn(rows, 6, generator=generator) + 2.0 * torch.eye(6)[targets]
    return FeatureExamples(features=features * scale, targets=targets, lengths=torch.ones(rows, dtype=torch.int64))


def a_run(
    folder: Path,
    *,
    model: nn.Module | None = None,
    scale: float = 1.0,
    settings: Settings | None = None,
    strategy: Strategy | None = None,
    fitted: Fitted = lambda _: None,
    **changes: Any,
) -> Run:
    settings = settings or Settings.of(plan(study(folder), folder, learning_rate=0.05, batch_size=8, dropout=0.0))
    settings = replace(settings, **changes)
    model = model or Linear()
    objective = Objective(
        model=model,
        strategy=strategy or Full(),
        params={},
        task=TASKS["text-classification"],
        train=examples(30, scale=scale),
        class_weights=None,
        starts={},
        teacher=None,
        scaler=CPU.scaler(),
        compute=CPU,
        settings=settings,
    )
    return Run(
        objective=objective,
        trained=trained_names(model),
        validation=examples(12),
        labels=("a", "b", "c"),
        optimizer=build_optimizer(
            model,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            factors=objective.strategy.learning_rates(model, {}),
        ),
        average=Average(model, names=trained_names(model), decay=settings.ema),
        identity="test",
        checkpoints=Checkpoints(folder / "checkpoints"),
        started=time.perf_counter(),
        fitted=fitted,
    )


def do_train(what: Run, *, report: Recorder | None = None) -> tuple[str, History]:
    history = History(rules=what.objective.settings.rules)
    ended = train(what, history=history, report=report or Recorder(), progress=lambda *_: None, released=lambda: None)
    return ended, history


class Odd(Full):
    """A strategy that uses all that the loop offers, and writes down what it sees."""

    def __init__(self, *, phases: Sequence[Phase] = ()) -> None:
        self.steps: list[tuple[int, int, bool]] = []
        self._phases = tuple(phases)

    def learning_rates(self, model: nn.Module, params: Mapping[str, Value]) -> Mapping[str, float]:
        return {name: 0.5 for name, _ in model.named_parameters() if name.endswith("bias")}

    def phases(self, model: nn.Module, params: Mapping[str, Value]) -> tuple[Phase, ...]:
        return self._phases

    def penalty(self, model: nn.Module, params: Mapping[str, Value]) -> Tensor:
        return 0.25 * model.get_parameter("layer.weight").square().sum()

    def after_step(self, model: nn.Module, params: Mapping[str, Value], *, step: int, steps: int) -> None:
        self.steps.append((step, steps, model.get_parameter("layer.weight").grad is not None))


def gradients(objective: Objective, *, micro_batch: int, step: int = 3) -> tuple[Tensor, list[Tensor]]:
    """What is minimised, and its gradients."""
    objective.model.zero_grad()
    loss = objective.accumulate(ROWS, step=step, micro_batch=micro_batch)
    return loss, [parameter.grad.clone() for parameter in objective.model.parameters() if parameter.grad is not None]


def by_hand(objective: Objective, loss: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The same for a loss of the rows' vectors and targets."""
    objective.model.zero_grad()
    value = loss(objective.train.inputs(ROWS)["inputs_embeds"][:, 0], objective.train.targets[ROWS])
    return value.detach(), list(torch.autograd.grad(value, list(objective.model.parameters())))


def objective_of(folder: Path, *, weighted: bool, **changes: Any) -> tuple[Objective, nn.Linear, Tensor | None]:
    weights = WEIGHTS if weighted else None
    objective = replace(a_run(folder, **changes).objective, class_weights=weights)
    layer = objective.model.get_submodule("layer")
    assert isinstance(layer, nn.Linear)
    return objective, layer, weights
