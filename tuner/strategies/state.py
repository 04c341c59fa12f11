"""What a trial changes in a model: collected, counted, and put back exactly.

The rule is the same for every strategy and every combination, so that nothing a strategy trains can be forgotten when
it is saved: all parameters that require gradients, and the running statistics of normalisation layers, which change
with every training batch although no gradient reaches them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tuner.errors import ConflictError

if TYPE_CHECKING:
    from torch import Tensor, nn


def trainable_state(model: nn.Module) -> dict[str, Tensor]:
    """Name and tensor of everything that training changes; the tensors are the model's own, not copies."""
    state = {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}
    return state | _running_statistics(model)


def load_trainable_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put saved values back into an adapted model.

    Args:
        model: The model, adapted by the same strategy with the same hyperparameters.
        state: What :func:`trainable_state` gave.

    Raises:
        ConflictError: If a name or a shape differs; the model is unchanged then.
    """
    own = trainable_state(model)
    wrong = sorted(own.keys() ^ state.keys())
    wrong += sorted(name for name in own.keys() & state.keys() if own[name].shape != state[name].shape)
    if wrong:
        listed = ", ".join(wrong[:3]) + (" …" if len(wrong) > 3 else "")
        raise ConflictError(
            f"the saved weights do not fit the model ({len(wrong)} of {len(own)} tensors: {listed})",
            why="they were saved by another strategy or with other hyperparameters",
        )
    for name, tensor in own.items():
        tensor.copy_(state[name])


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """How many parameters require gradients, and how many there are; a tied parameter counts once."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)


def _running_statistics(model: nn.Module) -> dict[str, Tensor]:
    from torch.nn.modules.batchnorm import _NormBase  # the only class that all normalisations with statistics share

    return {
        f"{prefix}.{name}" if prefix else name: buffer
        for prefix, module in model.named_modules()
        if isinstance(module, _NormBase)
        for name, buffer in module.named_buffers(recurse=False)
    }
