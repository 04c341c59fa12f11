"""Trained keys and values in front of those that an attention computes.

Every transformer of the library asks one table for the function that computes its attention, by the name in its
configuration. A name of ours stands in that table; the function behind it puts the keys and values of the module that
asks in front, widens the mask, and hands on to the function that was configured. Only the attention's own view of the
configuration is changed: the model goes on making the masks of the function that was configured.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tuner.strategies.inserted import Inserted

NAME = "prefix"
"""The child of an attention that holds its prefix, and the name of the attention function."""

_UNDERSTOOD = ("eager", "sdpa")  # others take masks of another form
_EAGER = "eager_attention_forward"

AttentionFunction = Callable[..., tuple[Tensor, Tensor | None]]


class Table(Inserted):
    """The prefix of one attention as numbers that are trained directly (Liu et al. 2022).

    Attributes:
        configured: Name of the attention function that computes over it.
    """

    configured: str

    def __init__(self, *, length: int, width: int, deviation: float, like: Tensor) -> None:
        """Draw them from torch's global generator, around zero.

        Args:
            length: Keys, and values.
            width: Features of a key of all heads together.
            deviation: Standard deviation.
            like: A tensor of the model, for device and type.
        """
        super().__init__()
        self.keys = nn.Parameter(torch.empty(length, width, device=like.device, dtype=like.dtype))
        self.values = nn.Parameter(torch.empty_like(self.keys))
        nn.init.normal_(self.keys, std=deviation)
        nn.init.normal_(self.values, std=deviation)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Keys and values, (length, width) each."""
        return self.keys, self.values


class Trunk(Inserted):
    """What the projected prefixes of all attentions have in common: an embedding, and the way into the hidden layer."""

    def __init__(self, *, length: int, width: int, like: Tensor) -> None:
        """Draw the weights as torch does by default.

        Args:
            length: Virtual tokens.
            width: Features of the model, and of the hidden layer.
            like: A tensor of the model, for device and type.
        """
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(length, width, device=like.device, dtype=like.dtype))
        self.hidden = nn.Linear(width, width, device=like.device, dtype=like.dtype)

    def forward(self) -> Tensor:
        """The hidden layer, (length, width)."""
        return torch.tanh(self.hidden(self.embedding))


class Projection(Inserted):
    """The prefix of one attention as the output of a network with one hidden layer (Li & Liang 2021).

    Attributes:
        configured: Name of the attention function that computes over it.
    """

    configured: str

    def __init__(self, trunk: Trunk, *, width: int, like: Tensor) -> None:
        """Draw the weights of the output as torch does by default; the trunk is shared with other attentions."""
        super().__init__()
        self.trunk = trunk
        self.output = nn.Linear(trunk.hidden.out_features, 2 * width, device=like.device, dtype=like.dtype)

    def forward(self) -> tuple[Tensor, Tensor]:
        """Keys and values, (length, width) each."""
        keys, values = self.output(self.trunk()).chunk(2, dim=-1)
        return keys, values


def takes_prefix(attention: nn.Module) -> bool:
    """Whether this module asks the library's table for its attention function, and for one whose masks are understood."""
    forward = inspect.unwrap(type(attention).forward)
    asks = "get_interface" in forward.__code__.co_names and _EAGER in forward.__globals__
    return asks and getattr(getattr(attention, "config", None), "_attn_implementation", None) in _UNDERSTOOD


def attach(attention: nn.Module, prefix: Table | Projection) -> None:
    """Put what the prefix gives in front of the attention's keys and values, from now on."""
    config: Any = copy.copy(attention.config)
    prefix.configured = str(config._attn_implementation)  # noqa: SLF001 - the library has no public name for it
    # The setter of `_attn_implementation` would also change the configurations inside this one, which the copy shares.
    config._attn_implementation_internal = NAME  # noqa: SLF001
    attention.config = config
    attention.add_module(NAME, prefix)


def _attend(  # noqa: PLR0917 - so the library calls it
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """Compute the configured attention over the prefix and the tokens.

    Args:
        module: The attention.
        query: (batch, heads, queries, features).
        key: (batch, heads or groups of heads, tokens, features).
        value: As ``key``.
        attention_mask: True or 0 where a query sees a token, (batch or 1, heads or 1, queries, tokens); None: it sees all
            or, in a causal attention, all before it.
        options: Handed on; of these, a bias of relative positions is widened too.
    """
    prefix: Table | Projection = getattr(module, NAME)
    keys, values = (_in_heads(part, key) for part in prefix())
    length, tokens = keys.shape[2], key.shape[2]
    if attention_mask is None:
        attention_mask = _causal_mask(module, query, tokens=tokens, is_causal=options.get("is_causal"))
    if attention_mask is not None:
        seen = True if attention_mask.dtype == torch.bool else 0.0
        attention_mask = nn.functional.pad(attention_mask[..., :tokens], (length, 0), value=seen)
    if options.get("position_bias") is not None:
        options["position_bias"] = nn.functional.pad(options["position_bias"], (length, 0))
    function = _function(module, prefix.configured)
    key, value = torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2)
    return function(module, query, key, value, attention_mask, **options)


def _in_heads(part: Tensor, key: Tensor) -> Tensor:
    """Keys or values, (length, width), as (batch, heads, length, features)."""
    rows, heads, _, features = key.shape
    return part.to(key.dtype).view(len(part), heads, features).transpose(0, 1).expand(rows, -1, -1, -1)


def _causal_mask(module: nn.Module, query: Tensor, *, tokens: int, is_causal: bool | None) -> Tensor | None:
    """What ``sdpa`` would do without a mask; told that it is causal it would count the prefix among the tokens."""
    queries = query.shape[2]
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if not causal or queries == 1:
        return None
    places = torch.arange(max(queries, tokens), device=query.device)
    return (places[:queries, None] >= places[None, :tokens])[None, None]


def _function(module: nn.Module, name: str) -> AttentionFunction:
    """The eager function is the only one that is not in the table: it stands beside the attention's class."""
    function: AttentionFunction
    if name == "eager":
        function = inspect.unwrap(type(module).forward).__globals__[_EAGER]
    else:
        function = ALL_ATTENTION_FUNCTIONS[name]
    return function


ALL_ATTENTION_FUNCTIONS.register(NAME, _attend)
