"""What a model reads before its first layer, within reach of methods that mix or disturb it.

Numbers that come in as numbers (the pixels of an image, the cached vectors of a frozen backbone) are what is reached
themselves. Token ids are reached as the vectors that the model embeds them in, wherever its architecture keeps the
table: a hook on the embedding layer sees them, so no model needs to accept embeddings as an argument.

Rows that are mixed with partners are embedded in one call with them, inside the model's own pass: whatever moves or scales
embeddings there does the same to both. What else the model learns of the ids is where the text ends and which position a
token has; so it is handed those of the longer of the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tuner.errors import TrialInfeasible

Change = Callable[[Tensor], Tensor]
"""Takes embeddings, (rows, …, width), and returns what the first layer reads in their place."""

Mix = Callable[[Tensor, Tensor], Tensor]
"""Takes the embeddings of rows and those of their partners, and returns what is in between."""


def logits_of(
    model: nn.Module, inputs: Mapping[str, Tensor], *, change: Change | None = None, mix: Mix | None = None
) -> Tensor:
    """The model's logits, (rows, classes).

    Args:
        model: A Hugging Face model.
        inputs: Its arguments; where rows are mixed, first those of the rows, then those of as many partners.
        change: What happens to its embeddings, None for nothing; they have been mixed then. A model that embeds twice,
            such as T5 for its encoder and its decoder, has it called twice, in the same order every time.
        mix: How the embeddings of rows and partners become one; None where there are no partners.

    Raises:
        TrialInfeasible: If its embeddings are out of reach, or do not come row by row.
    """
    if change is None and mix is None:
        logits: Tensor = model(**inputs).logits
        return logits
    name = _input_name(model, inputs)
    values, arguments = inputs[name], dict(inputs) if mix is None else overlaid(inputs)
    if values.is_floating_point():
        arguments[name] = _worked(values, change=change, mix=mix)
        changed: Tensor = model(**arguments).logits
        return changed
    if mix is not None and getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise TrialInfeasible(
            f"mixup cannot mix the texts of {type(model).__name__}",
            why="its decoder reads the text once more",
            fix="set space.mixup to 0",
        )
    with _hooked(model, ids=values, shown=arguments[name], change=change, mix=mix):
        hooked: Tensor = model(**arguments).logits
        return hooked


def overlaid(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The arguments of rows under which their partners, the second half, can be read too.

    Everything is the row's own, but no token of either is hidden, and the ids are those of the longer text: a decoder's
    head looks in them for the last token.
    """
    halves = {name: values.chunk(2) for name, values in inputs.items()}
    arguments = {name: own for name, (own, _) in halves.items()}
    if "attention_mask" in halves:
        own_mask, other_mask = halves["attention_mask"]
        arguments["attention_mask"] = torch.maximum(own_mask, other_mask)
        if "input_ids" in halves:
            is_longer = other_mask.sum(1, keepdim=True) > own_mask.sum(1, keepdim=True)
            own_ids, other_ids = halves["input_ids"]
            arguments["input_ids"] = torch.where(is_longer, other_ids, own_ids)
    return arguments


def _worked(embedded: Tensor, *, change: Change | None, mix: Mix | None) -> Tensor:
    """Embeddings, first mixed, then changed."""
    if mix is not None:
        embedded = mix(*embedded.chunk(2))
    return embedded if change is None else change(embedded)


@contextmanager
def _hooked(model: nn.Module, *, ids: Tensor, shown: Tensor, change: Change | None, mix: Mix | None) -> Iterator[None]:
    """Inside, everything that the model embeds is mixed and changed.

    Args:
        model: What embeds.
        ids: Of the rows, and where they are mixed of their partners too, (rows, width).
        shown: The ids that the model is called with; (rows, width) without the partners.
        change: As in :func:`logits_of`.
        mix: As there.
    """
    called = False

    def check(_layer: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        nonlocal called
        called = True
        if not arguments or not _is_by_rows(arguments[0], shown):
            raise TrialInfeasible(
                f"mixup and fgm cannot tell the rows of {type(model).__name__} apart",
                why="it embeds tokens in another order than row by row",
                fix="set space.mixup and space.fgm to 0",
            )
        if mix is None:
            return None
        # Some models lengthen the texts first; what they add is hidden, so any id will do.
        return (nn.functional.pad(ids, (0, arguments[0].shape[1] - ids.shape[1])), *arguments[1:])

    def work(_layer: nn.Module, _arguments: Any, output: Tensor) -> Tensor:
        return _worked(output, change=change, mix=mix)

    with ExitStack() as stack:
        for layer in _layers(model):
            stack.enter_context(layer.register_forward_pre_hook(check))
            stack.enter_context(layer.register_forward_hook(work))
        yield
    if not called:
        raise TrialInfeasible(
            f"mixup and fgm do not reach the embeddings of {type(model).__name__}",
            why="it does not call its embedding layer",
            fix="set space.mixup and space.fgm to 0",
        )


def _is_by_rows(found: Tensor, shown: Tensor) -> bool:
    """Whether the embedding layer is given as many rows as the model; XLNet gives it one token of all rows after another."""
    if found.ndim != 2 or len(found) != len(shown):
        return False
    is_square = found.shape == shown.shape and found.shape[0] == found.shape[1]
    return not is_square or torch.equal(found, shown) or not torch.equal(found, shown.T)


def _layers(model: nn.Module) -> list[nn.Module]:
    """The embedding layer, or all layers that share its table: T5's own one is never called."""
    table = model.get_input_embeddings()  # type: ignore[operator]
    weight = getattr(table, "weight", None)
    sharing = [layer for layer in model.modules() if weight is not None and getattr(layer, "weight", None) is weight]
    return [layer for layer in sharing if isinstance(layer, nn.Embedding)] or [table]


def _input_name(model: nn.Module, inputs: Mapping[str, Tensor]) -> str:
    return "inputs_embeds" if "inputs_embeds" in inputs else str(model.main_input_name)
