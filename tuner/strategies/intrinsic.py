"""Intrinsic dimension: all weights move together, within a small random subspace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tuner.errors import TrialInfeasible
from tuner.strategies.base import Strategy, backbone_of
from tuner.study.catalogue import StrategyInfo
from tuner.study.domains import Choice, Hyperparameter, Range, Value

if TYPE_CHECKING:
    from torch import nn

_LARGEST = 16_000  # a coordinate and its sign fit into 16 bits


class Intrinsic(Strategy):
    """Each weight of the backbone is its pretrained value plus or minus one of a few trained coordinates.

    Which coordinate, and which sign, is drawn once and for all, so a trained model is kept in a few kilobytes. Every layer
    scales what it gets by a factor of its own (SAID of Aghajanyan et al.). The random projection has one entry in each row
    and orthogonal columns; it costs two bytes and a look-up for each weight, where the Fastfood transform of the paper
    takes twenty times as long.

    It moves the weights that every other strategy leaves alone or trains, so it stands in no combination.
    """

    info = StrategyInfo(
        name="intrinsic",
        summary="a few coordinates by which all weights move at once, and the head",
        # BERT-tiny on Reuters R8 (1200 rows, 4 epochs), 1000 coordinates: .50 / .62 / .56 at 1.5e-3 / 5e-3 / 1.5e-2.
        learning_rate=((4.4e6, 5e-3), (1.1e8, 5e-4), (3e9, 1e-4)),
        hyperparameters=(
            Hyperparameter(
                name="intrinsic.dimension",
                domain=Choice(options=(200, 1000, 5000)),
                default=1000,
                help="number of coordinates",
                allowed=Range(low=1, high=_LARGEST, kind="int"),
            ),
        ),
        source=(
            "Li et al. 2018, Measuring the Intrinsic Dimension of Objective Landscapes; Aghajanyan et al. 2021, Intrinsic "
            "Dimensionality Explains the Effectiveness of Language Model Fine-Tuning"
        ),
    )

    def apply(self, model: nn.Module, params: Mapping[str, Value]) -> nn.Module:
        """Put the coordinates, which are 0 in the beginning, and the projection into the backbone.

        Raises:
            TrialInfeasible: If the backbone has no more weights than coordinates.
        """
        from tuner.strategies.subspace import Subspace, frozen_weights

        dimension = int(self.value(params, "intrinsic.dimension"))
        weights = frozen_weights(model)
        count = sum(weight.value.numel() for weight in weights)
        if count <= dimension:
            lower = f"lower space.intrinsic.dimension below {count}"
            raise TrialInfeasible(
                f"intrinsic.dimension {dimension} is no restriction for {type(model).__name__}",
                why=f"{count} weights of its backbone are frozen",
                fix=lower if count > 1 else "take intrinsic out of strategies",
            )
        backbone_of(model).add_module("subspace", Subspace(weights, dimension=dimension, backbone=backbone_of(model)))
        return model

    def merge(self, model: nn.Module) -> nn.Module:
        """Write the moved weights in the place of the pretrained ones."""
        from tuner.strategies.subspace import Subspace

        backbone = backbone_of(model)
        subspace = backbone.get_submodule("subspace")
        if isinstance(subspace, Subspace):
            subspace.settle()
            del backbone.subspace
        return model
