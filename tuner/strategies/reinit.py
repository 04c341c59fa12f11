"""The upper blocks forget what they learnt, then everything is trained."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

from tuner.errors import TrialInfeasible
from tuner.strategies.base import Strategy, backbone_of
from tuner.strategies.top_layers import top_names
from tuner.study.catalogue import StrategyInfo
from tuner.study.domains import Choice, Hyperparameter, Range, Value

if TYPE_CHECKING:
    from torch import nn


class Reinit(Strategy):
    """The last blocks and what comes after them (a final norm, a pooler) are drawn anew, then every weight is trained.

    The upper layers of a pretrained model are the most specialised on what it was pretrained for. They are drawn as the
    architecture itself draws them, from torch's global generator. With a share of 1 nothing but the embeddings is kept.
    """

    info = StrategyInfo(
        name="reinit",
        summary="every weight, the last blocks drawn anew",
        # One of the two blocks of BERT-tiny (4.4 M) on Reuters R8 (1200 rows, 4 epochs, 2 seeds): macro-F1 .29 / .45 / .53 /
        # .41 at 1.6e-4 / 5e-4 / 1e-3 / 1.6e-3. For larger models the paper keeps the rate of full fine-tuning.
        learning_rate=((4.4e6, 1e-3), (1.1e8, 2e-5), (3e9, 1e-5)),
        hyperparameters=(
            Hyperparameter(
                name="reinit.share",
                domain=Choice(options=(0.1, 0.25, 0.5)),
                default=0.25,
                help="share of the blocks that are drawn anew, from the top: 0.25 of 12 are 3; one block at least",
                allowed=Range(low=0.01, high=1.0),
            ),
        ),
        source="Zhang et al. 2021, Revisiting Few-sample BERT Fine-tuning",
        sequential=False,  # the weights are drawn before the first step, whatever stage they belong to
    )

    def apply(self, model: nn.Module, params: Mapping[str, Value]) -> nn.Module:
        """Draw the last blocks anew, and let every parameter require gradients.

        Raises:
            TrialInfeasible: If the backbone has no blocks, or no rule by which they are drawn.
        """
        from transformers import PreTrainedModel

        if not isinstance(model, PreTrainedModel):
            raise TrialInfeasible(
                f"reinit cannot adapt {type(model).__name__}",
                why="only the models of transformers say how their weights are drawn",
                fix="take reinit out of strategies",
            )
        names = top_names(model, share=float(self.value(params, "reinit.share")), strategy=self.info.name)
        backbone = {id(parameter) for parameter in backbone_of(model).parameters()}
        chosen = [
            parameter for name, parameter in model.named_parameters() if name in names and id(parameter) in backbone
        ]
        if not any(parameter.is_meta for parameter in chosen):
            _draw(model, chosen)
        return model.requires_grad_(requires_grad=True)


def _draw(model: nn.Module, chosen: Collection[nn.Parameter]) -> None:
    """Initialise the modules that consist of these parameters alone, and the statistics of their norms."""
    import torch

    parts = list(_parts(model, owner=model, chosen=frozenset(map(id, chosen))))
    # transformers marks what it has loaded, and its initialisers pass marked tensors by.
    tensors = [tensor for _, module in parts for tensor in (*module.parameters(), *module.buffers())]
    marked = [tensor for tensor in tensors if getattr(tensor, "_is_hf_initialized", False)]
    for tensor in marked:
        tensor._is_hf_initialized = False  # type: ignore[attr-defined]  # noqa: SLF001
    with torch.no_grad():
        for owner, module in parts:
            owner._init_weights(module)  # type: ignore[operator]  # noqa: SLF001
    for tensor in marked:
        tensor._is_hf_initialized = True  # type: ignore[attr-defined]  # noqa: SLF001


def _parts(module: nn.Module, *, owner: nn.Module, chosen: frozenset[int]) -> Iterator[tuple[nn.Module, nn.Module]]:
    """The modules below that have chosen parameters only, each with the model whose rules it follows.

    Children come first, as in transformers: an attention may overrule what its linear layers were given.
    """
    from transformers import PreTrainedModel

    owner = module if isinstance(module, PreTrainedModel) else owner  # a model inside of a model has rules of its own
    for child in module.children():
        yield from _parts(child, owner=owner, chosen=chosen)
    parameters = [id(parameter) for parameter in module.parameters()]
    if parameters and chosen.issuperset(parameters):
        yield owner, module
