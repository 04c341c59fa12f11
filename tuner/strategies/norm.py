"""Only the normalisation layers are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tuner.errors import TrialInfeasible
from tuner.strategies.base import Strategy, backbone_of
from tuner.study.catalogue import StrategyInfo
from tuner.study.domains import Value

if TYPE_CHECKING:
    from torch import nn


class Norm(Strategy):
    """The scales and shifts of all norms of the backbone, and the head, are trained."""

    info = StrategyInfo(
        name="norm",
        summary="the normalisation layers and the head",
        # BERT-tiny (4.4 M) on Reuters R8 (1200 rows, 4 epochs, 2 seeds): macro-F1 .57 / .69 / .70 / .58 at
        # 1.6e-3 / 5e-3 / 1.6e-2 / 5e-2.
        learning_rate=((4.4e6, 1e-2), (1.1e8, 1e-3), (3e9, 5e-4)),
        source="Qi et al. 2022, Parameter-Efficient Tuning on Layer Normalization; Frankle et al. 2021, Training BatchNorm and Only BatchNorm",
        combinable=True,
    )

    def apply(self, model: nn.Module, params: Mapping[str, Value]) -> nn.Module:
        """Let the norms' own parameters require gradients.

        Raises:
            TrialInfeasible: If the backbone has no norm with parameters.
        """
        norms = find_norms(model)
        if not norms:
            raise TrialInfeasible(
                f"norm cannot adapt {type(model).__name__}",
                why="its backbone has no normalisation layer with weights",
                fix="take norm out of strategies",
            )
        for norm in norms:
            for parameter in norm.parameters(recurse=False):
                parameter.requires_grad_()
        return model


def find_norms(model: nn.Module) -> list[nn.Module]:
    """The backbone's normalisation layers that have parameters; none of those that strategies inserted.

    They are known by name: every family brings a class of its own (``LlamaRMSNorm``, ``T5LayerNorm``), which shares
    no base with torch's. Layers that normalise inside of themselves have names that say so too, and children; what is
    meant here has none.
    """
    from tuner.strategies.inserted import Inserted

    backbone = backbone_of(model)
    inserted = {
        id(child) for module in backbone.modules() if isinstance(module, Inserted) for child in module.modules()
    }
    return [
        module
        for module in backbone.modules()
        if "norm" in type(module).__name__.lower()
        and id(module) not in inserted
        and not any(True for _ in module.children())
        and any(True for _ in module.parameters(recurse=False))
    ]
