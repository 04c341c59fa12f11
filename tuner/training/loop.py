"""The training loop: plain torch, from top to bottom."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tuner.errors import TrialDiverged, TrialInfeasible
from tuner.strategies.state import trainable_state
from tuner.study.plan import Verdict
from tuner.tasks import Task
from tuner.training.batches import Examples, epoch_batches
from tuner.training.checkpoint import Checkpoints
from tuner.training.device import Compute, is_out_of_memory, seed_everything
from tuner.training.evaluate import evaluate
from tuner.training.history import History
from tuner.training.interrupt import Released
from tuner.training.optimizer import learning_rate_factor, optimizer_state
from tuner.training.settings import Settings

Report = Callable[[int, Mapping[str, float], float], Verdict]
Progress = Callable[[int, float], None]

_PROGRESS_SECONDS = 0.25
_CHECK_STEPS = 16  # on CUDA, steps between two looks at the loss: each look waits for the device


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Everything that stays the same from the first step to the last.

    Attributes:
        model: The adapted model, on its device.
        task: What is minimised and measured.
        train: Rows to learn from.
        validation: Rows that judge every epoch.
        labels: Class names by index.
        class_weights: Weight of each class in the loss, on the device, or None.
        optimizer: Over what the strategy trains.
        scaler: Gradient scaler; does nothing outside float16.
        compute: Device and precision.
        settings: Hyperparameters.
        identity: What ``state.json`` says the run is.
        checkpoints: Where the epochs are kept.
        started: ``time.perf_counter()`` at the start of the attempt.
    """

    model: nn.Module
    task: Task
    train: Examples
    validation: Examples
    labels: Sequence[str]
    class_weights: Tensor | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    compute: Compute
    settings: Settings
    identity: str
    checkpoints: Checkpoints
    started: float

    def state(self, history: History) -> dict[str, Any]:
        """What ``state.json`` says."""
        return {
            "identity": self.identity,
            "best_epoch": history.best_epoch,
            "history": history.to_json(),
            "scaler": self.scaler.state_dict(),
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
        TrialDiverged: At the first loss, gradient or prediction that is not finite.
        TrialInfeasible: If a single row does not fit into the memory.
    """
    settings, model, optimizer = run.settings, run.model, run.optimizer
    steps = math.ceil(len(run.train.targets) / settings.batch_size)
    total = steps * settings.rules.epochs
    warmup = round(settings.warmup_ratio * total)
    watch = _DivergenceWatch(run.compute.device)
    micro_batch = settings.micro_batch
    rate = settings.learning_rate
    said = 0.0

    while not (ended_by := history.ended_by()):
        epoch = len(history.epochs) + 1
        seed_everything(settings.seed, "dropout", epoch)
        model.train()
        loss_sum = torch.zeros((), device=run.compute.device)
        batches = epoch_batches(run.train.lengths, batch_size=settings.batch_size, seed=settings.seed, epoch=epoch)
        for step, rows in enumerate(batches):
            if (verdict := released()) is not None:
                return str(verdict.value)
            if (now := time.monotonic()) - said > _PROGRESS_SECONDS:
                progress(epoch, step / steps)
                said = now
            rate = settings.learning_rate * learning_rate_factor(
                step + (epoch - 1) * steps, total=total, warmup=warmup, schedule=settings.schedule
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss, micro_batch = _gradients(run, rows, micro_batch=micro_batch)
            run.scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm or math.inf)
            # float16 overflows now and then; the scaler skips such a step, so there the loss alone is watched.
            watch.see(loss if run.scaler.is_enabled() else loss + norm, epoch=epoch, step=step + 1)
            run.scaler.step(optimizer)
            run.scaler.update()
            optimizer.zero_grad(set_to_none=True)
            loss_sum += loss * len(rows)
        watch.look()

        scores = evaluate(model, task=run.task, examples=run.validation, labels=run.labels, compute=run.compute)
        if scores is None:
            raise TrialDiverged(f"a prediction became non-finite after epoch {epoch}", fix="lower the learning rate")
        metrics = {
            **scores.metrics,
            "train_loss": loss_sum.item() / len(run.train.targets),
            "learning_rate": rate,
        }
        history.add(metrics, scores.confusion)
        run.checkpoints.save(
            state=run.state(history),
            weights=trainable_state(model),
            optimizer=optimizer_state(optimizer, model),
            best=history.best_epoch,
        )
        progress(epoch, 1.0)
        verdict = report(epoch, metrics, time.perf_counter() - run.started)
        if verdict is not Verdict.GO_ON:
            return str(verdict.value)
    return ended_by


def _gradients(run: Run, rows: Tensor, *, micro_batch: int) -> tuple[Tensor, int]:
    """Gradients of the mean loss of a batch, put together from parts that fit into the memory.

    Where a part does not fit it is halved, for the rest of the run too; the gradients stay those of the whole batch.

    Returns:
        The mean loss, on the device, and the size of the parts that did fit.
    """
    while True:
        try:
            return accumulate(run, rows, micro_batch=micro_batch), micro_batch
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            reason = str(error).splitlines()[0]
        # Outside of the handler: the exception's frames hold the activations that are to be freed.
        run.optimizer.zero_grad(set_to_none=True)
        if run.compute.device.type == "cuda":
            torch.cuda.empty_cache()
        if (micro_batch := min(micro_batch, len(rows)) // 2) == 0:
            raise TrialInfeasible(
                f"out of memory on {run.compute.name} with 1 row of {int(run.train.lengths[rows].max())} tokens "
                f"(batch size {run.settings.batch_size})",
                why=reason,
                fix="lower training.max_length, or take a smaller model",
            )


def accumulate(run: Run, rows: Tensor, *, micro_batch: int) -> Tensor:
    """Add the gradients of a batch's mean loss, part by part, and return that loss.

    The parts' losses are sums divided by the size of the whole batch, so their gradients add up to exactly those of one
    large batch, whatever their sizes, class weights and padding.
    """
    targets = run.train.targets
    mass = run.task.mass(targets[rows.to(targets.device)], weights=run.class_weights)
    total = torch.zeros((), device=run.compute.device)
    for part in rows.split(micro_batch):
        with run.compute.autocast():
            logits = run.model(**run.train.inputs(part)).logits
        loss = run.task.loss(
            logits,
            targets[part.to(targets.device)],
            smoothing=run.settings.label_smoothing,
            weights=run.class_weights,
        )
        loss = loss / mass
        run.scaler.scale(loss).backward()
        total += loss.detach()
    return total


class _DivergenceWatch:
    """Finds the first step whose loss or gradient is not finite, without waiting for a GPU at every step."""

    def __init__(self, device: torch.device) -> None:
        """Nothing seen yet."""
        self._every = _CHECK_STEPS if device.type == "cuda" else 1
        self._seen: list[tuple[Tensor, int, int]] = []

    def see(self, value: Tensor, *, epoch: int, step: int) -> None:
        """Remember a step's value; look at all that are remembered from time to time."""
        self._seen.append((value, epoch, step))
        if len(self._seen) >= self._every:
            self.look()

    def look(self) -> None:
        """Look at all remembered steps.

        Raises:
            TrialDiverged: With the first of them that was not finite.
        """
        seen, self._seen = self._seen, []
        if not seen:
            return
        finite = torch.stack([value for value, _, _ in seen]).isfinite().tolist()
        for good, (_, epoch, step) in zip(finite, seen, strict=True):
            if not good:
                raise TrialDiverged(
                    f"loss or gradient became non-finite in epoch {epoch}, step {step}", fix="lower the learning rate"
                )
