"""How well a model answers, on rows it does not learn from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tuner.tasks import Scores, Task
from tuner.training.batches import Examples, evaluation_batches
from tuner.training.device import Compute


def predict(model: nn.Module, *, examples: Examples, compute: Compute) -> Tensor:
    """The model's logits for all rows.

    Args:
        model: On its device; it is in evaluation mode inside, and left in the mode it came in.
        examples: The rows.
        compute: Device and precision.

    Returns:
        Float32 on the CPU, (rows, classes), in the order of the rows.
    """
    was_training = model.training
    model.eval()
    batches = evaluation_batches(examples.lengths)
    with torch.inference_mode(), compute.autocast():
        parts = [model(**examples.inputs(rows)).logits.float() for rows in batches]
        # One transfer for all batches, and the rows back in their own order.
        together = torch.cat(parts).cpu()
    model.train(was_training)
    logits = torch.empty_like(together)
    logits[torch.cat(batches)] = together
    return logits


def evaluate(
    model: nn.Module, *, task: Task, examples: Examples, labels: Sequence[str], compute: Compute
) -> Scores | None:
    """All metrics of the task.

    Returns:
        None if a logit is not finite: the run has diverged, and no metric means anything.
    """
    logits = predict(model, examples=examples, compute=compute)
    if not torch.isfinite(logits).all():
        return None
    return task.score(logits.numpy(), examples.targets.cpu().numpy(), labels=labels)
