"""A pretrained model made a trial's own: built anew, its backbone frozen, the strategy applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tuner.strategies import resolve
from tuner.strategies.base import Strategy, freeze_backbone
from tuner.strategies.state import trained_names
from tuner.study.domains import Value
from tuner.training.device import seed_everything
from tuner.training.model import BaseModel, build_model


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapted:
    """A model on the CPU, as its strategy left it.

    Attributes:
        model: The model; all that is ever trained requires gradients.
        strategy: How it was adapted.
        trained: Names of all parameters that are ever trained.
        origins: Name in the pretrained model of each trained parameter that was there before.
    """

    model: nn.Module
    strategy: Strategy
    trained: frozenset[str]
    origins: Mapping[str, str]

    def pretrained(self, base: BaseModel, *, device: torch.device) -> dict[str, Tensor]:
        """The pretrained weights of what is trained, by the names it has now; they are only read."""
        return {
            name: base.weights[origin].to(device) for name, origin in self.origins.items() if origin in base.weights
        }


def adapt(base: BaseModel, *, strategy: str, params: Mapping[str, Value], dropout: float, seed: int) -> Adapted:
    """Build a model and apply a strategy to it.

    Args:
        base: The pretrained model.
        strategy: Name of the strategy, combination or sequence.
        params: Absolute values of the trial.
        dropout: Probability of every dropout of the architecture.
        seed: Seed of the trial; the head and what is inserted are drawn from it.

    Raises:
        TrialInfeasible: If the strategy cannot work on this model or with these values.
    """
    model = freeze_backbone(build_model(base, dropout=dropout, seed=seed), fresh=base.fresh)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    seed_everything(seed, "strategy")
    method = resolve(strategy)
    model = method.apply(model, params)
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return Adapted(
        model=model,
        strategy=method,
        trained=trained_names(model),
        origins={name: names[id(parameter)] for name, parameter in trained.items() if id(parameter) in names},
    )
