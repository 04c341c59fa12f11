"""The training loop: plain torch, from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tuner.errors import TrialDiverged
from tuner.strategies.state import trainable_state
from tuner.study.plan import Verdict
from tuner.training.averaging import Average
from tuner.training.batches import Examples, epoch_batches
from tuner.training.checkpoint import Checkpoints
from tuner.training.device import seed_everything
from tuner.training.divergence import DivergenceWatch
from tuner.training.evaluate import evaluate
from tuner.training.history import History
from tuner.training.interrupt import Released
from tuner.training.objective import Objective
from tuner.training.optimizer import optimizer_state, set_learning_rate
from tuner.training.schedule import Stretch, stretch_at, timetable

Report = Callable[[int, Mapping[str, float], float], Verdict]
Progress = Callable[[int, float], None]
Fitted = Callable[[int], None]

_PROGRESS_SECONDS = 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Everything that stays the same from the first step to the last.

    Attributes:
        objective: What is minimised, on which rows, with which model and hyperparameters.
        trained: Names of all parameters that are ever trained.
        validation: Rows that judge every epoch.
        labels: Class names by index.
        optimizer: Over what the strategy trains.
        average: Of the trained weights, where one is kept.
        identity: What ``state.json`` says the run is.
        checkpoints: Where the epochs are kept.
        started: ``time.perf_counter()`` at the start of the attempt.
        fitted: Told how many rows fit into the memory at once, when they turn out to be fewer than was thought.
    """

    objective: Objective
    trained: frozenset[str]
    validation: Examples
    labels: Sequence[str]
    optimizer: torch.optim.Optimizer
    average: Average
    identity: str
    checkpoints: Checkpoints
    started: float
    fitted: Fitted

    def state(self, history: History) -> dict[str, Any]:
        """What ``state.json`` says."""
        return {
            "identity": self.identity,
            "best_epoch": history.best_epoch,
            "history": history.to_json(),
            "scaler": self.objective.scaler.state_dict(),
        }


def train(run: Run, *, history: History, report: Report, progress: Progress, released: Released) -> str:
    """Train until the run is over or a verdict ends it.

    After every epoch: evaluate, write the checkpoint, report. Every epoch seeds its own order and dropout, so that a run
    that goes on from a checkpoint is, on the CPU with as many threads, bit for bit the run that was never interrupted.

    Args:
        run: What is trained.
        history: The epochs so far; the new ones are appended.
        report: Told of every epoch's metrics and of the device seconds so far; says how to go on.
        progress: Told the share of the running epoch, a few times a second.
        released: Asked before every step whether the attempt ends here.

    Returns:
        ``epochs``, ``patience``, or the value of the verdict that ended it.

    Raises:
        TrialDiverged: At the first loss, gradient or prediction that is not finite, or a loss that has exploded.
        TrialOutOfMemory: If a single row does not fit into the memory.
    """
    # One loop from top to bottom, longer than other functions: what it would be cut into shares a dozen values, and the order is the point.
    objective, optimizer = run.objective, run.optimizer
    settings, model, compute, scaler = objective.settings, objective.model, objective.compute, objective.scaler
    strategy, params, train_rows = objective.strategy, objective.params, objective.train
    steps = math.ceil(len(train_rows.targets) / settings.batch_size)
    total = steps * settings.rules.epochs
    stretches = timetable(strategy.phases(model, params), trained=run.trained, total=total)
    stretch: Stretch | None = None
    watch = DivergenceWatch(compute.device, first=history.first_loss)
    micro_batch = settings.micro_batch
    rate = settings.learning_rate
    said = 0.0

    while not (ended_by := history.ended_by()):
        epoch = len(history.epochs) + 1
        seed_everything(settings.seed, "dropout", epoch)
        model.train()
        loss_sum = torch.zeros((), device=compute.device)
        batches = epoch_batches(train_rows.lengths, batch_size=settings.batch_size, seed=settings.seed, epoch=epoch)
        for index, rows in enumerate(batches):
            if (verdict := released()) is not None:
                return str(verdict.value)
            if (now := time.monotonic()) - said > _PROGRESS_SECONDS:
                progress(epoch, index / steps)
                said = now
            step = index + (epoch - 1) * steps
            if stretch is not (current := stretch_at(stretches, step)):
                stretch = current
                stretch.freeze_the_rest(model, trained=run.trained)
                if stretch.restarts and step == stretch.first:
                    optimizer.state.clear()
            rate = settings.learning_rate * stretch.factor(
                step, warmup_ratio=settings.warmup_ratio, schedule=settings.schedule
            )
            set_learning_rate(optimizer, rate)
            micro_batch = settings.rows_at_once(step, fit=micro_batch)
            loss, fits = objective.backward(rows, step=step, micro_batch=micro_batch)
            if fits < micro_batch:
                run.fitted(micro_batch := fits)
            history.note_parts(micro_batch, step=step)
            scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm or math.inf)
            # float16 overflows now and then; the scaler skips such a step, so there the loss alone is watched.
            watch.see(loss, norm=None if scaler.is_enabled() else norm, epoch=epoch, step=index + 1)
            scaler.step(optimizer)
            scaler.update()
            if not scaler.is_enabled() or bool(norm.isfinite()):  # else the step was not taken
                strategy.after_step(model, params, step=step, steps=total)
                run.average.update(step)
            optimizer.zero_grad(set_to_none=True)
            loss_sum += loss * len(rows)
        watch.look()
        history.first_loss = watch.first

        with run.average.in_place():
            if run.average.is_kept:
                strategy.constrain(model, params)
            scores = evaluate(
                model,
                task=objective.task,
                examples=run.validation,
                labels=run.labels,
                compute=compute,
                moves=released,
            )
            if scores is None:
                fix = "lower the learning rate"
                raise TrialDiverged(f"a prediction became non-finite after epoch {epoch}", fix=fix)
            metrics = {
                **scores.metrics,
                "train_loss": loss_sum.item() / len(train_rows.targets),
                "learning_rate": rate,
            }
            history.add(metrics, scores.confusion)
            run.checkpoints.save(
                state=run.state(history),
                weights=trainable_state(model, names=run.trained),
                optimizer=optimizer_state(optimizer, model) | run.average.raw_state(),
                best=history.best_epoch,
            )
        progress(epoch, 1.0)
        verdict = report(epoch, metrics, time.perf_counter() - run.started)
        if verdict is not Verdict.GO_ON:
            return str(verdict.value)
    return ended_by
