"""Every strategy on every architecture: what is tried, and the whole list of what is refused.

The contract (``test_matrix.py``) holds each cell against this list, and the guide (``docs/strategies.md``) is written
from it; so a cell that begins to work, or ceases to, fails a test until it is edited here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

from tests.contract.architectures import KINDS
from tuner.strategies import STRATEGIES
from tuner.study.domains import Choice, Value
from tuner.study.names import COMBINE, components

COMBINATIONS = (
    "lora+bitfit",
    "bitfit+lora",
    "adapter+lora",
    "lora+adapter",
    "adapter+prefix",
    "prefix+lora",
    "adapter+prefix+lora",
    "prompt+lora",
    "ia3+lora",
    "norm+bitfit",
)
SEQUENCES = ("head>full", "head>lora", "head>lora+bitfit")
NAMES = (*STRATEGIES, *COMBINATIONS, *SEQUENCES)

# The models are 16 wide, and ResNet's first layer reads 3 colours.
TINY: Mapping[str, Value] = {"lora.r": 2, "adalora.r": 2, "adapter.reduction": 2}

# By strategy, combination or option: the architectures that it refuses, with the words of the reason. What a component
# refuses, its combinations refuse too.
REFUSED: Mapping[str, Mapping[str, str]] = {
    "vera": {"resnet": "PEFT's VeRA has no layer for Conv2d"},
    "oft": {
        "gpt2": "PEFT's OFT has no layer, or no exact one, for Conv1D",
        "resnet": "PEFT's OFT has no layer, or no exact one, for Conv2d",
    },
    "loha": {"gpt2": "PEFT's LoHa has no layer for Conv1D"},
    "lokr": {"gpt2": "PEFT's LoKr has no layer for Conv1D"},
    "bitfit": dict.fromkeys(("modernbert", "llama", "t5"), "its backbone has no biases"),
    "adapter": {"resnet": "its blocks have no attention and no feed-forward made of linear layers"},
    "prefix": {"resnet": "its backbone has no attention"},
    "prompt": {"resnet": "it reads neither tokens nor patches"},
    "p_tuning": {"resnet": "it reads neither tokens nor patches"},
    "lora.targets: attention": {"resnet": "its backbone has no attention with layers known by name"},
    "lora.targets: query_value": {"resnet": "its backbone has no attention with layers known by name"},
    "adapter.placement: pfeiffer": {"resnet": "its blocks have no feed-forward made of linear layers"},
    "ia3+lora": {"resnet": "PEFT has no LoRA around a wrapped convolution"},
    "lora+ia3": {"resnet": "PEFT has no IA3 around a wrapped convolution"},
    "adalora+ia3": {"resnet": "PEFT has no IA3 around a wrapped convolution"},
    "loha+ia3": {"resnet": "PEFT has no IA3 around a wrapped convolution"},
    "lokr+ia3": {"resnet": "PEFT has no IA3 around a wrapped convolution"},
}

# By strategy: what it trains and may put back as it was, by the end of the name: all ranks of a layer are taken away.
PUT_BACK: Mapping[str, str] = {"adalora": "lora_E.default"}

# By strategy: why it cannot be merged.
UNMERGED: Mapping[str, str] = {
    "adapter": "there is an activation between its two layers",
    "prefix": "no weight of the architecture holds keys and values",
    "prompt": "no weight of the architecture holds tokens of the input",
    "p_tuning": "no weight of the architecture holds tokens of the input",
}


def refusal(name: str, kind: str, *, params: Mapping[str, Value] = TINY) -> str | None:
    """Why a strategy, combination or sequence is refused on an architecture; None where it works."""
    chosen = (f"{knob}: {value}" for knob, value in params.items())
    reasons = (REFUSED.get(part, {}).get(kind) for part in (*chosen, name, *components(name)))
    return next((reason for reason in reasons if reason), None)


def unmerged(name: str) -> tuple[str, ...]:
    """Why what a strategy, combination or sequence has trained cannot be merged; empty where it can."""
    return tuple(UNMERGED[part] for part in components(name) if part in UNMERGED)


def cells() -> Iterator[tuple[str, str]]:
    """All of them, as (strategy, architecture)."""
    return ((name, kind) for name in NAMES for kind in KINDS)


def options() -> Iterator[tuple[str, Value]]:
    """What may be chosen by name and is not the recipe's choice, as (knob, option)."""
    for strategy in STRATEGIES.values():
        for knob in strategy.info.hyperparameters:
            domain = knob.allowed or knob.domain
            if isinstance(domain, Choice):
                yield from (
                    (knob.name, option)
                    for option in domain.options
                    if isinstance(option, bool | str) and option != knob.default
                )


def is_quick(name: str, kind: str) -> bool:
    """The thin slice that every change is tried on: each strategy on BERT, and each architecture with LoRA."""
    return (kind == "bert" and name in STRATEGIES) or name == "lora"


def pairs() -> tuple[str, ...]:
    """All combinations of two strategies that may be combined."""
    combinable = [name for name, strategy in STRATEGIES.items() if strategy.info.combinable]
    return tuple(COMBINE.join(pair) for pair in combinations(combinable, 2))
