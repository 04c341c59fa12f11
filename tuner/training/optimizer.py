"""AdamW and the learning rate of every step."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tuner.errors import ConflictError


def build_optimizer(model: nn.Module, *, learning_rate: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW over everything that requires gradients, with bias correction, fused into one kernel where torch can.

    Vectors (biases, norms) are not decayed: pulling them to zero is no regularisation of the function.

    Args:
        model: An adapted model, on its device.
        learning_rate: Peak learning rate.
        weight_decay: Decoupled decay of matrices and embeddings.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [parameter for parameter in trained if parameter.ndim >= 2], "weight_decay": weight_decay},
        {"params": [parameter for parameter in trained if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    fused = all(parameter.device.type in {"cpu", "cuda"} for parameter in trained)
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=learning_rate, fused=fused)


def learning_rate_factor(step: int, *, total: int, warmup: int, schedule: str) -> float:
    """The learning rate of a step as a share of its peak.

    Args:
        step: 0-based optimizer step over the whole run.
        total: Steps of the whole run.
        warmup: Steps of the linear rise from 1/warmup to 1.
        schedule: After the warmup ``constant``, ``linear`` (towards 0, which the step after the last would reach) or
            ``cosine`` (half a wave, to the same end).
    """
    if step < warmup:
        return (step + 1) / warmup
    passed = (step - warmup) / max(total - warmup, 1)
    shapes = {"constant": 1.0, "linear": 1.0 - passed, "cosine": 0.5 * (1.0 + math.cos(math.pi * passed))}
    return shapes[schedule]


def optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimizer's tensors as ``<parameter>/<moment>``; they are its own, not copies."""
    return {
        f"{name}/{moment}": tensor
        for name, parameter in model.named_parameters()
        for moment, tensor in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put saved moments back.

    Raises:
        ConflictError: If they belong to other parameters.
    """
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    owners = {key.rpartition("/")[0] for key in state}
    if not owners <= parameters.keys():
        raise ConflictError(
            "the saved optimizer does not fit the model", why=f"it has {min(owners - parameters.keys())}"
        )
    for key, tensor in state.items():
        name, _, moment = key.rpartition("/")
        parameter = parameters[name]
        optimizer.state[parameter][moment] = tensor.to(parameter.device, copy=True)
