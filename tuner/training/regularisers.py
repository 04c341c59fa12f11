"""What keeps a model from learning its rows by heart: each one a small function, none called while it is switched off.

Weight decay is the optimizer's (:mod:`tuner.training.optimizer`), dropout the model's, label smoothing the task's,
clipping the loop's and averaging has its own module (:mod:`tuner.training.averaging`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

from tuner.training.device import derived_seed
from tuner.training.embeddings import Change
from tuner.training.optimizer import is_vector


def l1(parameters: Iterable[Tensor]) -> Tensor:
    """The sum of the absolute values of all matrices; as with weight decay, vectors (biases, norms, factors) are exempt."""
    matrices = (parameter.abs().sum() for parameter in parameters if not is_vector(parameter))
    return sum(matrices, start=torch.zeros(()))  # in a phase in which biases alone are trained there is none


def l2_sp(parameters: Mapping[str, Tensor], *, starts: Mapping[str, Tensor]) -> Tensor:
    """Half the squared distance to where the weights came from.

    Args:
        parameters: What is trained, by name.
        starts: Where each of them is pulled to; 0 for those that are missing.

    Source: Li et al. 2018, Explicit Inductive Bias for Transfer Learning with Convolutional Networks.
    """
    return (
        0.5
        * torch.stack(
            [
                (parameter - starts[name] if name in starts else parameter).square().sum()
                for name, parameter in parameters.items()
            ]
        ).sum()
    )


def r_drop(first: Tensor, second: Tensor) -> Tensor:
    """How much two passes with different dropout disagree: the mean of both Kullback-Leibler divergences.

    Args:
        first: Logits of one pass, (rows, classes).
        second: Logits of the other.

    Returns:
        The sum over the rows, a scalar.

    Source: Liang et al. 2021, R-Drop: Regularized Dropout for Neural Networks.
    """
    one, two = log_softmax(first.float(), dim=-1), log_softmax(second.float(), dim=-1)
    return 0.5 * (
        kl_div(one, two, reduction="sum", log_target=True) + kl_div(two, one, reduction="sum", log_target=True)
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Mixing:
    """Which rows of a batch are mixed, and how much of each.

    Attributes:
        share: How much of the row itself is kept; the partner gives the rest.
        partners: Place in the batch of each row's partner.
    """

    share: float
    partners: Tensor

    @classmethod
    def draw(cls, *, alpha: float, rows: int, seed: int, step: int) -> Mixing:
        """The mixing of one step; it depends on nothing but these values.

        Args:
            alpha: Both parameters of the Beta distribution that the share is drawn from.
            rows: Rows of the batch.
            seed: Seed of the run.
            step: Step over the whole run.

        Source: Zhang et al. 2018, mixup: Beyond Empirical Risk Minimization; on embeddings: Guo et al. 2019, Augmenting
            Data with Mixup for Sentence Classification.
        """
        generator = np.random.default_rng(derived_seed(seed, "mixup", step))
        share = float(generator.beta(alpha, alpha))
        return cls(share=share, partners=torch.from_numpy(generator.permutation(rows)))

    def mix(self, own: Tensor, other: Tensor) -> Tensor:
        """The rows mixed with those of their partners."""
        return self.share * own + (1.0 - self.share) * other


@dataclass(kw_only=True, slots=True)
class Adversary:
    """The small change of the embeddings that raises the loss most.

    A first pass goes through :meth:`watch`; when its gradients are there, a second one goes through :meth:`disturb`.

    Attributes:
        epsilon: Length of the change of one row, over all its tokens.

    Source: Miyato et al. 2017, Adversarial Training Methods for Semi-Supervised Text Classification.
    """

    epsilon: float
    _seen: list[Tensor] = field(default_factory=list)

    def watch(self, embedded: Tensor) -> Tensor:
        """Embeddings whose gradient is kept."""
        if embedded.requires_grad:
            embedded.retain_grad()
        else:
            embedded = embedded.detach().requires_grad_()
        self._seen.append(embedded)
        return embedded

    def disturb(self) -> Change:
        """What the second pass does to its embeddings, in the order in which the first pass had them."""
        changes: Iterator[Tensor] = iter([_towards(seen.grad, self.epsilon) for seen in self._seen])
        return lambda embedded: embedded + next(changes).to(embedded.dtype)


def _towards(gradient: Tensor | None, length: float) -> Tensor:
    """A step of a length in each row; rows without a gradient, or with one that overflowed, stay where they are."""
    if gradient is None:
        return torch.zeros(())
    rows = gradient.float().flatten(1)
    norms = rows.norm(dim=1, keepdim=True)
    return torch.nan_to_num(length * rows / norms, posinf=0.0, neginf=0.0).view_as(gradient)
