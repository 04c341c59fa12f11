"""What a strategy is: one act on a model whose head alone is trainable."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from tuner.study.catalogue import StrategyInfo
from tuner.study.domains import Value

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class Phase:
    """A part of a run in which the same parameters are trained.

    Attributes:
        start: Share of the run's steps after which it begins; the first phase begins at 0.
        trained: Names of the parameters that are trained; what :meth:`Strategy.apply` made trainable and is not among
            them stands still, but is saved and counted all the same.
        rate: Factor of the trial's learning rate.
        restarts: Whether it is a training of its own: fresh moments of the optimizer, its own warmup and decay. Else the
            schedule goes on over the border.
    """

    start: float
    trained: frozenset[str]
    rate: float = 1.0
    restarts: bool = False


class Strategy(ABC):
    """How a pretrained model is adapted.

    The model comes from :func:`freeze_backbone`: its head requires gradients, its backbone does not. A strategy adds
    to that, and only adds: it unfreezes parameters or inserts new ones, so that two strategies one after the other
    train the union of what each trains alone. What requires gradients afterwards is what is trained, counted and saved
    (:mod:`tuner.strategies.state`); no strategy has a file format of its own.
    """

    info: ClassVar[StrategyInfo]

    @abstractmethod
    def apply(self, model: nn.Module, params: Mapping[str, Value]) -> nn.Module:
        """Adapt the model in place.

        New weights are drawn from torch's global generator, which the caller has seeded.

        Args:
            model: A Hugging Face model whose head alone requires gradients.
            params: Absolute values of the trial; a name that is missing has its default.

        Returns:
            The same model.

        Raises:
            TrialInfeasible: If the method cannot work on this model or with these values.
        """

    def merge(self, model: nn.Module) -> nn.Module:
        """Fold what was inserted into the pretrained weights, so that plain Hugging Face code can load the model.

        Args:
            model: A model that :meth:`apply` has adapted.

        Returns:
            The same model with the same logits (to float rounding) and the layers of the original architecture.

        Raises:
            UsageError: If what was inserted computes what no weight of the architecture can; the model is unchanged.
        """
        return model

    def learning_rates(self, model: nn.Module, params: Mapping[str, Value]) -> Mapping[str, float]:
        """The factor of the learning rate of each parameter that has one other than 1.

        Args:
            model: A model that :meth:`apply` has adapted.
            params: As there.
        """
        return {}

    def phases(self, model: nn.Module, params: Mapping[str, Value]) -> tuple[Phase, ...]:
        """What is trained when, in the order of time; empty where everything is trained all the time.

        Args:
            model: A model that :meth:`apply` has adapted.
            params: As there.
        """
        return ()

    def penalty(self, model: nn.Module, params: Mapping[str, Value]) -> Tensor | None:
        """What is added to the mean loss of every batch, a scalar; None where nothing is."""
        return None

    def after_step(  # noqa: B027 - most strategies have nothing to do here
        self, model: nn.Module, params: Mapping[str, Value], *, step: int, steps: int
    ) -> None:
        """Called after every step of the optimizer, while the gradients are still there.

        Whatever it remembers from step to step must be a buffer of an :class:`tuner.strategies.inserted.Inserted`
        module, so that a resumed run remembers it too.

        Args:
            model: A model that :meth:`apply` has adapted.
            params: As there.
            step: The 0-based step over the whole run that was just taken.
            steps: Steps of the whole run.
        """

    def constrain(self, model: nn.Module, params: Mapping[str, Value]) -> None:  # noqa: B027 - see above
        """Give averaged weights what every step gives the weights themselves, in place.

        Args:
            model: An adapted model that has the averages of its weights just now, and its own buffers.
            params: As in :meth:`apply`.
        """

    def value(self, params: Mapping[str, Value], name: str) -> Value:
        """The trial's value of one of this strategy's own hyperparameters, or its default."""
        defaults = {knob.name: knob.default for knob in self.info.hyperparameters}
        return params.get(name, defaults[name])


def freeze_backbone(model: nn.Module, *, fresh: Collection[str] = ()) -> nn.Module:
    """Let only the head require gradients.

    The head is what lies outside ``model.base_model`` (``classifier``, ``pre_classifier``, ``score``…) together with
    ``fresh``: a part that the checkpoint did not contain was never pretrained, and frozen it would be noise. BERT's
    pooler is such a part in a checkpoint of a masked language model.

    Args:
        model: A Hugging Face model.
        fresh: Names of the parameters that were drawn at random rather than loaded.

    Returns:
        The same model.
    """
    backbone = {id(parameter) for parameter in backbone_of(model).parameters()}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(id(parameter) not in backbone or name in fresh)
    return model


def backbone_of(model: nn.Module) -> nn.Module:
    """The pretrained body of a Hugging Face model, without the task's head."""
    backbone: nn.Module = getattr(model, str(getattr(model, "base_model_prefix", "")), model)
    return backbone
