"""How AdaLoRA shares out its ranks: PEFT's ``RankAllocator``, with its memory where a resumed run finds it.

PEFT keeps the averages and the ranks in dictionaries of the allocator, and so loses them when a run is interrupted. Here
they are buffers beside the layers; the arithmetic is PEFT's, and is tested against it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from peft.tuners.adalora import AdaLoraLayer
from torch import Tensor, nn

from tuner.strategies.injection import ADAPTER
from tuner.strategies.inserted import Inserted

_MEMORY = 0.85  # of both moving averages (Zhang et al. 2023)
_PARTS = ("lora_A", "lora_E", "lora_B")


@dataclass(frozen=True, kw_only=True, slots=True)
class Schedule:
    """When ranks are taken away, in steps.

    Attributes:
        first: The last step at which all layers have their first rank; PEFT's ``tinit``.
        last: The step at which the ranks are final: PEFT's ``total_step - tfinal``. If it is not taken, because float16
            overflowed, the first one that is taken afterwards.
        interval: Steps between two allocations; PEFT's ``deltaT``.
    """

    first: int
    last: int
    interval: int

    @classmethod
    def of_run(cls, steps: int) -> Schedule:
        """The paper's proportions, whatever the length: its runs begin after a tenth and end about the middle."""
        first = steps // 10
        return cls(first=first, last=max(steps // 2, first + 1), interval=max(steps // 100, 1))

    def budget(self, step: int, *, first: int, final: int) -> int:
        """How many components may be other than zero after a step, of all layers together: falls by a cubic curve.

        Args:
            step: The 0-based step.
            first: Components in the beginning.
            final: Components in the end.
        """
        if step <= self.first:
            return first
        left = max(1 - (step - self.first) / (self.last - self.first), 0.0)
        return int((first - final) * left**3 + final)

    def is_due(self, step: int) -> bool:
        """Whether ranks are taken away for a while after this step."""
        return self.first < step < self.last and step % self.interval == 0


class Memory(Inserted):
    """What the allocator remembers of one layer.

    For each of its weights, moving averages of how much it mattered (``mean``) and of how much that varied (``spread``);
    and for each component whether it is kept once the ranks are final.
    """

    def __init__(self, layer: AdaLoraLayer) -> None:
        """Nothing remembered: all components are kept."""
        super().__init__()
        for part in _PARTS:
            weight = _weight(layer, part)
            self.register_buffer(f"mean_{part}", torch.zeros_like(weight, requires_grad=False))
            self.register_buffer(f"spread_{part}", torch.zeros_like(weight, requires_grad=False))
        kept = torch.ones_like(_weight(layer, "lora_E"), dtype=torch.bool, requires_grad=False)
        self.register_buffer("kept", kept)
        self.is_final = False  # whether the ranks are known to be, so that the device need not be asked at every step

    def update(self, layer: AdaLoraLayer) -> None:
        """Take in the gradients of a step."""
        for part in _PARTS:
            weight = _weight(layer, part)
            if weight.grad is None:
                continue
            mean, spread = self.get_buffer(f"mean_{part}"), self.get_buffer(f"spread_{part}")
            # Where float16 overflowed the optimizer skipped the step: it says nothing, and must not stay for ever.
            matter = (weight.detach() * weight.grad).abs().nan_to_num(nan=0.0, posinf=0.0)
            mean.mul_(_MEMORY).add_(matter, alpha=1 - _MEMORY)
            spread.mul_(_MEMORY).add_((matter - mean).abs(), alpha=1 - _MEMORY)

    def scores(self) -> Tensor:
        """How much each component matters, (rank, 1): its own weight, and the average over its row of A and column of B."""
        own = {part: self.get_buffer(f"mean_{part}") * self.get_buffer(f"spread_{part}") for part in _PARTS}
        rows, columns = own["lora_A"].mean(dim=1, keepdim=True), own["lora_B"].mean(dim=0).view(-1, 1)
        return own["lora_E"] + (rows + columns)


def remember(model: nn.Module) -> None:
    """Give every AdaLoRA layer of a model its memory."""
    for layer in _layers(model):
        layer.add_module("memory", Memory(layer))
        layer.ranknum[ADAPTER].requires_grad = False  # a constant; on the meta device PEFT forgets to say so


def allocate(model: nn.Module, *, schedule: Schedule, step: int, ranks: tuple[int, int]) -> None:
    """What has to be done after a step: remember its gradients, take ranks away, or keep away those that were taken.

    Args:
        model: With AdaLoRA layers that remember; where they are not trained just now, nothing is done.
        schedule: When.
        step: The 0-based step that was just taken; the gradients are still there.
        ranks: Of each layer, in the beginning and in the end.
    """
    layers = [layer for layer in _layers(model) if _weight(layer, "lora_E").grad is not None]
    if not layers:
        return
    if step < schedule.last:
        for layer in layers:
            layer.memory.update(layer)
    elif _are_final(layers):
        keep_away(model)
        return
    if step >= schedule.last or schedule.is_due(step):
        first, final = (rank * len(layers) for rank in ranks)
        budget = schedule.budget(step, first=first, final=final)
        _take_away(layers, count=first - budget, for_good=step >= schedule.last)


def keep_away(model: nn.Module) -> None:
    """Set the components to zero that were taken away for good; before that there are none."""
    for layer in _layers(model):
        _weight(layer, "lora_E").data.masked_fill_(~layer.memory.kept, 0.0)


def orthogonality(model: nn.Module) -> Tensor:
    """Frobenius norm of what A and B lack to be orthonormal, averaged over all of them; a scalar."""
    terms = []
    for layer in _layers(model):
        a, b = _weight(layer, "lora_A"), _weight(layer, "lora_B")
        identity = torch.eye(len(a), dtype=a.dtype, device=a.device)
        terms += [torch.linalg.matrix_norm(a @ a.T - identity), torch.linalg.matrix_norm(b.T @ b - identity)]
    return torch.stack(terms).mean()


def _take_away(layers: list[Any], *, count: int, for_good: bool) -> None:
    """Set the components that matter least to zero; unless it is for good, training may bring them back."""
    if count <= 0:
        return
    scores = [layer.memory.scores() for layer in layers]
    threshold = torch.cat(scores).flatten().kthvalue(count).values
    for layer, score in zip(layers, scores, strict=True):
        _weight(layer, "lora_E").data.masked_fill_(score <= threshold, 0.0)
        if for_good:
            layer.memory.kept.copy_(score > threshold)


def _are_final(layers: list[Any]) -> bool:
    """Whether components were taken away for good, in this attempt or in one that was resumed."""
    if not layers[0].memory.is_final:
        is_final = not bool(torch.stack([layer.memory.kept.all() for layer in layers]).all())
        for layer in layers:
            layer.memory.is_final = is_final
    return bool(layers[0].memory.is_final)


def _layers(model: nn.Module) -> Iterator[Any]:
    return (module for module in model.modules() if isinstance(module, AdaLoraLayer))


def _weight(layer: AdaLoraLayer, part: str) -> nn.Parameter:
    weight: nn.Parameter = getattr(layer, part)[ADAPTER]
    return weight
