"""Prefix tuning: every attention looks at a few trained keys and values beside those of the text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from tuner.errors import TrialInfeasible, UsageError
from tuner.strategies.base import Strategy, backbone_of
from tuner.study.catalogue import StrategyInfo
from tuner.study.domains import Choice, Fixed, Hyperparameter, Range, Value

if TYPE_CHECKING:
    from torch import nn

    from tuner.strategies.anatomy import Attention

_DEVIATION = 0.02
"""Standard deviation of the prefix at first; with 1, as in PEFT, R8 gave the same at every learning rate."""


class Prefix(Strategy):
    """Keys and values of virtual tokens in front of every attention; also known as P-tuning v2.

    The tokens stand behind the prefix, as in PEFT: an architecture with learned positions loses as many of them.
    """

    info = StrategyInfo(
        name="prefix",
        summary="trained keys and values in front of every attention, and the head",
        # BERT-tiny on Reuters R8: macro-F1 .58 / .63 / .50 at 3e-3 / 1e-2 / 3e-2, and .62 / .56 with a prefix of 8 / 64 at the best.
        # Larger models: 5e-3 (Liu et al. 2022; also the best of PEFT's MetaMathQA comparison).
        learning_rate=((4.4e6, 1e-2), (1.1e8, 5e-3), (3e9, 5e-3)),
        hyperparameters=(
            Hyperparameter(
                name="prefix.length",
                domain=Choice(options=(8, 16, 32, 64)),
                default=16,
                help="keys and values in front of every attention",
                allowed=Range(low=1, high=512, kind="int"),
            ),
            Hyperparameter(
                name="prefix.projection",
                domain=Fixed(value=False),
                default=False,
                help="train the prefix as the output of a small network (Li & Liang), not directly",
                allowed=Choice(options=(False, True)),
            ),
        ),
        source="Li & Liang 2021, Prefix-Tuning; Liu et al. 2022, P-Tuning v2",
        combinable=True,
    )

    def apply(self, model: nn.Module, params: Mapping[str, Value]) -> nn.Module:
        """Put a prefix before every attention.

        Raises:
            TrialInfeasible: If there is no attention, one that cannot be given a prefix, or no position left for text.
        """
        from tuner.strategies import key_values
        from tuner.strategies.anatomy import find_blocks
        from tuner.strategies.positions import refuse_length, shift_positions

        attentions = [attention for block in find_blocks(model) for attention in block.attentions]
        _refuse_attentions(model, attentions)
        backbone = backbone_of(model)
        length = int(self.value(params, "prefix.length"))
        refuse_length(backbone, length=length, knob="prefix.length")
        like = next(backbone.parameters())
        trunk: key_values.Trunk | None = None
        for attention in attentions:
            core, width = model.get_submodule(attention.core), _width(model, attention)
            if self.value(params, "prefix.projection"):
                trunk = trunk or key_values.Trunk(length=length, width=width, like=like)
                key_values.attach(core, key_values.Projection(trunk, width=width, like=like))
            else:
                table = key_values.Table(length=length, width=width, deviation=_DEVIATION, like=like)
                key_values.attach(core, table)
        shift_positions(backbone, by=length, knob="prefix.length")
        return model

    def merge(self, model: nn.Module) -> NoReturn:
        """Refused.

        Raises:
            UsageError: Always.
        """
        raise UsageError("prefix cannot be merged", why="no weight of the architecture holds keys and values")


def _refuse_attentions(model: nn.Module, attentions: list[Attention]) -> None:
    from tuner.strategies.key_values import takes_prefix

    fix = "take prefix out of strategies"
    if not attentions:
        raise TrialInfeasible(
            f"prefix cannot adapt {type(model).__name__}", why="its backbone has no attention", fix=fix
        )
    for attention in attentions:
        if not takes_prefix(core := model.get_submodule(attention.core)):
            raise TrialInfeasible(
                f"prefix cannot adapt {type(model).__name__}",
                why=f"{type(core).__name__} computes its attention in its own way",
                fix=fix,
            )


def _width(model: nn.Module, attention: Attention) -> int:
    """Features of the keys of all heads together; there may be fewer heads of keys than of queries."""
    from tuner.strategies.anatomy import layer_size

    outputs = [layer_size(model.get_submodule(name))[1] for name in attention.inputs]
    if len(outputs) > 1:
        return min(outputs)
    config = model.get_submodule(attention.core).config
    heads = int(config.num_attention_heads)  # type: ignore[union-attr, arg-type]
    groups = int(getattr(config, "num_key_value_heads", None) or heads)
    return outputs[0] // (heads + 2 * groups) * groups
