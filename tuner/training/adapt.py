"""A pretrained model made a trial's own: built anew, its backbone frozen, the strategy applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from tuner.strategies import resolve
from tuner.strategies.base import Strategy, freeze_backbone
from tuner.strategies.state import trained_names
from tuner.study.domains import Value
from tuner.training.device import seed_everything
from tuner.training.model import BaseModel, build_model
from tuner.training.optimizer import is_vector


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapted:
    """A model on the CPU, as its strategy left it.

    Attributes:
        model: The model; all that is ever trained requires gradients.
        strategy: How it was adapted.
        trained: Names of all parameters that are ever trained.
        drawn: Those of them that the model itself has, but the checkpoint had not: the head, as a rule.
    """

    model: nn.Module
    strategy: Strategy
    trained: frozenset[str]
    drawn: frozenset[str]

    def starts(self) -> dict[str, Tensor]:
        """Copies of what is trained, before any step: the weights that training should not leave without need.

        Pretrained weights and what a strategy inserted or drew anew are in it: factors begin at 1, updates at 0. The matrices
        of a new head are not: where they begin says nothing (Li et al. 2018 pull them to 0); its norms and biases are.
        """
        return {
            name: parameter.detach().clone()
            for name, parameter in self.model.named_parameters()
            if name in self.trained and (is_vector(parameter) or name not in self.drawn)
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
        drawn=frozenset(name for name, parameter in trained.items() if names.get(id(parameter)) in base.fresh),
    )
