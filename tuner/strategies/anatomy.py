"""Where the parts of a pretrained backbone are: its blocks, and in each block the attention and the feed-forward.

Hugging Face has one module tree for each family, and none of them says which layer is which. Used here is what holds in
all of them: the repeated layers stand in a list of modules of one class; what belongs to an attention is under a module
whose class speaks of attention; the layer that writes an attention's result has one of a few names, or is the last one;
and the last linear layer of a feed-forward writes its result.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from tuner.strategies.base import backbone_of
from tuner.strategies.inserted import Inserted

LINEAR = (nn.Linear, Conv1D)
"""A layer that multiplies by a matrix; GPT-2's ``Conv1D`` keeps the matrix transposed, (inputs, outputs)."""

_CROSS = ("cross", "encdec", "encoder_attn")

_OUTPUTS = frozenset(
    (
        "o_proj",
        "out_proj",
        "output_proj",
        "out_lin",
        "post_proj",
        "c_proj",
        "to_out",
        "proj",
        "dense",
        "wo",
        "out",
        "output",
        "o",
    )
)
"""Last parts of the names of the layers that write an attention's result, in lower case."""

_LAST = re.compile(r"(?:^|[._])(?:final|last|ln_f|norm_f|post_layernorm|project_out|pooler)")
"""In the names of what comes after the last block."""

_SPELLED = ("query", "key", "value")
_LETTERS = re.compile(r"(?:w_?|to_?)?([qkv]+)(?![a-z])")  # q, k_proj, v_lin, Wqkv, qkv_proj, to_q

_RELATIVE = ".rel_embeddings."


@dataclass(frozen=True, kw_only=True, slots=True)
class Attention:
    """One attention, by full module names.

    Attributes:
        core: The module that computes queries, keys and values and calls the attention function. The first argument of
            its forward is what the block reads; in an attention to the encoder, what the queries are made from.
        inputs: The linear layers that make queries, keys and values; one or three.
        output: The linear layer that writes the result, before the residual is added.
        is_cross: Whether it looks at the encoder's output.
    """

    core: str
    inputs: tuple[str, ...]
    output: str
    is_cross: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class FeedForward:
    """One feed-forward, by full module names.

    Attributes:
        inputs: The linear layers that read the block's hidden states; two where one is a gate.
        output: The linear layer that writes the result, before the residual is added.
    """

    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """One of the repeated layers of a backbone.

    Attributes:
        name: Full module name.
        attentions: None in a convolutional network; two in a decoder that looks at an encoder.
        feed_forward: None where there is none that is made of linear layers.
    """

    name: str
    attentions: tuple[Attention, ...]
    feed_forward: FeedForward | None


def find_blocks(model: nn.Module) -> tuple[Block, ...]:
    """The repeated layers of the backbone, from the input to the output; an encoder's before a decoder's.

    Networks with stages (ResNet, Swin) have the layers of all stages one after the other. What strategies inserted, and
    the wrappers of PEFT, are looked through: the names are those under which ``model.get_submodule`` finds the layers
    now.

    Returns:
        Empty if the backbone has no list of equal layers.
    """
    return tuple(_block(model, name) for name in _block_names(model))


def depths(model: nn.Module) -> dict[str, int]:
    """How far from the input each parameter is, by parameter name.

    What stands in no block is placed by its name where that tells (OPT lists its last norm before its layers, MPNet the
    relative positions that all layers read behind them), else by the order in which it is listed.

    Returns:
        0 for the embeddings and what else all blocks read, 1 to n for the n blocks, n + 1 for what comes after them, the
        head included. Norms between an encoder and a decoder count with the last block before them.
    """
    blocks = _block_names(model)
    backbone = backbone_of(model)
    inside = {id(parameter) for parameter in backbone.parameters()}
    tables = {id(module.weight) for module in backbone.modules() if isinstance(module, nn.Embedding)}
    relative = tuple(f"{name.partition(_RELATIVE)[0]}." for name, _ in model.named_parameters() if _RELATIVE in name)
    found: dict[str, int] = {}
    below = 0  # the last block that was listed before
    for name, parameter in model.named_parameters():
        number = next((number for number, block in enumerate(blocks, start=1) if name.startswith(f"{block}.")), None)
        if number is not None:
            below = found[name] = number
        elif id(parameter) not in inside:
            found[name] = len(blocks) + 1
        elif id(parameter) in tables or "embed" in name.lower():
            found[name] = 0
        elif relative and name.startswith(relative):
            # DeBERTa's encoder itself has the norm of the relative positions, and a convolution beside the first block.
            found[name] = 1 if ".conv." in name else 0
        else:
            below_it = _blocks_below(name, blocks) if _LAST.search(name.lower()) else below
            found[name] = below_it + 1 if blocks and below_it == len(blocks) else below_it
    return found


def _blocks_below(name: str, blocks: list[str]) -> int:
    """The number of the last block beside what comes after all blocks that stand beside it."""
    while name:
        name = name.rpartition(".")[0]
        beside = [number for number, block in enumerate(blocks, start=1) if not name or block.startswith(f"{name}.")]
        if beside:
            return beside[-1]
    return 0


def _block_names(model: nn.Module) -> list[str]:
    backbone = backbone_of(model)
    prefix = next((f"{name}." if name else "" for name, module in model.named_modules() if module is backbone), "")
    names: list[str] = []
    lists: list[str] = []
    for name, module in backbone.named_modules():
        if isinstance(module, nn.ModuleList) and not _is_below(name, lists) and _is_repeated(module):
            lists.append(name)
            for number, layer in enumerate(module):
                names += [f"{prefix}{name}.{number}{child}" for child in _layers_of_stage(layer)]
    return names


def _is_below(name: str, lists: list[str]) -> bool:
    return any(name.startswith(f"{outer}.") for outer in lists)


def _is_repeated(layers: nn.ModuleList | nn.Sequential) -> bool:
    """Whether these are layers of one kind that have layers of their own: not a list of plain linear layers."""
    kinds = {type(layer) for layer in layers}
    return len(kinds) == 1 and all(any(True for _ in layer.children()) for layer in layers)


def _layers_of_stage(layer: nn.Module) -> list[str]:
    """The names of a stage's layers below it; of what is no stage, its own."""
    if "Stage" not in type(layer).__name__:
        return [""]
    for name, child in layer.named_children():
        # ConvNeXt has a list of one norm and one convolution before that of its layers.
        if isinstance(child, (nn.ModuleList, nn.Sequential)) and len(child) and _is_repeated(child):
            return [f".{name}.{number}" for number in range(len(child))]
    return [""]


def _block(model: nn.Module, name: str) -> Block:
    block = model.get_submodule(name)
    groups: dict[str, list[str]] = {}  # linear layers by the attention they belong to; "" is the feed-forward
    for child in _linear_names(block):
        groups.setdefault(_attention_above(block, child), []).append(child)
    attentions = []
    for group, layers in groups.items():
        if group and (ends := _ends(block, layers)):
            inputs, output = ends
            attentions.append(
                Attention(
                    core=f"{name}.{inputs[0].rpartition('.')[0]}",
                    inputs=tuple(f"{name}.{layer}" for layer in inputs),
                    output=f"{name}.{output}",
                    is_cross=any(word in layers[0].lower() for word in _CROSS),
                )
            )
    return Block(name=name, attentions=tuple(attentions), feed_forward=_feed_forward(block, name, groups.get("", [])))


def _ends(block: nn.Module, layers: list[str]) -> tuple[list[str], str] | None:
    """The layers of an attention that make queries, keys and values, and the one that writes the result.

    The order alone does not tell: Phi-3 lists the output first, WavLM and MiniMax have a gate after it.

    Returns:
        None if there are no two such layers: JetMoE's experts are no linear layers.
    """
    makers = [layer for layer in layers if made_by(layer)]
    others = [layer for layer in layers if layer not in makers]
    width = layer_size(block.get_submodule((makers or layers)[0]))[0]  # the result is added to what was read
    fitting = [layer for layer in others if layer_size(block.get_submodule(layer))[1] == width]
    named = [layer for layer in others if layer.rpartition(".")[2].lower() in _OUTPUTS]
    both = [layer for layer in named if layer in fitting]
    found = both or named or fitting or ([] if makers else layers)
    inputs = [layer for layer in makers or layers if layer not in found[-1:]]
    return (inputs, found[-1]) if found and inputs else None


def _feed_forward(block: nn.Module, name: str, layers: list[str]) -> FeedForward | None:
    if len(layers) < 2:
        return None
    sizes = [layer_size(block.get_submodule(layer)) for layer in layers]
    if sizes[0][0] != sizes[-1][1]:  # it must give what it takes, since it is added to it: a router does not
        return None
    inputs = [layer for layer, size in zip(layers[:-1], sizes, strict=False) if size[0] == sizes[0][0]]
    return FeedForward(inputs=tuple(f"{name}.{layer}" for layer in inputs), output=f"{name}.{layers[-1]}")


def _linear_names(block: nn.Module) -> list[str]:
    """The pretrained linear layers of a block; a layer that PEFT wrapped goes by the name of its wrapper."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    names: list[str] = []
    hidden: list[str] = []  # inside of these nothing is pretrained, or it was counted already
    for name, module in block.named_modules():
        if any(name.startswith(f"{outer}.") for outer in hidden):
            continue
        if isinstance(module, Inserted):
            hidden.append(name)
        elif isinstance(module, BaseTunerLayer):
            hidden.append(name)
            if isinstance(module.get_base_layer(), LINEAR):
                names.append(name)
        elif isinstance(module, LINEAR):
            names.append(name)
    return names


def _attention_above(block: nn.Module, name: str) -> str:
    """The outermost module above a layer, and inside the block, that is an attention; empty if there is none."""
    parts = name.split(".")
    for end in range(1, len(parts)):
        above = ".".join(parts[:end])
        kind = type(block.get_submodule(above)).__name__
        # BERT's outermost one also holds the layer that writes the result.
        if "attention" in kind.lower() or "attn" in parts[end - 1].lower():
            return above
    return ""


def layer_size(layer: nn.Module) -> tuple[int, int]:
    """Inputs and outputs of a linear layer, be it wrapped by PEFT or not."""
    base = getattr(layer, "base_layer", layer)
    weight: Tensor = base.weight  # type: ignore[assignment]
    rows, columns = weight.shape
    return (rows, columns) if isinstance(base, Conv1D) else (columns, rows)


def made_by(name: str) -> set[str]:
    """What of q, k and v a layer makes, as its name says: BART lists keys first, so the order says nothing."""
    last = name.rpartition(".")[2].lower()
    spelled = {word[0] for word in _SPELLED if word in last}
    if spelled:
        return spelled
    found = _LETTERS.match(last)
    return set(found[1]) if found else set()
