"""How well a model answers, on rows it does not learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from tuner.tasks import Scores, Task
from tuner.training.batches import Examples, evaluation_batches
from tuner.training.device import Compute
from tuner.training.memory import in_parts


def _nothing() -> None:
    """Nobody needs to know."""


def predict(
    model: nn.Module, *, examples: Examples, compute: Compute, moves: Callable[[], object] = _nothing
) -> Tensor:
    """The model's logits for all rows.

    Args:
        model: On its device; it is in evaluation mode inside, and left in the mode it came in.
        examples: The rows.
        compute: Device and precision.
        moves: Called before every batch, so that somebody can tell a long evaluation from one that hangs.

    Returns:
        Float32 on the CPU, (rows, classes), in the order of the rows.
    """
    was_training = model.training
    model.eval()
    batches = evaluation_batches(examples.lengths)

    def answer(rows: Tensor) -> Tensor:
        moves()
        answers: Tensor = model(**examples.inputs(rows)).logits.float()
        return answers

    with torch.inference_mode(), compute.autocast():
        parts = in_parts(batches, answer, device=compute.device)
        # One transfer for all batches, and the rows back in their own order.
        together = torch.cat(parts).cpu()
    model.train(was_training)
    logits = torch.empty_like(together)
    logits[torch.cat(batches)] = together
    return logits


def evaluate(
    model: nn.Module,
    *,
    task: Task,
    examples: Examples,
    labels: Sequence[str],
    compute: Compute,
    moves: Callable[[], object] = _nothing,
    by_row: str = "",
) -> Scores | None:
    """All metrics of the task; the arguments are those of :func:`predict`, and a metric whose parts by row are kept, too.

    Returns:
        None if a logit is not finite: the run has diverged, and no metric means anything.
    """
    logits = predict(model, examples=examples, compute=compute, moves=moves)
    if not torch.isfinite(logits).all():
        return None
    answers, targets = logits.numpy(), examples.targets.cpu().numpy()
    scores = task.score(answers, targets, labels=labels)
    return replace(scores, by_row=task.by_row(answers, targets, metric=by_row)) if by_row else scores
