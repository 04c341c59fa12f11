"""Layers of PEFT in a Hugging Face model: put around pretrained ones, and folded into their weights again.

The layers are injected rather than the model wrapped (``PeftModel``), so that the model keeps its class and its forward,
other strategies find its parameters, and one rule saves them all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peft import PeftConfig
    from peft.tuners.tuners_utils import BaseTuner
    from torch import nn

ADAPTER = "default"
"""Name of the one adapter of a layer, as PEFT calls it."""


def inject(model: nn.Module, config: PeftConfig, *, tuner: type[BaseTuner] | None = None) -> None:
    """Put PEFT's layers around those that the configuration names; what required gradients before still does.

    A layer that is wrapped already is wrapped again, and computes both adaptations.

    Args:
        model: Changed in place.
        config: Its ``target_modules`` must be complete names.
        tuner: What makes PEFT's layers, where it is not PEFT's own class for this configuration.
    """
    from peft import PEFT_TYPE_TO_TUNER_MAPPING
    from peft.utils import PeftType

    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    # Not `inject_adapter_in_model`: it refuses VeRA, because it would have to save the shared projections. Ours are
    # computed anew.
    tuner = tuner or PEFT_TYPE_TO_TUNER_MAPPING[PeftType(config.peft_type)]
    tuner(model, config, adapter_name=ADAPTER)
    for parameter, required in before:  # PEFT freezes everything but the adapter
        parameter.requires_grad_(required)
    del model.peft_config  # PEFT would take the next strategy's layers for a second adapter of this one


def fold(model: nn.Module) -> nn.Module:
    """Write what PEFT's layers do into the weights, and put the pretrained layers back into their places.

    Where one wrapper stands around another the inner one is written first, whichever strategy it belongs to: a scaling
    around a low-rank update scales the update too. So one call folds the layers of all strategies.

    Returns:
        The same model.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    wrappers = [(name, module) for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)]
    for name, wrapper in reversed(wrappers):  # an inner one comes after the one around it
        wrapper.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, wrapper.base_layer)
    return model
