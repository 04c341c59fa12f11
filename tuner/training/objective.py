"""What a step minimises, and its gradients: put together from parts that fit into the memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tuner.errors import TrialInfeasible
from tuner.strategies.base import Strategy
from tuner.study.domains import Value
from tuner.tasks import Task
from tuner.training.batches import Examples
from tuner.training.device import Compute, is_out_of_memory
from tuner.training.settings import Settings


@dataclass(frozen=True, kw_only=True, slots=True)
class Objective:
    """The mean loss of a batch, and what is added to it.

    Attributes:
        model: The adapted model, on its device.
        strategy: How it was adapted; it may add a penalty.
        params: The trial's values, for the strategy.
        task: What is minimised and measured.
        train: Rows to learn from.
        class_weights: Weight of each class in the loss, on the device, or None.
        scaler: Gradient scaler; does nothing outside float16.
        compute: Device and precision.
        settings: Hyperparameters.
    """

    model: nn.Module
    strategy: Strategy
    params: Mapping[str, Value]
    task: Task
    train: Examples
    class_weights: Tensor | None
    scaler: torch.amp.GradScaler
    compute: Compute
    settings: Settings

    def backward(self, rows: Tensor, *, micro_batch: int) -> tuple[Tensor, int]:
        """Give every trained parameter its gradient.

        Where a part does not fit into the memory it is halved, for the rest of the run too; the gradients stay those of
        the whole batch.

        Args:
            rows: Row numbers of the batch, on the CPU.
            micro_batch: Rows on the device at once.

        Returns:
            What is minimised, a scalar on the device, and the size of the parts that did fit.

        Raises:
            TrialInfeasible: If a single row does not fit.
        """
        while True:
            try:
                return self.accumulate(rows, micro_batch=micro_batch), micro_batch
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = str(error).splitlines()[0]
            # Outside of the handler: the exception's frames hold the activations that are to be freed.
            self.model.zero_grad(set_to_none=True)
            if self.compute.device.type == "cuda":
                torch.cuda.empty_cache()
            if (micro_batch := min(micro_batch, len(rows)) // 2) == 0:
                raise TrialInfeasible(
                    f"out of memory on {self.compute.name} with 1 row of {int(self.train.lengths[rows].max())} tokens "
                    f"(batch size {self.settings.batch_size})",
                    why=reason,
                    fix="lower training.max_length, or take a smaller model",
                )

    def accumulate(self, rows: Tensor, *, micro_batch: int) -> Tensor:
        """Add the gradients of a batch, part by part, and return what is minimised.

        The parts' losses are sums divided by the size of the whole batch, so their gradients add up to exactly those of
        one large batch, whatever their sizes, class weights and padding. A penalty is added once.
        """
        targets = self.train.targets
        mass = self.task.mass(targets[rows.to(targets.device)], weights=self.class_weights)
        total = torch.zeros((), device=self.compute.device)
        for part in rows.split(micro_batch):
            with self.compute.autocast():
                logits = self.model(**self.train.inputs(part)).logits
            loss = self.task.loss(
                logits,
                targets[part.to(targets.device)],
                smoothing=self.settings.label_smoothing,
                weights=self.class_weights,
            )
            loss = loss / mass
            self.scaler.scale(loss).backward()
            total += loss.detach()
        penalty = self.strategy.penalty(self.model, self.params)
        if penalty is not None:
            if penalty.requires_grad:  # not while all that it speaks of stands still
                self.scaler.scale(penalty).backward()
            total += penalty.detach()
        return total
