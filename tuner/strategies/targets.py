"""Which pretrained layers a method adapts, by full module name.

The names are complete, because PEFT matches by suffix and would otherwise take ``pre_classifier`` for ``classifier``. A
layer that PEFT has wrapped for another strategy goes by the name of its wrapper: the next wrapper goes around it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuner.errors import TrialInfeasible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor, nn

    from tuner.strategies.anatomy import Attention

_ROUTERS = frozenset(("gate", "router"))


def linear_targets(model: nn.Module) -> dict[str, nn.Module]:
    """All frozen linear layers (``nn.Linear`` and GPT-2's ``Conv1D``); without any, the ungrouped convolutions.

    The head is trained in full and needs no adapter. ResNet's backbone is one without a linear layer. Skipped are layers
    that another strategy inserted, and the projection inside ``nn.MultiheadAttention``, whose forward reads the weight
    directly and would pass an adapter by. So are gates of one output, as beside Qwen2-MoE's experts, routers, and heads for
    another task (ESM's for contacts): a low rank has no room there.

    Returns:
        Name and pretrained layer, in the model's order; the layer itself also where it is wrapped.
    """
    from tuner.strategies.anatomy import LINEAR

    frozen = _frozen_layers(model)
    linear: dict[str, nn.Module] = {
        name: layer for name, layer in frozen.items() if isinstance(layer, LINEAR) and not _is_aside(name, layer)
    }
    return linear or {name: layer for name, layer in frozen.items() if getattr(layer, "groups", 1) == 1}


def attention_targets(model: nn.Module, *, roles: str = "qkvo") -> dict[str, nn.Module]:
    """The frozen layers of the attentions that make queries (q), keys (k), values (v) or the output (o).

    A layer that makes several of them at once, as GPT-2's ``c_attn`` and ModernBERT's ``Wqkv`` do, is taken whole.

    Returns:
        Empty if the model has no attention, or if its layers' names do not tell what they make.
    """
    from tuner.strategies.anatomy import find_blocks

    frozen = _frozen_layers(model)
    attentions = [attention for block in find_blocks(model) for attention in block.attentions]
    chosen = [name for attention in attentions for name in _pick(attention, roles)]
    return {name: frozen[name] for name in chosen if name in frozen}


def feed_forward_targets(model: nn.Module) -> dict[str, nn.Module]:
    """The frozen layers that write the results of the feed-forwards."""
    from tuner.strategies.anatomy import find_blocks

    frozen = _frozen_layers(model)
    outputs = [block.feed_forward.output for block in find_blocks(model) if block.feed_forward is not None]
    return {name: frozen[name] for name in outputs if name in frozen}


def narrowest(targets: Mapping[str, nn.Module]) -> tuple[str, int]:
    """The layer that bears the lowest rank, and that rank: the smaller one of its inputs and outputs."""
    widths = {}
    for name, layer in targets.items():
        weight: Tensor = layer.weight  # type: ignore[assignment]
        widths[name] = min(weight.shape[:2])
    name = min(widths, key=lambda target: widths[target])
    return name, widths[name]


def refuse_wrapped(
    model: nn.Module,
    targets: Mapping[str, nn.Module],
    *,
    method: str,
    why: str,
    fix: str,
    kind: type[nn.Module] | None = None,
) -> None:
    """Refuse layers that PEFT has wrapped for another strategy, where it cannot wrap them again.

    Args:
        model: The model.
        targets: The layers that the method would adapt.
        method: What would adapt them.
        why: Why it cannot.
        fix: What to do about it.
        kind: The kind of layer of which this is true; None: of all.

    Raises:
        TrialInfeasible: If there is such a layer.
    """
    for name, layer in targets.items():
        if (kind is None or isinstance(layer, kind)) and model.get_submodule(name) is not layer:
            raise TrialInfeasible(f"{method} cannot adapt {name}, which another strategy has wrapped", why=why, fix=fix)


def _pick(attention: Attention, roles: str) -> Iterable[str]:
    from tuner.strategies.anatomy import made_by

    for name in attention.inputs:
        made = {"q", "k", "v"} if len(attention.inputs) == 1 else made_by(name)
        if made & set(roles):
            yield name
    if "o" in roles:
        yield attention.output


def _is_aside(name: str, layer: nn.Module) -> bool:
    """Whether a layer makes no features: a gate, a router, or a head for another task."""
    from tuner.strategies.anatomy import layer_size

    *above, last = name.split(".")
    return layer_size(layer)[1] == 1 or last in _ROUTERS or any(part.endswith("_head") for part in above)


def _frozen_layers(model: nn.Module) -> dict[str, nn.Module]:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import nn

    from tuner.strategies.anatomy import LINEAR
    from tuner.strategies.inserted import Inserted

    found: dict[str, nn.Module] = {}
    hidden: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if name.startswith(hidden) and hidden:
            continue
        layer: nn.Module = module
        if isinstance(module, Inserted):
            hidden += (f"{name}.",)
        elif isinstance(module, nn.MultiheadAttention):
            hidden += (f"{name}.out_proj",)
        elif isinstance(module, BaseTunerLayer):
            hidden += (f"{name}.",)
            layer = module.get_base_layer()
        if isinstance(layer, (*LINEAR, nn.Conv2d)) and not layer.weight.requires_grad:
            found[name] = layer
    return found
