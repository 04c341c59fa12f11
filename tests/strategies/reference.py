"""The same model adapted by PEFT itself, with the same weights."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from peft import PeftConfig, get_peft_model
from torch import nn

from tests.contract.architectures import build
from tuner.strategies import resolve
from tuner.strategies.state import trained_names
from tuner.study.domains import Value

PREFIX = "base_model.model."


def adapted(name: str, kind: str, params: Mapping[str, Value] | None = None, *, seed: int = 1) -> nn.Module:
    """One of the contract's models, adapted."""
    model = build(kind)
    torch.manual_seed(seed)
    return resolve(name).apply(model, params or {})


def shaken(model: nn.Module, *, size: float = 0.1) -> nn.Module:
    """The model with noise on all that is trained, so that zeros and ones of the beginning hide nothing."""
    torch.manual_seed(5)
    names = trained_names(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in names:
                parameter.add_(torch.randn_like(parameter), alpha=size)
    return model


def by_peft(model: nn.Module, kind: str, config: PeftConfig) -> Any:
    """PEFT's model of the same kind, with every parameter of an adapted one; their names must be the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by a name that it will lose
        theirs = get_peft_model(build(kind), config)
    parameters = {name.removeprefix(PREFIX): parameter for name, parameter in theirs.named_parameters()}
    ours = dict(model.named_parameters())
    assert parameters.keys() == ours.keys()
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(ours[name])
    return theirs
