"""How many tokens a model can read, from the values of its configuration: one rule for the check and for the training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BEHIND_PADDING = frozenset(
    {
        "camembert",
        "data2vec-text",
        "esm",
        "ibert",
        "layoutlmv3",
        "lilt",
        "longformer",
        "luke",
        "markuplm",
        "mpnet",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    }
)
"""Families whose first token stands at the position behind the padding's, so that the positions before are never used.

Those of transformers that have ``create_position_ids_from_input_ids`` and a table of ``max_position_embeddings`` rows.
"""

_OTHERWISE_NAMED = {
    **dict.fromkeys(("codegen", "ctrl", "gpt2", "gpt_bigcode", "gptj", "openai-gpt"), "n_positions"),
    "mpt": "max_seq_len",
}
"""What families call their number of positions. T5 stores ``n_positions``, too, but that bounds nothing."""

_PADDING = 1  # padding's position in these families where the configuration names none, and in MPNet always


def token_limit(config: Mapping[str, Any]) -> int | None:
    """Longest input of a model in tokens; None where its configuration sets no bound.

    Args:
        config: What ``config.json`` says, or ``to_dict`` of a configuration.
    """
    named = config.get("model_type")
    family = named if isinstance(named, str) else ""
    positions = config.get("max_position_embeddings", config.get(_OTHERWISE_NAMED.get(family, "")))
    if not isinstance(positions, int) or isinstance(positions, bool) or positions < 1:
        return None  # distances between tokens have no end; -1 (XLNet) and the like say so
    if family not in _BEHIND_PADDING:
        return positions
    padding = None if family == "mpnet" else config.get("pad_token_id")
    unused = (padding if isinstance(padding, int) else _PADDING) + 1
    return max(positions - unused, 1)
