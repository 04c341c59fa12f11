"""A few real steps on a small copy of a model: for families whose forward pass cannot be run on shapes alone.

Some models look at the content of tensors before their first block (DeBERTa at its masks, Longformer at where its global
attention is), and on torch's meta device there is none. Their configuration is cut down to two blocks and a model of
random weights is made of it, which is adapted and run forwards and backwards.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig

from tuner.errors import TrialInfeasible
from tuner.strategies import resolve
from tuner.strategies.base import freeze_backbone
from tuner.study.domains import Value
from tuner.training.memory import is_out_of_memory

_BLOCKS = 2
_LARGEST = (
    120_000_000  # parameters of the copy, of which two are in memory at a time: 1 GB, and a second for each strategy
)
_TOKENS = 12  # of the longer of two rows
_WORD = 5  # a token id that no family uses for the padding or the end


@dataclass(frozen=True, kw_only=True, slots=True)
class Rehearsal:
    """A small copy of a model that runs, and what it is run on.

    Attributes:
        model: On the CPU, never changed.
        inputs: Two rows of tokens, of which one is padded.
    """

    model: nn.Module
    inputs: Mapping[str, Tensor]

    def failure(self, strategy: str, params: Mapping[str, Value]) -> str:
        """What a strategy breaks in a step that the model itself can do; empty if nothing.

        Raises:
            RuntimeError: If memory runs out here, as torch says it, or MemoryError: of a trial on its own box that says nothing.
        """
        with torch.random.fork_rng(devices=[]):
            try:
                model = resolve(strategy).apply(freeze_backbone(copy.deepcopy(self.model)), params)
                _step(model, self.inputs)
            except TrialInfeasible:
                return ""  # of two blocks there may be too few for it
            except Exception as error:  # whatever else it is, it would end a trial
                if is_out_of_memory(error):
                    raise
                text = (str(error).splitlines() or [""])[0]
                return f"{type(error).__name__}: {text}"[:200]
        return ""


def rehearse(model: nn.Module, *, tokens: int) -> Rehearsal | None:
    """A small copy of a model to try strategies on.

    Args:
        model: Its configuration and class are used; it may be on the meta device.
        tokens: Longest text.

    Returns:
        None if it would still be too large, or does not run by itself.
    """
    config: Any = copy.deepcopy(model.config)
    with torch.random.fork_rng(devices=[]):
        try:
            for name in ("num_hidden_layers", "num_decoder_layers", "decoder_layers"):
                if isinstance(blocks := getattr(config, name, None), int):
                    setattr(config, name, min(blocks, _BLOCKS))
            build: Any = type(model)
            with torch.device("meta"):
                size = sum(parameter.numel() for parameter in build(config).parameters())
            if size > _LARGEST:
                return None
            small: nn.Module = build(config).train()
            inputs = _inputs(config, tokens=min(tokens, _TOKENS))
            _step(small, inputs)
        except Exception:  # noqa: BLE001 - a family that cannot be made smaller this way is not rehearsed
            return None
    small.zero_grad(set_to_none=True)
    return Rehearsal(model=small, inputs=inputs)


def _inputs(config: PretrainedConfig, *, tokens: int) -> dict[str, Tensor]:
    """Two rows that end as the family's tokenizer ends them."""
    lengths = (tokens, max(tokens - 3, 1))
    ids = torch.full((2, tokens), _WORD)
    mask = torch.zeros(2, tokens, dtype=torch.long)
    end, padding = getattr(config, "eos_token_id", None), getattr(config, "pad_token_id", None)
    for row, length in enumerate(lengths):
        mask[row, :length] = 1
        ids[row, length:] = padding if isinstance(padding, int) else 0
        if isinstance(end, int):
            ids[row, length - 1] = end
    return {"input_ids": ids, "attention_mask": mask}


def _step(model: nn.Module, inputs: Mapping[str, Tensor]) -> None:
    logits = model(**inputs).logits
    nn.functional.cross_entropy(logits.float(), torch.zeros(len(logits), dtype=torch.long)).backward()
