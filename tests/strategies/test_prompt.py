"""Prompts and P-tuning: they put the same kind of tokens into the input, and differ in what makes them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from peft import PromptEncoderConfig, PromptTuningConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    BartConfig,
    BartForSequenceClassification,
    BeitConfig,
    BeitForImageClassification,
    BloomConfig,
    BloomForSequenceClassification,
    IBertConfig,
    LongformerConfig,
    MBartConfig,
    MBartModel,
    ModernBertConfig,
    PretrainedConfig,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from tests.contract.architectures import build, build_on_meta, inputs, logits, padded
from tests.training.samples import CONFIGS
from tuner.errors import TrialInfeasible, UsageError
from tuner.strategies import Strategy
from tuner.strategies.base import backbone_of, freeze_backbone
from tuner.strategies.p_tuning import PTuning
from tuner.strategies.prefix import Prefix
from tuner.strategies.prompt import Prompt
from tuner.strategies.state import count_parameters, load_trainable_state, trainable_state, trained_names
from tuner.strategies.virtual_tokens import VirtualTokens
from tuner.study.domains import Value

LENGTH = 5
SMALL: dict[str, Any] = {
    "vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
}  # fmt: skip
TRANSFORMERS = ("bert", "distilbert", "modernbert", "gpt2", "llama", "t5", "vit")
KINDS: Mapping[str, tuple[Strategy, Mapping[str, Value]]] = {
    "prompt": (Prompt(), {"prompt.length": LENGTH}),
    "subspace": (Prompt(), {"prompt.length": LENGTH, "prompt.intrinsic_dimension": 7}),
    "p_tuning": (PTuning(), {"p_tuning.length": LENGTH}),
}


def adapt(model: nn.Module, name: str = "prompt", *, seed: int = 2, fresh: bool = False) -> nn.Module:
    """With tokens as large as those of the text, unless they are to be fresh."""
    torch.manual_seed(seed)
    strategy, params = KINDS[name]
    strategy.apply(model, params)
    for parameter_name, parameter in model.named_parameters():
        if (".prompt." in parameter_name or ".p_tuning." in parameter_name) and not fresh:
            nn.init.normal_(parameter, std=0.7)
    return model


def tokens_of(model: nn.Module) -> VirtualTokens:
    return next(module for module in model.modules() if isinstance(module, VirtualTokens))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT asks by its old name
@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama"])
def test_logits_of_a_prompt_agree_with_peft(kind: str) -> None:
    model = build(kind).eval()
    config = PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=LENGTH)
    theirs = get_peft_model(copy.deepcopy(model), config).eval()
    adapt(model)
    theirs.get_parameter("prompt_encoder.default.embedding.weight").data.copy_(tokens_of(model).vectors())
    rows = inputs(kind)
    if kind == "bert":
        rows["token_type_ids"] = torch.tensor([[0, 0, 0, 1, 1, 1]]).expand(4, -1)
    torch.testing.assert_close(logits(model, rows), logits(theirs, rows), rtol=1e-4, atol=1e-6)
    assert (logits(model, rows) - logits(build(kind), rows)).abs().max() > 1e-3


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT asks by its old name
@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_logits_of_p_tuning_agree_with_peft(kind: str) -> None:
    model = build(kind).eval()
    config = PromptEncoderConfig(task_type="SEQ_CLS", num_virtual_tokens=LENGTH, encoder_hidden_size=16)
    theirs = get_peft_model(copy.deepcopy(model), config).eval()
    adapt(model, "p_tuning")
    encoder = theirs.prompt_encoder["default"]
    weights = {
        f"vectors.{name.replace('mlp_head', 'encoder')}": tensor for name, tensor in encoder.state_dict().items()
    }
    weights["vectors.weight"] = weights.pop("vectors.embedding.weight")
    tokens_of(model).load_state_dict(weights)
    torch.testing.assert_close(logits(model, inputs(kind)), logits(theirs, inputs(kind)), rtol=1e-4, atol=1e-6)
    assert (logits(model, inputs(kind)) - logits(build(kind), inputs(kind))).abs().max() > 1e-4


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_padding_changes_nothing(kind: str, name: str) -> None:
    model = adapt(build(kind), name)
    expected = logits(model, inputs(kind))
    torch.testing.assert_close(logits(model, padded(inputs(kind))), expected, rtol=1e-4, atol=1e-6)
    assert (logits(build(kind), inputs(kind)) - expected).abs().max() > 1e-4


@pytest.mark.parametrize("kind", TRANSFORMERS)
@pytest.mark.parametrize(
    ("name", "size"), [("prompt", LENGTH * 16), ("subspace", 7), ("p_tuning", LENGTH * 16 + 3 * (16 * 16 + 16))]
)
def test_as_many_parameters_as_the_formula_says(name: str, size: int, kind: str) -> None:
    head = count_parameters(build(kind))[0]
    assert count_parameters(adapt(build(kind), name))[0] == head + size
    assert count_parameters(adapt(build_on_meta(kind), name))[0] == head + size


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_gradients_reach_everything_that_is_trained_and_nothing_else(kind: str, name: str) -> None:
    model = adapt(build(kind), name)
    model(**inputs(kind)).logits.square().sum().backward()
    with_gradient = {key for key, parameter in model.named_parameters() if parameter.grad is not None}
    assert with_gradient == trained_names(model)


def test_a_prompt_begins_with_embeddings_of_the_vocabulary() -> None:
    model = adapt(build("bert"), fresh=True)
    table = model.get_parameter("bert.embeddings.word_embeddings.weight")
    start = tokens_of(model).vectors()
    assert all((row == table).all(dim=1).any() for row in start)
    assert torch.equal(start, tokens_of(adapt(build("bert"), fresh=True)).vectors())
    assert not torch.equal(start, tokens_of(adapt(build("bert"), seed=3, fresh=True)).vectors())


@pytest.mark.parametrize("kind", ["bert", "vit"])
def test_a_subspace_is_the_same_under_every_seed(kind: str) -> None:
    first = adapt(build(kind), "subspace", seed=4)
    state = trainable_state(first)
    prompt = "bert.prompt.vectors.coordinates" if kind == "bert" else "vit.prompt.vectors.coordinates"
    assert [name for name in state if ".prompt." in name] == [prompt]
    second = adapt(build(kind), "subspace", seed=5)
    load_trainable_state(second, state)
    assert torch.equal(logits(first, inputs(kind)), logits(second, inputs(kind)))


def test_coordinates_of_a_subspace_move_the_prompt_as_far_whatever_their_number() -> None:
    for dimension in (4, 400):
        model = build("bert")
        Prompt().apply(model, {"prompt.length": 64 - LENGTH, "prompt.intrinsic_dimension": dimension})
        vectors = tokens_of(model).vectors
        before = vectors().detach().clone()
        with torch.no_grad():
            next(vectors.parameters()).fill_(1.0)
        assert 0.85 < (vectors() - before).square().mean().sqrt() < 1.15


def test_the_head_of_a_decoder_reads_the_last_real_token() -> None:
    model = adapt(build("gpt2"))
    rows = inputs("gpt2")
    last = backbone_of(model)(**rows).last_hidden_state[:, 5]
    torch.testing.assert_close(logits(model, padded(rows)), model.get_submodule("score")(last), rtol=1e-4, atol=1e-6)


def test_a_decoder_that_does_not_say_that_it_is_one_is_known_by_its_head() -> None:
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=23, hidden_size=16, n_layer=2, n_head=2, pad_token_id=0)
    model = adapt(freeze_backbone(BloomForSequenceClassification(config).eval()))
    rows = inputs("gpt2")
    assert backbone_of(model)(**rows).last_hidden_state.shape == (4, 6, 16)
    torch.testing.assert_close(logits(model, padded(rows)), logits(model, rows), rtol=1e-4, atol=1e-6)


def test_the_head_finds_the_class_token_of_a_picture_where_it_was() -> None:
    """The formula of shallow visual prompts, by hand; where in the sequence they stand makes no difference."""
    model, plain = adapt(build("vit")), build("vit").eval()
    vit = backbone_of(plain)
    hidden = vit.get_submodule("embeddings")(**inputs("vit"))
    prompt = tokens_of(model).vectors().expand(4, -1, -1)
    hidden = torch.cat([hidden[:, :1], prompt, hidden[:, 1:]], dim=1)
    for layer in vit.get_submodule("layers").children():
        hidden = layer(hidden)
    expected = plain.get_submodule("classifier")(vit.get_submodule("layernorm")(hidden)[:, 0])
    torch.testing.assert_close(logits(model, inputs("vit")), expected, rtol=1e-4, atol=1e-6)


def test_means_over_the_tokens_leave_the_prompt_out() -> None:
    config = copy.deepcopy(CONFIGS["modernbert"])
    assert isinstance(config, ModernBertConfig)
    config.classifier_pooling = "mean"
    torch.manual_seed(0)
    model = adapt(freeze_backbone(type(build("modernbert"))(config).eval()))
    rows = inputs("modernbert")
    torch.testing.assert_close(logits(model, padded(rows)), logits(model, rows), rtol=1e-4, atol=1e-6)


def test_bart_shifts_the_text_for_its_decoder() -> None:
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=23,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=12,
        pad_token_id=0,
        eos_token_id=3,
        decoder_start_token_id=3,
    )
    model = adapt(freeze_backbone(BartForSequenceClassification(config).eval()))
    rows = inputs("bert")
    expected = logits(model, rows)
    explicit = {"decoder_input_ids": torch.cat([torch.full((4, 1), 3), rows["input_ids"][:, :-1]], dim=1)}
    torch.testing.assert_close(logits(model, rows | explicit), expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(TrialInfeasible, match=r"8 tokens and prompt\.length 5 exceed the model's 12 positions"):
        logits(model, {"input_ids": torch.full((1, 8), 3)})


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("kind", ["bert", "gpt2", "vit"])
def test_copies_go_their_own_way(kind: str, name: str) -> None:
    model = adapt(build(kind), name)
    expected = logits(model, inputs(kind))
    twins = (copy.deepcopy(model), pickle.loads(pickle.dumps(model)))
    with torch.no_grad():
        for parameter in tokens_of(model).parameters():
            parameter.zero_()
    assert all(torch.equal(logits(twin, inputs(kind)), expected) for twin in twins)
    assert not torch.equal(logits(model, inputs(kind)), expected)


@pytest.mark.parametrize("kind", TRANSFORMERS)
def test_half_precision(kind: str) -> None:
    model = adapt(build(kind))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found: Tensor = model(**inputs(kind)).logits
    torch.testing.assert_close(found.float(), logits(model, inputs(kind)), rtol=0.1, atol=0.1)


def test_given_positions_are_moved_on() -> None:
    model, rows = adapt(build("bert")), inputs("bert")
    positions = {"position_ids": torch.arange(6)[None]}
    torch.testing.assert_close(logits(model, rows | positions), logits(model, rows))
    arguments = (rows["input_ids"], rows["attention_mask"])
    torch.testing.assert_close(model.eval()(*arguments).logits, logits(model, rows))


@pytest.mark.parametrize("order", ["prompt first", "prefix first"])
def test_prompt_and_prefix_share_the_positions(order: str) -> None:
    model, rows = build("bert"), inputs("bert")
    for name in ("prompt", "prefix") if order == "prompt first" else ("prefix", "prompt"):
        adapt(model) if name == "prompt" else Prefix().apply(model, {"prefix.length": 7})
    seen: list[Tensor] = []
    table = model.get_submodule("bert.embeddings.position_embeddings")
    table.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    logits(model, rows)
    assert seen[0].flatten().tolist() == list(range(7, 7 + LENGTH + 6))


def test_a_decoder_without_a_first_token_begins_as_its_architecture_says() -> None:
    config = MBartConfig(
        vocab_size=30, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=32, pad_token_id=1,
    )  # fmt: skip
    assert config.decoder_start_token_id is None
    ids = torch.tensor([[5, 6, 2, 9], [7, 2, 9, 1]])  # the last real token says the language
    torch.manual_seed(0)
    model = MBartModel(config).eval()
    Prompt().apply(model, {"prompt.length": 3})
    found = model(input_ids=ids).last_hidden_state
    expected = model(input_ids=ids, decoder_input_ids=torch.tensor([[9, 5, 6, 2], [9, 7, 2, 9]])).last_hidden_state
    assert torch.equal(found, expected)
    model.config.pad_token_id = None
    with pytest.raises(TrialInfeasible, match="has no pad_token_id; take prompt and p_tuning out of strategies"):
        model(input_ids=ids)


@pytest.mark.parametrize("name", ["prompt", "p_tuning"])
@pytest.mark.parametrize(
    ("config", "why"),
    [
        (IBertConfig(**SMALL), "its QuantEmbedding is no plain table of vectors"),
        (LongformerConfig(**SMALL, attention_window=[4]), "it picks the tokens that see all others by their places"),
    ],
    ids=["ibert", "longformer"],
)
def test_inputs_of_another_kind_are_refused(name: str, config: PretrainedConfig, why: str) -> None:
    model = freeze_backbone(AutoModelForSequenceClassification.from_config(config))
    with pytest.raises(TrialInfeasible, match=f"{why}; take {name} out of strategies"):
        KINDS[name][0].apply(model, {})


def test_what_reads_neither_tokens_nor_patches_is_refused() -> None:
    for strategy, params in KINDS.values():
        with pytest.raises(TrialInfeasible, match=f"{strategy.info.name} cannot adapt.*neither tokens nor patches"):
            strategy.apply(build("resnet"), params)


def test_attention_that_is_tied_to_patches_is_refused() -> None:
    config = BeitConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=8,
        patch_size=4,
        use_relative_position_bias=True,
    )
    with pytest.raises(TrialInfeasible, match="its attention is tied to the places of patches"):
        Prompt().apply(BeitForImageClassification(config), {})


def test_text_and_prompt_share_the_positions() -> None:
    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=23,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=14,
        pad_token_id=1,
    )
    model = adapt(freeze_backbone(RobertaForSequenceClassification(config).eval()))
    assert logits(model, {"input_ids": torch.full((1, 12 - LENGTH), 4)}).isfinite().all()
    with pytest.raises(TrialInfeasible, match=r"8 tokens and prompt\.length 5 exceed .* 12 positions"):
        logits(model, {"input_ids": torch.full((1, 13 - LENGTH), 4)})
    with pytest.raises(TrialInfeasible, match=r"prompt\.length 12 leaves none of the model's 12 positions"):
        Prompt().apply(RobertaForSequenceClassification(config), {"prompt.length": 12})


@pytest.mark.parametrize("strategy", [Prompt(), PTuning()], ids=["prompt", "p_tuning"])
def test_it_cannot_be_merged(strategy: Strategy) -> None:
    model = strategy.apply(build("bert"), {})
    before = logits(model, inputs("bert"))
    with pytest.raises(UsageError, match=f"{strategy.info.name} cannot be merged"):
        strategy.merge(model)
    assert torch.equal(logits(model, inputs("bert")), before)
