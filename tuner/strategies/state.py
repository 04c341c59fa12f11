"""What a trial changes in a model: collected, counted, and put back exactly.

The rule is the same for every strategy and every combination, so that nothing a strategy trains can be forgotten when
it is saved: all parameters that are trained, the running statistics of normalisation layers, which change with every
training batch although no gradient reaches them, and what inserted modules remember.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from tuner.errors import ConflictError

if TYPE_CHECKING:
    from torch import Tensor, nn


def trained_names(model: nn.Module) -> frozenset[str]:
    """The names of the parameters that require gradients: of an adapted model, all that will ever be trained."""
    return frozenset(name for name, parameter in model.named_parameters() if parameter.requires_grad)


def trainable_state(model: nn.Module, *, names: Collection[str] | None = None) -> dict[str, Tensor]:
    """Name and tensor of everything that training changes; the tensors are the model's own, not copies.

    Args:
        model: An adapted model.
        names: The parameters that are trained, where some of them stand still just now (:class:`Phase`); None: those
            that require gradients.
    """
    chosen = trained_names(model) if names is None else names
    state = {name: parameter.detach() for name, parameter in model.named_parameters() if name in chosen}
    return state | _buffers(model)


def load_trainable_state(
    model: nn.Module, state: Mapping[str, Tensor], *, names: Collection[str] | None = None
) -> None:
    """Put saved values back into an adapted model.

    Args:
        model: The model, adapted by the same strategy with the same hyperparameters.
        state: What :func:`trainable_state` gave.
        names: As there.

    Raises:
        ConflictError: If a name or a shape differs; the model is unchanged then.
    """
    own = trainable_state(model, names=names)
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


def _buffers(model: nn.Module) -> dict[str, Tensor]:
    """What changes without gradients: running statistics, and the memory of what strategies inserted."""
    from torch.nn.modules.batchnorm import _NormBase  # the only class that all normalisations with statistics share

    from tuner.strategies.inserted import Inserted

    return {
        f"{prefix}.{name}" if prefix else name: buffer
        for prefix, module in model.named_modules()
        if isinstance(module, (_NormBase, Inserted))
        for name, buffer in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set  # noqa: SLF001 - torch has no public read of it
    }
