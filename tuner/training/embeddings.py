"""What a model reads before its first layer, within reach of methods that mix or disturb it.

Numbers that come in as numbers (the pixels of an image, the cached vectors of a frozen backbone) are what is reached
themselves. Token ids are reached as the vectors that the model embeds them in, wherever its architecture keeps the
table: a hook on the embedding layer sees them, so no model needs to accept embeddings as an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from tuner.errors import TrialInfeasible

Change = Callable[[Tensor], Tensor]
"""Takes embeddings, (rows, …, width), and returns what the first layer reads in their place."""


def logits_of(model: nn.Module, inputs: Mapping[str, Tensor], *, change: Change | None = None) -> Tensor:
    """The model's logits, (rows, classes).

    Args:
        model: A Hugging Face model.
        inputs: Its arguments.
        change: What happens to its embeddings, None for nothing. A model that embeds twice, such as T5 for its encoder
            and its decoder, has it called twice, in the same order every time.
    """
    if change is None:
        logits: Tensor = model(**inputs).logits
        return logits
    name = _input_name(model, inputs)
    if inputs[name].is_floating_point():
        changed: Tensor = model(**{**inputs, name: change(inputs[name])}).logits
        return changed
    with _hooked(model, change):
        hooked: Tensor = model(**inputs).logits
        return hooked


def embed(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """What ``change`` would be handed for these inputs.

    Raises:
        TrialInfeasible: If the model reads them twice, once shifted, and no single tensor says it all.
    """
    values = inputs[_input_name(model, inputs)]
    if values.is_floating_point():
        return values
    if getattr(getattr(model, "config", None), "is_encoder_decoder", False):
        raise TrialInfeasible(
            f"mixup cannot mix the texts of {type(model).__name__}",
            why="its decoder reads the text once more",
            fix="set space.mixup to 0",
        )
    embedded: Tensor = _layers(model)[0](values)
    return embedded


@contextmanager
def _hooked(model: nn.Module, change: Change) -> Iterator[None]:
    """Inside, everything that the model embeds is changed."""
    called = False

    def hook(_layer: nn.Module, _arguments: Any, output: Tensor) -> Tensor:
        nonlocal called
        called = True
        return change(output)

    with ExitStack() as stack:
        for layer in _layers(model):
            stack.enter_context(layer.register_forward_hook(hook))
        yield
    if not called:
        raise TrialInfeasible(
            f"mixup and fgm do not reach the embeddings of {type(model).__name__}",
            why="it does not call its embedding layer",
            fix="set space.mixup and space.fgm to 0",
        )


def _layers(model: nn.Module) -> list[nn.Module]:
    """The embedding layer, or all layers that share its table: T5's own one is never called."""
    table = model.get_input_embeddings()  # type: ignore[operator]
    weight = getattr(table, "weight", None)
    sharing = [layer for layer in model.modules() if weight is not None and getattr(layer, "weight", None) is weight]
    return [layer for layer in sharing if isinstance(layer, nn.Embedding)] or [table]


def _input_name(model: nn.Module, inputs: Mapping[str, Tensor]) -> str:
    return "inputs_embeds" if "inputs_embeds" in inputs else str(model.main_input_name)
