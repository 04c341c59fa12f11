"""The random subspace in which all weights of a backbone move."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from tuner.strategies.anatomy import depths
from tuner.strategies.base import backbone_of
from tuner.strategies.inserted import Inserted

_SEED = 20_180_424  # any number; another one makes weights that were saved before worthless


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class FrozenWeight:
    """A pretrained parameter.

    Attributes:
        value: The parameter itself.
        places: Modules that have it, and its name there; several where it is tied.
        depth: The layer it belongs to.
        is_looked_up: Whether it is the table of the token embeddings and nothing else.
    """

    value: nn.Parameter
    places: tuple[tuple[nn.Module, str], ...]
    depth: int
    is_looked_up: bool


def frozen_weights(model: nn.Module) -> list[FrozenWeight]:
    """All frozen parameters of a model's backbone that no strategy has inserted, each once, in the model's order."""
    depth_of = depths(model)
    places: dict[nn.Parameter, list[tuple[nn.Module, str]]] = {}
    names: dict[nn.Parameter, str] = {}
    for prefix, module in _pretrained_modules(model):
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                places.setdefault(parameter, []).append((module, name))
                names.setdefault(parameter, f"{prefix}.{name}" if prefix else name)
    backbone = backbone_of(model)
    inside = {id(parameter) for parameter in backbone.parameters()}
    tokens = _token_embeddings(backbone)
    return [
        FrozenWeight(
            value=parameter,
            places=tuple(found),
            depth=depth_of.get(names[parameter], 0),
            is_looked_up=tokens is not None
            and parameter is tokens.weight
            and all(_is_plain(place) for place, _ in found),
        )
        for parameter, found in places.items()
        if id(parameter) in inside
    ]


class Subspace(Inserted):
    """Moves weights: ``weight + scale * (±coordinate)``, where the sign and the coordinate of each weight are random.

    While the backbone computes, its parameters are replaced by the moved weights; before and after they are the pretrained
    ones, so whatever looks at the model in between sees these. (Gradient checkpointing computes layers again when the
    backbone has long returned, and would see them too.) Of the token embeddings only the rows that were looked up are
    moved: in a small model these are nine tenths of all weights, and moving all of them took most of the time.

    Attributes:
        coordinates: What is trained, (dimension,); 0 in the beginning. A step of some size moves every weight by that size,
            as the same step of full fine-tuning would, and the gradient's norm is about that of full fine-tuning too: so
            learning rates and clipping mean what they mean there, whatever the dimension.
        scales: What is trained, too: a factor for each layer; 1 in the beginning.
    """

    def __init__(self, weights: list[FrozenWeight], *, dimension: int, backbone: nn.Module) -> None:
        """A subspace of these weights, which begins to move them.

        Args:
            weights: In an order that does not depend on the run.
            dimension: Number of coordinates, at most 16383.
            backbone: The module that computes with them.
        """
        super().__init__()
        self._weights = weights
        layers = sorted({weight.depth for weight in weights})
        self._layers = [layers.index(weight.depth) for weight in weights]
        like = weights[0].value
        self.coordinates = nn.Parameter(torch.zeros(dimension, dtype=like.dtype, device=like.device))
        self.scales = nn.Parameter(torch.ones(len(layers), dtype=like.dtype, device=like.device))
        for number, weight in enumerate(weights):  # one buffer each: so the largest is as large as the largest weight
            slots = _draw_slots(weight.value, number=number, slots=2 * dimension)
            self.register_buffer(f"slots_{number}", slots, persistent=False)
        self._handles = [
            backbone.register_forward_pre_hook(self._enter),
            backbone.register_forward_hook(self._leave, always_call=True),
        ]
        for number, weight in enumerate(weights):
            if weight.is_looked_up:
                look_up = partial(self._look_up, number)
                self._handles += [place.register_forward_hook(look_up) for place, _ in weight.places]

    @torch.no_grad()
    def settle(self) -> None:
        """Let the weights stay where they are, and move them no more."""
        for number, weight in enumerate(self._weights):
            weight.value.copy_(self._move(number, weight.value, self._slots(number)))
        for handle in self._handles:
            handle.remove()

    def _slots(self, number: int) -> Tensor:
        return self.get_buffer(f"slots_{number}").view_as(self._weights[number].value)

    def _move(self, number: int, values: Tensor, slots: Tensor) -> Tensor:
        table = torch.cat((self.coordinates, -self.coordinates))
        moved: Tensor = _Move.apply(values, table, self.scales[self._layers[number]], slots)  # type: ignore[no-untyped-call]
        return moved

    def _enter(self, *_: object) -> None:
        for number, weight in enumerate(self._weights):
            if not weight.is_looked_up:
                moved = self._move(number, weight.value, self._slots(number))
                for module, name in weight.places:
                    module._parameters[name] = moved  # type: ignore[assignment]  # noqa: SLF001 - as torch.func.functional_call does

    def _leave(self, *_: object) -> None:
        for weight in self._weights:
            for module, name in weight.places:
                module._parameters[name] = weight.value  # noqa: SLF001 - see above

    def _look_up(self, number: int, _: nn.Module, inputs: tuple[Tensor, ...], rows: Tensor) -> Tensor:
        return self._move(number, rows, nn.functional.embedding(inputs[0], self._slots(number)))


class _Move(torch.autograd.Function):
    """``weight + scale * table[slots]``; keeps nothing of the size of the weight for the way back but the slots."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        """The moved weight, of weight, table, scale and slots."""
        weight, table, scale, slots = inputs
        ctx.save_for_backward(table, scale, slots)
        moved = torch.empty(weight.shape, dtype=table.dtype, device=table.device)  # no view: CTRL scales it in place
        torch.index_select(table, 0, slots.reshape(-1).int(), out=moved.view(-1))
        return moved.mul_(scale).add_(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        """Gradients of the table and the scale, and of what was moved where anything depends on it."""
        table, scale, slots = ctx.saved_tensors
        gradient = gradients[0]
        sums = torch.zeros_like(table).index_add_(0, slots.reshape(-1).int(), gradient.reshape(-1).to(table.dtype))
        return gradient if ctx.needs_input_grad[0] else None, sums * scale, sums @ table, None


def _token_embeddings(backbone: nn.Module) -> nn.Module | None:
    """The module that looks tokens up; None in a model of pictures, or where it cannot be told."""
    try:
        found: nn.Module | None = backbone.get_input_embeddings()  # type: ignore[operator]
    except (AttributeError, NotImplementedError):
        return None
    return found if isinstance(found, nn.Embedding) else None


def _is_plain(module: nn.Module) -> bool:
    """Whether a module gives the rows of its weight as they are."""
    return type(module) is nn.Embedding and module.max_norm is None


def _draw_slots(weight: Tensor, *, number: int, slots: int) -> Tensor:
    """For each element of a weight a number below ``slots``: the same ones in every run, on every device.

    They come from NumPy's raw bit stream, which is the same in all of its versions.
    """
    if weight.is_meta:
        return torch.empty(weight.numel(), dtype=torch.int16, device="meta")
    raw = np.random.PCG64((_SEED, number)).random_raw(-(-weight.numel() // 4))
    drawn = (raw.view(np.uint16)[: weight.numel()].astype(np.uint32) * slots) >> 16
    return torch.from_numpy(drawn.astype(np.int16)).to(weight.device)


def _pretrained_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Modules and their names, without what strategies inserted; a tied parameter's modules are all among them."""
    found: list[tuple[str, nn.Module]] = []
    hidden: list[str] = []
    for name, module in model.named_modules():
        if any(name.startswith(prefix) for prefix in hidden):
            continue
        if isinstance(module, Inserted):
            hidden.append(f"{name}.")
            continue
        if isinstance(module, BaseTunerLayer):
            hidden += [f"{name}.{child}" for child in module.adapter_layer_names]  # the base layer stands beside them
        found.append((name, module))
    return found
