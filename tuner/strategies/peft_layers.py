"""VeRA, OFT, LoHa and LoKr: PEFT's layers for all linear layers of the backbone, each with its own form of update."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from tuner.errors import TrialInfeasible
from tuner.strategies.base import Strategy
from tuner.strategies.injection import fold, inject
from tuner.strategies.targets import linear_targets
from tuner.study.catalogue import StrategyInfo
from tuner.study.domains import Choice, Fixed, Hyperparameter, Range, Value

if TYPE_CHECKING:
    from peft import PeftConfig
    from torch import Tensor, nn


class PeftLayers(Strategy):
    """A method whose layers PEFT has, at all linear layers of the backbone, or at the convolutions if there are none."""

    accepted: ClassVar[tuple[str, ...]]
    """Kinds of layers that the method can wrap."""

    why_not: ClassVar[str]
    """Why it cannot wrap the others."""

    @abstractmethod
    def config(self, targets: Mapping[str, nn.Module], params: Mapping[str, Value]) -> PeftConfig:
        """PEFT's configuration for these layers.

        Raises:
            TrialInfeasible: If the values do not fit the layers.
        """

    def apply(self, model: nn.Module, params: Mapping[str, Value]) -> nn.Module:
        """Inject the method's layers.

        Raises:
            TrialInfeasible: If there is nothing to adapt, or a layer of a kind that PEFT cannot wrap.
        """
        name = self.info.name
        targets = linear_targets(model)
        if not targets:
            raise TrialInfeasible(f"{name} cannot adapt {type(model).__name__}", why="its backbone has no linear layer")
        for target, layer in targets.items():
            if (kind := _kind(layer)) not in self.accepted:
                raise TrialInfeasible(
                    f"{name} cannot adapt {target} of {type(model).__name__}",
                    why=f"{self.why_not} {kind}",
                    fix=f"take {name} out of strategies",
                )
        self.insert(model, targets, self.config(targets, params))
        return model

    def merge(self, model: nn.Module) -> nn.Module:
        """Write each update into its layer's weight and put the layer back in its place."""
        return fold(model)

    def insert(self, model: nn.Module, targets: Mapping[str, nn.Module], config: PeftConfig) -> None:
        """Put the method's layers into the model."""
        inject(model, config)


class Vera(PeftLayers):
    """Low-rank updates by one pair of random matrices for all layers, of which each layer scales rows and columns.

    The matrices are as large as the largest layer wants them, and smaller ones take a part. They are not saved: the same
    ones are computed again.
    """

    accepted = ("Linear", "Conv1D")
    why_not = "PEFT's VeRA has no layer for"
    info = StrategyInfo(
        name="vera",
        summary="factors of random low-rank updates that all layers share, and the head",
        # BERT-tiny on Reuters R8 (1200 rows, 4 epochs): .75 / .20 at 3e-2 / 1e-1; 4e-3 to 2e-2 for 110 M (the paper).
        learning_rate=((4.4e6, 2e-2), (1.1e8, 1e-2), (3e9, 4e-3)),
        hyperparameters=(
            Hyperparameter(
                name="vera.r",
                domain=Choice(options=(64, 256, 1024)),
                default=256,
                help="rank of the random matrices",
                allowed=Range(low=1, high=8192, kind="int"),
            ),
            Hyperparameter(
                name="vera.initial",
                domain=Fixed(value=0.1),
                default=0.1,
                help="first value of the factors of rank",
                allowed=Range(low=1e-4, high=10.0, log=True),
            ),
        ),
        source="Kopiczko et al. 2024, VeRA: Vector-based Random Matrix Adaptation",
        combinable=True,
    )

    def config(self, targets: Mapping[str, nn.Module], params: Mapping[str, Value]) -> PeftConfig:
        """A rank and a first value."""
        from peft import VeraConfig

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that the matrices are not saved is what we want
            return VeraConfig(
                r=int(self.value(params, "vera.r")),
                d_initial=float(self.value(params, "vera.initial")),
                target_modules=list(targets),
                fan_in_fan_out=any(_kind(layer) == "Conv1D" for layer in targets.values()),
                save_projection=False,
            )

    def insert(self, model: nn.Module, targets: Mapping[str, nn.Module], config: PeftConfig) -> None:
        """Put them in, with random matrices of the right size where layers are wrapped already."""
        from peft.tuners.vera import VeraModel

        from tuner.strategies.anatomy import layer_size

        sizes = [layer_size(layer) for layer in targets.values()]

        class Sized(VeraModel):
            def _find_dim(self, config: PeftConfig) -> tuple[int, int]:
                """The most outputs and inputs; PEFT's own does not look into wrapped layers."""
                return max(outputs for _, outputs in sizes), max(inputs for inputs, _ in sizes)

        inject(model, config, tuner=Sized)


class Oft(PeftLayers):
    """Each layer's inputs are rotated, in blocks, before the pretrained weight sees them."""

    # PEFT has a Conv2d too, but it sums overlapping patches: logits differ by 12 before anything is trained, and no
    # merged weight gives them.
    accepted = ("Linear",)
    why_not = "PEFT's OFT has no layer, or no exact one, for"
    info = StrategyInfo(
        name="oft",
        summary="rotations of the inputs of all linear layers, and the head",
        # BERT-tiny on Reuters R8 (1200 rows): .58 / .64 at 3e-3 / 1e-2 after 2 epochs, .78 at 3e-3 after 4.
        learning_rate=((4.4e6, 5e-3), (1.1e8, 1e-3), (3e9, 5e-4)),
        hyperparameters=(
            Hyperparameter(
                name="oft.block_size",
                domain=Choice(options=(8, 16, 32)),
                default=16,
                help="inputs that are rotated together; divides the inputs of every layer",
                allowed=Range(low=2, high=256, kind="int"),
            ),
        ),
        source="Qiu et al. 2023, Controlling Text-to-Image Diffusion by Orthogonal Finetuning; Qiu et al. 2025, OFTv2",
        combinable=True,
    )

    def config(self, targets: Mapping[str, nn.Module], params: Mapping[str, Value]) -> PeftConfig:
        """A block size.

        Raises:
            TrialInfeasible: If it does not divide the inputs of every layer.
        """
        from peft import OFTConfig

        from tuner.strategies.anatomy import layer_size

        block = int(self.value(params, "oft.block_size"))
        inputs = {name: layer_size(layer)[0] for name, layer in targets.items()}
        for name, size in inputs.items():
            if size % block:
                shared = math.gcd(*inputs.values())
                divisors = ", ".join(str(number) for number in range(2, min(shared, 256) + 1) if shared % number == 0)
                raise TrialInfeasible(
                    f"oft.block_size {block} does not divide the {size} inputs of {name}",
                    fix=f"divisible block size: {divisors}" if divisors else "take oft out of strategies",
                )
        return OFTConfig(oft_block_size=block, target_modules=list(targets))

    def insert(self, model: nn.Module, targets: Mapping[str, nn.Module], config: PeftConfig) -> None:
        """Put them in; PEFT's takes an input of four dimensions for a picture, even before a linear layer."""
        inject(model, config)
        for name in targets:  # ConvNeXt's linear layers read (batch, height, width, channels)
            layer = model.get_submodule(name)
            layer.register_forward_pre_hook(_wrap_picture)
            layer.register_forward_hook(_unwrap_picture)


class Loha(PeftLayers):
    """Updates that are the elementwise product of two low-rank matrices: of rank r² with the parameters of rank 2r."""

    accepted = ("Linear", "Conv2d")
    why_not = "PEFT's LoHa has no layer for"
    info = StrategyInfo(
        name="loha",
        summary="products of two low-rank updates at all linear layers, and the head",
        # BERT-tiny on Reuters R8 (1200 rows, 2 epochs): .47 / .61 / .20 at 3e-3 / 1e-2 / 3e-2, where LoRA has .58 at 5e-3.
        learning_rate=((4.4e6, 1e-2), (1.1e8, 1e-3), (3e9, 5e-4)),
        hyperparameters=(
            Hyperparameter(
                name="loha.r",
                domain=Choice(options=(4, 8, 16)),
                default=8,
                help="rank of both matrices",
                allowed=Range(low=1, high=512, kind="int"),
            ),
            Hyperparameter(
                name="loha.alpha_ratio",
                domain=Fixed(value=1.0),
                default=1.0,
                help="factor of the update: PEFT's alpha divided by r",
                allowed=Range(low=0.01, high=64.0),
            ),
        ),
        source="Hyeon-Woo et al. 2022, FedPara: Low-Rank Hadamard Product",
        combinable=True,
    )

    def config(self, targets: Mapping[str, nn.Module], params: Mapping[str, Value]) -> PeftConfig:
        """A rank and a factor."""
        from peft import LoHaConfig

        rank = int(self.value(params, "loha.r"))
        alpha = float(self.value(params, "loha.alpha_ratio")) * rank
        return LoHaConfig(r=rank, alpha=alpha, target_modules=list(targets))  # type: ignore[arg-type]


class Lokr(PeftLayers):
    """Updates that are the Kronecker product of a small matrix and a low-rank one."""

    accepted = ("Linear", "Conv2d")
    why_not = "PEFT's LoKr has no layer for"
    info = StrategyInfo(
        name="lokr",
        summary="Kronecker products as updates of all linear layers, and the head",
        # BERT-tiny on Reuters R8 (1200 rows, 2 epochs): .45 / .59 / .67 at 3e-3 / 1e-2 / 3e-2, where LoRA has .58 at 5e-3.
        learning_rate=((4.4e6, 2e-2), (1.1e8, 1e-3), (3e9, 5e-4)),
        hyperparameters=(
            Hyperparameter(
                name="lokr.r",
                domain=Choice(options=(4, 8, 16)),
                default=8,
                help="rank of the larger matrix; from half of its side on, it is a full one",
                allowed=Range(low=1, high=512, kind="int"),
            ),
            Hyperparameter(
                name="lokr.alpha_ratio",
                domain=Fixed(value=1.0),
                default=1.0,
                help="factor of the update: PEFT's alpha divided by r",
                allowed=Range(low=0.01, high=64.0),
            ),
            Hyperparameter(
                name="lokr.factor",
                domain=Fixed(value=-1),
                default=-1,
                help="side of the smaller matrix, or the nearest that divides the layer's; -1: near the root of it",
                allowed=Range(low=-1, high=256, kind="int"),
            ),
        ),
        source="Edalati et al. 2022, KronA: Parameter Efficient Tuning with Kronecker Adapter; Yeh et al. 2024, LyCORIS",
        combinable=True,
    )

    def config(self, targets: Mapping[str, nn.Module], params: Mapping[str, Value]) -> PeftConfig:
        """A rank, a factor of the update, and one of the layers' sides."""
        from peft import LoKrConfig

        rank = int(self.value(params, "lokr.r"))
        return LoKrConfig(
            r=rank,
            alpha=float(self.value(params, "lokr.alpha_ratio")) * rank,  # type: ignore[arg-type]
            decompose_factor=int(self.value(params, "lokr.factor")),
            target_modules=list(targets),
        )


def _wrap_picture(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    hidden, *others = inputs
    return (hidden[None] if hidden.ndim >= 4 else hidden, *others)


def _unwrap_picture(_layer: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return output[0] if output.ndim > 4 else output


def _kind(layer: nn.Module) -> str:
    """``Linear``, ``Conv1D`` (GPT-2's linear layer) or ``Conv2d``."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    if isinstance(layer, Conv1D):
        return "Conv1D"
    return "Conv2d" if isinstance(layer, nn.Conv2d) else "Linear"
