"""What a step minimises, and its gradients: put together from parts that fit into the memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tuner.errors import TrialOutOfMemory, first_line
from tuner.strategies.base import Strategy
from tuner.study.domains import Value
from tuner.tasks import Task
from tuner.training.batches import Examples
from tuner.training.device import Compute, random_state, set_random_state
from tuner.training.distill import distillation
from tuner.training.embeddings import Change, logits_of
from tuner.training.memory import free_what_is_free, is_out_of_memory
from tuner.training.regularisers import Adversary, Mixing, l1, l2_sp, r_drop
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
        starts: Where ``l2_sp`` pulls the trained weights to, by name, on the device; 0 what is not in it.
        teacher: What the teacher says about each row, (rows, classes), on the device, or None.
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
    starts: Mapping[str, Tensor]
    teacher: Tensor | None
    scaler: torch.amp.GradScaler
    compute: Compute
    settings: Settings

    def backward(self, rows: Tensor, *, step: int, micro_batch: int) -> tuple[Tensor, int]:
        """Give every trained parameter its gradient.

        Where a part does not fit into the memory it is halved, for the rest of the run too; the gradients stay those of
        the whole batch.

        Args:
            rows: Row numbers of the batch, on the CPU.
            step: 0-based step over the whole run; what is drawn for the batch depends on it.
            micro_batch: Rows on the device at once.

        Returns:
            What is minimised, a scalar on the device, and the size of the parts that did fit.

        Raises:
            TrialOutOfMemory: If a single row does not fit.
        """
        drawn = random_state(self.compute.device)
        while True:
            try:
                return self.accumulate(rows, step=step, micro_batch=micro_batch), micro_batch
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                reason = first_line(error)
            # Outside of the handler: the exception's frames hold the activations that are to be freed.
            self.model.zero_grad(set_to_none=True)
            set_random_state(drawn, self.compute.device)  # what is tried again draws what it would have drawn at first
            free_what_is_free(self.compute.device)
            if (micro_batch := min(micro_batch, len(rows)) // 2) == 0:
                raise TrialOutOfMemory(
                    f"out of memory on {self.compute.name} with 1 row of {int(self.train.lengths[rows].max())} tokens "
                    f"(batch size {self.settings.batch_size})",
                    why=reason,
                    fix="lower training.max_length, or take a smaller model",
                )

    def accumulate(self, rows: Tensor, *, step: int, micro_batch: int) -> Tensor:
        """Add the gradients of a batch, part by part, and return what is minimised.

        The parts' losses are sums divided by the size of the whole batch, so their gradients add up to exactly those of
        one large batch, whatever their sizes, class weights and padding. A penalty is added once.
        """
        mixing = self._mixing(len(rows), step=step)
        partners = rows if mixing is None else rows[mixing.partners]
        mass = self.task.mass(self._targets(rows), weights=self.class_weights)
        total = torch.zeros((), device=self.compute.device)
        for own, others in zip(rows.split(micro_batch), partners.split(micro_batch), strict=True):
            part = _Part(rows=own, partners=others, mixing=mixing, size=len(rows), mass=mass)
            adversary = Adversary(epsilon=self.settings.fgm) if self.settings.fgm else None
            total += self._descend(self._loss(part, change=None if adversary is None else adversary.watch))
            if adversary is not None:
                total += self._descend(self._loss(part, change=adversary.disturb()))
        for penalty in self._penalties():
            total += self._descend(penalty)
        return total

    def _descend(self, loss: Tensor) -> Tensor:
        """Add a term's gradients; return its value."""
        if loss.requires_grad:  # a penalty on what stands still in this phase does not
            self.scaler.scale(loss).backward()
        return loss.detach()

    def _loss(self, part: _Part, *, change: Change | None) -> Tensor:
        """A part's share of the batch's mean loss."""
        mix = None if part.mixing is None else part.mixing.mix
        inputs = self.train.inputs(part.rows if mix is None else torch.cat([part.rows, part.partners]))
        with self.compute.autocast():
            logits = logits_of(self.model, inputs, change=change, mix=mix)
        loss = self._fit(logits, part)
        if self.settings.r_drop:
            with self.compute.autocast():
                again = logits_of(self.model, inputs, change=change, mix=mix)
            loss = 0.5 * (loss + self._fit(again, part))
            loss = loss + self.settings.r_drop / part.size * r_drop(logits, again)
        return loss

    def _fit(self, logits: Tensor, part: _Part) -> Tensor:
        """How far a part's logits are from what they should be, as a share of the batch's mean."""
        loss = self._miss(logits, part.rows, part)
        return loss if part.mixing is None else part.mixing.mix(loss, self._miss(logits, part.partners, part))

    def _miss(self, logits: Tensor, rows: Tensor, part: _Part) -> Tensor:
        """How far a part's logits are from the labels of some rows, and from what the teacher says about them.

        Class weights and label smoothing are a matter of the labels; to the teacher all rows are the same.
        """
        settings = self.settings
        loss = self.task.loss(
            logits, self._targets(rows), smoothing=settings.label_smoothing, weights=self.class_weights
        )
        loss = loss / part.mass
        if self.teacher is None:
            return loss
        lessons = self.teacher[rows.to(self.teacher.device)]
        away = distillation(logits, lessons, temperature=settings.distill_temperature) / part.size
        return torch.lerp(loss, away, settings.distill_weight)

    def _mixing(self, rows: int, *, step: int) -> Mixing | None:
        settings = self.settings
        return Mixing.draw(alpha=settings.mixup, rows=rows, seed=settings.seed, step=step) if settings.mixup else None

    def _targets(self, rows: Tensor) -> Tensor:
        targets = self.train.targets
        return targets[rows.to(targets.device)]

    def _penalties(self) -> Iterator[Tensor]:
        """What is added once for the whole batch."""
        penalty = self.strategy.penalty(self.model, self.params)
        if penalty is not None:
            yield penalty
        if not (self.settings.l1 or self.settings.l2_sp):
            return
        trained = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
        if self.settings.l1:
            yield self.settings.l1 * l1(trained.values())
        if self.settings.l2_sp:
            yield self.settings.l2_sp * l2_sp(trained, starts=self.starts)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """A part of a batch.

    Attributes:
        rows: Its row numbers.
        partners: The row that each of them is mixed with, of the whole batch; the row itself where none are.
        mixing: How much of each, or None.
        size: Rows of the whole batch.
        mass: What the summed loss of the whole batch is divided by.
    """

    rows: Tensor
    partners: Tensor
    mixing: Mixing | None
    size: int
    mass: float | Tensor
