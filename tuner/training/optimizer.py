"""The optimizers, their parameter groups, and their state by the names of the parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from lion_pytorch import Lion
from torch import Tensor, nn

from tuner.errors import ConflictError

_FUSED = frozenset({"cpu", "cuda"})  # devices with kernels that update all parameters at once

_OPTIMIZERS: Mapping[str, tuple[Callable[..., torch.optim.Optimizer], bool]] = {
    # name: (constructor, whether torch has a fused kernel)
    "adamw": (torch.optim.AdamW, True),
    "adam": (torch.optim.Adam, True),
    "sgd": (partial(torch.optim.SGD, momentum=0.9), True),
    "rmsprop": (torch.optim.RMSprop, False),
    "adafactor": (torch.optim.Adafactor, False),
    "lion": (partial(Lion, betas=(0.9, 0.99)), False),
}


def build_optimizer(
    model: nn.Module,
    *,
    learning_rate: float,
    weight_decay: float,
    kind: str = "adamw",
    factors: Mapping[str, float] | None = None,
) -> torch.optim.Optimizer:
    """An optimizer over everything that requires gradients, fused into one kernel where torch can.

    Vectors (:func:`is_vector`) are not decayed: pulling them to zero is no regularisation of the function. Everything else
    is, the matrices of low-rank updates and the vectors of several virtual tokens among it, as in PEFT's own recipes. AdamW,
    Adafactor and Lion decay the weights themselves; Adam, SGD and RMSprop add the decay to the gradient, which is an L2
    penalty.

    Adafactor's step is relative: the rate times the root mean square of the tensor (0.001 at least). Torch caps the rate
    at 1/sqrt(step), whatever the schedule says; its decay knows no cap.

    Args:
        model: An adapted model, on its device.
        learning_rate: Peak learning rate.
        weight_decay: Decay of matrices and embeddings.
        kind: ``adamw``, ``adam``, ``sgd`` (momentum 0.9), ``rmsprop``, ``adafactor`` or ``lion``.
        factors: Factor of the learning rate by name; 1 for those that are missing.
    """
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    for name, parameter in sorted(trained, key=lambda entry: is_vector(entry[1])):  # matrices first
        key = ((factors or {}).get(name, 1.0), not is_vector(parameter))
        groups.setdefault(key, []).append(parameter)
    build, has_fused = _OPTIMIZERS[kind]
    fused: dict[str, Any] = {}
    if has_fused:
        fused["fused"] = all(parameter.device.type in _FUSED for _, parameter in trained)
    return build(
        [
            {"params": members, "weight_decay": weight_decay if decays else 0.0, "factor": factor}
            for (factor, decays), members in groups.items()
        ],
        lr=learning_rate,
        **fused,
    )


def is_vector(parameter: Tensor) -> bool:
    """Whether a parameter is one row of numbers, whatever shape it is stored in: a bias, a norm's weight, a scale.

    IA3's factors are (n, 1) or (1, n) and begin at 1. The price: a low-rank update of rank 1 has no matrices.
    """
    return parameter.numel() == max(parameter.shape, default=1)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Let the next step have this learning rate, times the factor of each group."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]


def optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimizer's tensors as ``<parameter>/<moment>``; they are its own, not copies."""
    return {
        f"{name}/{moment}": value
        for name, parameter in model.named_parameters()
        for moment, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)  # SGD says None of a momentum that it does not have yet
    }


def load_optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put saved moments back; each comes to the device where the optimizer wants it.

    Raises:
        ConflictError: If they belong to other parameters.
    """
    places = {
        id(parameter): place
        for place, parameter in enumerate(entry for group in optimizer.param_groups for entry in group["params"])
    }
    indices = {name: places[id(parameter)] for name, parameter in model.named_parameters() if id(parameter) in places}
    owners = {key.rpartition("/")[0] for key in state}
    if not owners <= indices.keys():
        raise ConflictError("the saved optimizer does not fit the model", why=f"it has {min(owners - indices.keys())}")
    moments: dict[int, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        name, _, moment = key.rpartition("/")
        moments.setdefault(indices[name], {})[moment] = tensor.clone()
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
