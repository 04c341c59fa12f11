"""Adapters: bottleneck networks inside the blocks of a transformer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from tuner.errors import TrialInfeasible, UsageError
from tuner.strategies.base import Strategy
from tuner.study.catalogue import StrategyInfo
from tuner.study.domains import Choice, Fixed, Hyperparameter, Range, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from tuner.strategies.anatomy import Block


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    """An attention or a feed-forward, by module names.

    Attributes:
        asked: What is called with the hidden states that the block reads as its first argument.
        reads: A linear layer that is as wide as these.
        writes: The linear layer that writes the result.
    """

    asked: str
    reads: str
    writes: str


class Adapter(Strategy):
    """A bottleneck at the feed-forward of every block, and with ``houlsby`` at its attention too; PEFT has none.

    It stands between the last layer of the attention or the feed-forward and the residual connection. In sequence it
    reads what this layer writes; in parallel it reads what the attention or the feed-forward reads.
    """

    info = StrategyInfo(
        name="adapter",
        summary="small bottleneck networks in every block, and the head",
        # BERT-tiny on Reuters R8, in parallel: macro-F1 .55 / .74 / .75 / .72 at 1e-3 / 3e-3 / 1e-2 / 3e-2 (in sequence
        # .49 / .69 / .69 / .57). Larger models: 1e-4 (He et al. 2022) to 3e-3 (Houlsby et al. 2019).
        learning_rate=((4.4e6, 1e-2), (1.1e8, 3e-4), (3e9, 1e-4)),
        hyperparameters=(
            # Widths of 16 to 64 are usual for models 768 wide. R8 gave .75 with 16 and .72 with 2.
            Hyperparameter(
                name="adapter.reduction",
                domain=Choice(options=(4, 8, 16, 32, 64)),
                default=16,
                help="width of the model divided by the width of the bottleneck",
                allowed=Range(low=1, high=4096, kind="int"),
            ),
            Hyperparameter(
                name="adapter.placement",
                domain=Choice(options=("houlsby", "pfeiffer")),
                default="houlsby",
                help="houlsby: at attention and feed-forward; pfeiffer: at the feed-forward alone",
            ),
            # Better in parallel: by He et al. on four tasks, and on R8 at every learning rate.
            Hyperparameter(
                name="adapter.form",
                domain=Fixed(value="parallel"),
                default="parallel",
                help="sequential: reads what the layer writes; parallel: reads what the feed-forward or attention reads",
                allowed=Choice(options=("sequential", "parallel")),
            ),
            Hyperparameter(
                name="adapter.scale",
                domain=Fixed(value=1.0),
                default=1.0,
                help="factor of what the bottleneck adds",
                allowed=Range(low=0.01, high=64.0),
            ),
            Hyperparameter(
                name="adapter.activation",
                domain=Fixed(value="relu"),
                default="relu",
                help="activation inside the bottleneck",
                allowed=Choice(options=("relu", "gelu", "silu", "tanh")),
            ),
        ),
        source="Houlsby et al. 2019, Parameter-Efficient Transfer Learning for NLP; Pfeiffer et al. 2021, AdapterFusion; "
        "parallel: He et al. 2022, Towards a Unified View",
        combinable=True,
    )

    def apply(self, model: nn.Module, params: Mapping[str, Value]) -> nn.Module:
        """Insert a bottleneck at every place.

        Raises:
            TrialInfeasible: If the blocks have no such place, as in a convolutional network.
        """
        from tuner.strategies.anatomy import find_blocks, layer_size
        from tuner.strategies.bottleneck import Bottleneck

        houlsby = self.value(params, "adapter.placement") == "houlsby"
        places = [place for block in find_blocks(model) for place in _places(block, attentions=houlsby)]
        if not places:
            raise TrialInfeasible(
                f"adapter cannot adapt {type(model).__name__}",
                why=f"its blocks have no {'attention and no ' if houlsby else ''}feed-forward made of linear layers",
                fix="take adapter out of strategies",
            )
        for place in places:
            reads, writes = model.get_submodule(place.reads), model.get_submodule(place.writes)
            outputs = layer_size(writes)[1]
            is_parallel = self.value(params, "adapter.form") == "parallel"
            bottleneck = Bottleneck(
                inputs=layer_size(reads)[0] if is_parallel else outputs,
                width=max(1, outputs // int(self.value(params, "adapter.reduction"))),
                outputs=outputs,
                activation=str(self.value(params, "adapter.activation")),
                scale=float(self.value(params, "adapter.scale")),
                like=next(writes.parameters()),
            )
            if is_parallel:
                bottleneck.bypass(model.get_submodule(place.asked), writes, place=place.writes)
            else:
                bottleneck.follow(writes)
            parent, _, child = place.writes.rpartition(".")
            model.get_submodule(parent).add_module(f"{child}_adapter", bottleneck)
        return model

    def merge(self, model: nn.Module) -> NoReturn:
        """Refused.

        Raises:
            UsageError: Always.
        """
        raise UsageError("adapter cannot be merged", why="there is an activation between its two layers")


def _places(block: Block, *, attentions: bool) -> Iterator[_Place]:
    """What gets a bottleneck."""
    if attentions:
        for attention in block.attentions:
            # Of an attention to the encoder, only the queries are made from what the block reads.
            query = next(
                (name for name in attention.inputs if "q" in name.rpartition(".")[2].lower()), attention.inputs[0]
            )
            # DeBERTa makes queries of its relative positions too, Longformer turns rows and tokens round before: what the
            # block reads is known where the whole attention is called, not where a layer of it is.
            yield _Place(asked=attention.core, reads=query, writes=attention.output)
    if block.feed_forward is not None:
        first = block.feed_forward.inputs[0]
        yield _Place(asked=first, reads=first, writes=block.feed_forward.output)
