"""Virtual tokens: trained vectors among the embeddings of the input.

They are put in at the door of the backbone, whatever head stands behind it. In a text they come first. An encoder's head
then reads the first of them, as in PEFT, and so does a pooler; the real class token in its place did no better (macro-F1
.66 and .66 against .66 and .67 with BERT-tiny on Reuters R8). Where the head looks for the last real token or takes a
mean over all of them, it gets the result without the virtual ones. In a picture they come last: attention does not know
of order, and every head finds the class token where it was.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tuner.errors import TrialInfeasible
from tuner.strategies.anatomy import find_blocks
from tuner.strategies.base import backbone_of
from tuner.strategies.inserted import Inserted
from tuner.strategies.positions import known_positions, refuse_length, refuse_tokens

_SUBSPACE_SEED = 20_210_407


class FreeVectors(Inserted):
    """Vectors that are trained directly (Lester et al. 2021)."""

    def __init__(self, start: Tensor) -> None:
        """Begin with these, (length, width)."""
        super().__init__()
        self.weight = nn.Parameter(start)

    def forward(self) -> Tensor:
        """The vectors, (length, width)."""
        return self.weight


class EncodedVectors(Inserted):
    """Vectors that a network with two hidden layers makes of trained ones (Liu et al. 2021); PEFT's encoder."""

    def __init__(self, *, length: int, hidden: int, like: Tensor) -> None:
        """Draw everything as torch does by default, from its global generator.

        Args:
            length: Number of vectors.
            hidden: Width of the hidden layers.
            like: A tensor with the vectors' width, device and type.
        """
        super().__init__()
        width, device, dtype = like.shape[-1], like.device, like.dtype
        self.weight = nn.Parameter(torch.randn(length, width, device=device, dtype=dtype))
        self.encoder = nn.Sequential(
            nn.Linear(width, hidden, device=device, dtype=dtype),
            nn.ReLU(),
            nn.Linear(hidden, hidden, device=device, dtype=dtype),
            nn.ReLU(),
            nn.Linear(hidden, width, device=device, dtype=dtype),
        )

    def forward(self) -> Tensor:
        """The vectors, (length, width)."""
        vectors: Tensor = self.encoder(self.weight)
        return vectors


class SubspaceVectors(Inserted):
    """Vectors in a random subspace of few dimensions around where they begin (Qin et al. 2021).

    Where they begin and the directions of the subspace are no weights: both come from a seed that never changes.
    """

    def __init__(self, start: Tensor, *, dimension: int) -> None:
        """Begin at the middle of the subspace.

        Args:
            start: The vectors at first, (length, width); must be the same whenever the strategy is applied.
            dimension: Dimensions of the subspace.
        """
        super().__init__()
        self.coordinates = nn.Parameter(torch.zeros(dimension, device=start.device, dtype=start.dtype))
        directions = torch.empty(dimension, start.numel(), device=start.device, dtype=start.dtype)
        if not start.is_meta:
            # A step of 1 in every coordinate moves every number by about 1, whatever the dimension.
            drawn = torch.randn(dimension, start.numel(), generator=fixed_generator(), device="cpu")
            directions.copy_(drawn / dimension**0.5)
        self.register_buffer("start", start, persistent=False)
        self.register_buffer("directions", directions, persistent=False)

    def forward(self) -> Tensor:
        """The vectors, (length, width)."""
        start, directions = self.get_buffer("start"), self.get_buffer("directions")
        return start + (self.coordinates @ directions).view_as(start)


Vectors = FreeVectors | EncodedVectors | SubspaceVectors


class VirtualTokens(Inserted):
    """Puts vectors among the embeddings of a backbone's input.

    Attributes:
        vectors: What makes them.
    """

    def __init__(self, vectors: Vectors, *, length: int, knob: str) -> None:
        """Without a place yet.

        Args:
            vectors: What makes them.
            length: How many they are.
            knob: Which hyperparameter says so, for the error of an input that has become too long.
        """
        super().__init__()
        self.vectors = vectors
        self.length = length
        self.knob = knob
        self._names: tuple[str, ...] = ()  # of the backbone's arguments
        self._known: int | None = None

    def forward(self, rows: int, *, like: Tensor) -> Tensor:
        """The vectors for every row of a batch, (rows, length, width), in the type of ``like``."""
        vectors: Tensor = self.vectors()
        return vectors.to(like.dtype).expand(rows, -1, -1)

    def precede_text(self, backbone: nn.Module, *, hidden: bool) -> None:
        """Stand in front of the text from now on.

        Args:
            backbone: What reads the text.
            hidden: Whether their places are taken out of the backbone's result.
        """
        self._names = tuple(inspect.signature(backbone.forward).parameters)
        self._known = known_positions(backbone)
        backbone.register_forward_pre_hook(self._put_in_front, with_kwargs=True)
        if hidden:
            backbone.register_forward_hook(self._take_out)

    def follow_picture(self, embeddings: nn.Module) -> None:
        """Stand behind the class token and the patches from now on (Jia et al. 2022, the shallow form)."""
        embeddings.register_forward_hook(self._put_behind)

    def _put_in_front(
        self, backbone: Any, arguments: tuple[Any, ...], named: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        given = dict(zip(self._names, arguments, strict=False)) | dict(named)
        ids, tokens = given.get("input_ids"), given.get("inputs_embeds")
        if tokens is None:
            tokens = backbone.get_input_embeddings()(ids)
        refuse_tokens(tokens.shape[1], length=self.length, known=self._known, knob=self.knob)
        if ids is not None and "decoder_input_ids" in self._names and given.get("decoder_input_ids") is None:
            given["decoder_input_ids"] = _shifted(ids, backbone=backbone)
        given |= {"input_ids": None, "inputs_embeds": torch.cat([self(len(tokens), like=tokens), tokens], dim=1)}
        if (mask := given.get("attention_mask")) is not None:
            given["attention_mask"] = nn.functional.pad(mask, (self.length, 0), value=1)
        if (types := given.get("token_type_ids")) is not None:
            given["token_type_ids"] = nn.functional.pad(types, (self.length, 0))
        if (positions := given.get("position_ids")) is not None:
            own = torch.arange(self.length, device=positions.device).expand(len(positions), -1)
            given["position_ids"] = torch.cat([own, positions + self.length], dim=1)
        return (), given

    def _take_out(self, _backbone: nn.Module, _arguments: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, tuple):
            return (output[0][:, self.length :], *output[1:])
        output.last_hidden_state = output.last_hidden_state[:, self.length :]
        return output

    def _put_behind(self, _embeddings: nn.Module, _arguments: tuple[Any, ...], output: Tensor) -> Tensor:
        return torch.cat([output, self(len(output), like=output)], dim=1)


def insert(model: nn.Module, vectors: Vectors, *, length: int, name: str) -> None:
    """Let the backbone read virtual tokens beside its input.

    Args:
        model: Changed in place.
        vectors: What makes the tokens.
        length: How many they are.
        name: The strategy's; a child of the backbone gets it.

    Raises:
        TrialInfeasible: If no position is left for the text.
    """
    backbone = backbone_of(model)
    tokens = VirtualTokens(vectors, length=length, knob=f"{name}.length")
    if reads_text(model):
        refuse_length(backbone, length=length, knob=f"{name}.length")
        tokens.precede_text(backbone, hidden=_counts_tokens(model))
    else:
        tokens.follow_picture(backbone.get_submodule("embeddings"))
    backbone.add_module(name, tokens)


def reads_text(model: nn.Module) -> bool:
    """Whether the backbone takes embeddings in place of ids."""
    return "inputs_embeds" in inspect.signature(backbone_of(model).forward).parameters


def own_vectors(model: nn.Module, *, name: str) -> Tensor:
    """What the backbone itself puts where virtual tokens are to stand, (…, width): its vocabulary, or a class token.

    Args:
        model: A model of text or pictures.
        name: The strategy's.

    Raises:
        TrialInfeasible: If it has neither, as a convolutional network, or if windows say which patches see each other; if
            its embeddings give more than vectors (I-BERT), or single tokens are told to see all others (Longformer).
    """
    if reads_text(model):
        backbone = backbone_of(model)
        table: nn.Module = backbone.get_input_embeddings()  # type: ignore[operator]
        looks_far = "global_attention_mask" in inspect.signature(backbone.forward).parameters
        if looks_far or not isinstance(table, nn.Embedding):
            raise TrialInfeasible(
                f"{name} cannot adapt {type(model).__name__}",
                why="it picks the tokens that see all others by their places"
                if looks_far
                else f"its {type(table).__name__} is no plain table of vectors",
                fix=f"take {name} out of strategies",
            )
        return table.weight.detach()
    token: Tensor | None = getattr(getattr(backbone_of(model), "embeddings", None), "cls_token", None)
    has_windows = any("relative_position" in parameter for parameter, _ in model.named_parameters())
    if token is None or has_windows:
        raise TrialInfeasible(
            f"{name} cannot adapt {type(model).__name__}",
            why="its attention is tied to the places of patches"
            if has_windows
            else "it reads neither tokens nor patches",
            fix=f"take {name} out of strategies",
        )
    return token.detach()


def _counts_tokens(model: nn.Module) -> bool:
    """Whether the head looks for tokens by the ids or the mask, which know nothing of virtual ones."""
    pooling = getattr(model.config, "classifier_pooling", None)  # of ModernBERT and its kin
    if pooling is not None:
        return pooling not in {"cls", "bos"}
    if getattr(model.config, "is_encoder_decoder", False):
        return False  # the head reads what the decoder says of the text, where nothing was put in
    attentions = [attention for block in find_blocks(model) for attention in block.attentions]
    is_causal = any(getattr(model.get_submodule(attention.core), "is_causal", False) for attention in attentions)
    return is_causal or hasattr(model, "score")  # older decoders do not say that they are; their heads have this name


def _shifted(ids: Tensor, *, backbone: Any) -> Tensor:
    """What a decoder reads where nobody says, by its architecture's own rule, which asks for the encoder's ids.

    Most begin with a token of their own; mBART has none, and begins with the last token of the text.
    """
    rule = getattr(inspect.getmodule(type(backbone)), "shift_tokens_right", None)
    asked = 2 if rule is None else len(inspect.signature(rule).parameters) - 1
    names = ("pad_token_id", "decoder_start_token_id")[:asked]
    tokens: list[Any] = [getattr(backbone.config, name, None) for name in names]
    if missing := [name for name, token in zip(names, tokens, strict=True) if token is None]:
        raise TrialInfeasible(
            f"nothing says what the decoder of {type(backbone).__name__} reads",
            why=f"the model's configuration has no {' and no '.join(missing)}",
            fix="take prompt and p_tuning out of strategies",
        )
    if rule is None:
        return torch.cat([torch.full_like(ids[:, :1], tokens[1]), ids[:, :-1]], dim=1)
    shifted: Tensor = rule(ids, *tokens)
    return shifted


def fixed_generator() -> torch.Generator:
    """Draws the same numbers whenever a strategy is applied."""
    return torch.Generator().manual_seed(_SUBSPACE_SEED)
