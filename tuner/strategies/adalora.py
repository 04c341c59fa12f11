"""AdaLoRA: low-rank updates whose ranks are shared out among the layers while they are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tuner.errors import TrialInfeasible
from tuner.strategies.base import Strategy
from tuner.strategies.injection import fold, inject
from tuner.strategies.targets import linear_targets, narrowest
from tuner.study.catalogue import StrategyInfo
from tuner.study.domains import Choice, Fixed, Hyperparameter, Range, Value

if TYPE_CHECKING:
    from torch import Tensor, nn

_SPARE = 1.5  # how many times the final rank the layers begin with (Zhang et al. 2023, appendix)


class AdaLora(Strategy):
    """PEFT's AdaLoRA layers on all linear layers of the backbone, with an allocator that can be resumed.

    An update is ``B diag(e) A``. All layers begin with 1.5 times the final rank; from the first tenth of the run on, the
    components that matter least in the whole model are set to zero, more of them each time, until in the middle of the
    run the final rank is reached on average. Then the ranks stand still and the rest is trained.
    """

    info = StrategyInfo(
        name="adalora",
        summary="low-rank updates that move their ranks to where they matter, and the head",
        # BERT-tiny on Reuters R8 (1200 rows, 4 epochs): .69 / .75 / .62 at 3e-3 / 1e-2 / 3e-2.
        learning_rate=((4.4e6, 1e-2), (1.1e8, 1e-3), (3e9, 5e-4)),
        hyperparameters=(
            Hyperparameter(
                name="adalora.r",
                domain=Choice(options=(4, 8, 16)),
                default=8,
                help="average rank of the updates in the end; 1.5 times as much in the beginning",
                allowed=Range(low=1, high=512, kind="int"),
            ),
            Hyperparameter(
                name="adalora.alpha_ratio",
                domain=Fixed(value=2.0),
                default=2.0,
                help="factor of the update: PEFT's lora_alpha divided by the rank in the beginning",
                allowed=Range(low=0.01, high=64.0),
            ),
            Hyperparameter(
                name="adalora.orthogonality",
                domain=Fixed(value=0.1),
                default=0.1,
                help="weight of the term that keeps A and B orthogonal, so that components can be compared",
                allowed=Range(low=0.0, high=10.0),
            ),
        ),
        source="Zhang et al. 2023, AdaLoRA: Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning",
        combinable=True,
        sequential=False,  # its schedule counts the steps of the whole run
    )

    def apply(self, model: nn.Module, params: Mapping[str, Value]) -> nn.Module:
        """Inject the adapter and what the allocator remembers.

        Raises:
            TrialInfeasible: If the backbone has no layer to adapt, or the first rank exceeds the smallest one.
        """
        from peft import AdaLoraConfig
        from transformers.pytorch_utils import Conv1D

        from tuner.strategies.rank_budget import remember

        targets = linear_targets(model)
        if not targets:
            why = "its backbone has no linear layer"
            raise TrialInfeasible(f"adalora cannot adapt {type(model).__name__}", why=why)
        final = int(self.value(params, "adalora.r"))
        first = round(_SPARE * final)
        name, width = narrowest(targets)
        if first > width:
            raise TrialInfeasible(
                f"adalora.r {final} begins with rank {first}, which exceeds the width {width} of {name}",
                fix="lower space.adalora.r",
            )
        config = AdaLoraConfig(
            init_r=first,
            target_r=final,
            total_step=1,  # PEFT wants one; its allocator, which alone would read it, is not used
            lora_alpha=float(self.value(params, "adalora.alpha_ratio")) * first,  # type: ignore[arg-type]
            target_modules=list(targets),
            fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in targets.values()),
        )
        inject(model, config)
        remember(model)
        return model

    def merge(self, model: nn.Module) -> nn.Module:
        """Add each update to its layer's weight and put the layer back in its place."""
        return fold(model)

    def penalty(self, model: nn.Module, params: Mapping[str, Value]) -> Tensor | None:
        """How far the rows of A and the columns of B are from orthonormal."""
        from tuner.strategies.rank_budget import orthogonality

        weight = float(self.value(params, "adalora.orthogonality"))
        return weight * orthogonality(model) if weight else None

    def after_step(self, model: nn.Module, params: Mapping[str, Value], *, step: int, steps: int) -> None:
        """Remember how much each weight mattered to this step, and share out the ranks anew when it is time to."""
        from tuner.strategies.rank_budget import Schedule, allocate

        final = int(self.value(params, "adalora.r"))
        allocate(model, schedule=Schedule.of_run(steps), step=step, ranks=(round(_SPARE * final), final))

    def constrain(self, model: nn.Module, params: Mapping[str, Value]) -> None:
        """Keep away the components that were taken away for good: an average remembers them."""
        from tuner.strategies.rank_budget import keep_away

        keep_away(model)
