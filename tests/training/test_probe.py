from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForSequenceClassification, DebertaV2Config, RobertaConfig

from tests.study.samples import CATALOGUE
from tests.training.samples import CONFIGS, LABELS, study, write_model
from tuner.errors import TrialInfeasible
from tuner.strategies import resolve
from tuner.strategies.anatomy import find_blocks
from tuner.strategies.base import freeze_backbone
from tuner.strategies.state import count_parameters, trainable_state
from tuner.study.build import build_space
from tuner.study.proof import StrategyProof, ends_of
from tuner.study.spec import StudySpec
from tuner.tasks import TASKS
from tuner.training.cache import WarmCache
from tuner.training.model import build_model, load_base
from tuner.training.probe import probe_study

STRATEGIES = ("full", "head", "bitfit", "lora", "lora+bitfit", "head>lora")


def prove(spec: StudySpec, *, folder: str = "") -> dict[str, StrategyProof]:
    space = build_space(spec, catalogue=CATALOGUE, parameters=1e5)
    return {
        proof.strategy: proof for proof in probe_study(spec, space=space, classes=LABELS, folder=folder or spec.model)
    }


def really(spec: StudySpec, strategy: str) -> nn.Module:
    """The model of a trial of the recipe."""
    base = load_base(spec, task=TASKS[spec.task], labels=LABELS, pad=0, cache=WarmCache())
    block = build_space(spec, catalogue=CATALOGUE, parameters=1e5)
    model = build_model(base, dropout=0.1, seed=0)
    params = block.absolute(strategy, block.block(strategy).recipe)
    return resolve(strategy).apply(freeze_backbone(model, fresh=base.fresh), params)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "modernbert", "gpt2", "llama", "t5"])
def test_counts_are_those_of_the_model_that_a_trial_trains(kind: str, tmp_path: Path) -> None:
    spec = study(tmp_path, kind=kind, strategies=["full", "lora", "head>lora"], space={"lora": {"r": 4}})
    proofs = prove(spec)
    for strategy in spec.strategy_names:
        model, proof = really(spec, strategy), proofs[strategy]
        assert proof.works
        assert (proof.trainable, proof.total) == count_parameters(model)
        assert proof.checkpoint == sum(4 * tensor.numel() for tensor in trainable_state(model).values())
        assert not proof.refusals
        assert not proof.unknown


def test_parts_that_the_checkpoint_lacks_are_trained_by_every_strategy(tmp_path: Path) -> None:
    write_model(tmp_path / "model-bert", pooler=False)
    spec = study(tmp_path, strategies=["head"])
    assert prove(spec)["head"].trainable == 3 * 16 + 3 + 16 * 16 + 16


def test_what_a_forward_pass_keeps_is_counted_as_it_is(tmp_path: Path) -> None:
    """The same hooks on a real model with real tokens give the same bytes, strategy by strategy."""
    spec = study(tmp_path, strategies=STRATEGIES, space={"batch_size": 8})
    proofs = prove(spec)
    for strategy in STRATEGIES:
        model = really(spec, strategy)
        weights = {tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers())}
        kept: dict[int, Tensor] = {}

        def note(tensor: Tensor, *, weights: set[int] = weights, kept: dict[int, Tensor] = kept) -> Tensor:
            if tensor.untyped_storage().data_ptr() not in weights:
                kept[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            logits = model(input_ids=torch.zeros(8, 16, dtype=torch.long)).logits
            nn.functional.cross_entropy(logits, torch.zeros(8, dtype=torch.long))
        bytes_kept = sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
        proof = proofs[strategy]
        assert proof.memory is not None
        assert proof.trainable is not None
        assert proof.total is not None
        largest = 8 * 16 * 32 * 4  # the feed-forward's hidden vectors
        gradients = 4 * proof.trainable
        moments = 2 * gradients
        assert proof.is_memory_counted
        assert proof.memory == 4 * proof.total + moments + max(bytes_kept + 2 * largest, gradients)


def test_micro_batches_and_other_optimizers_take_less(tmp_path: Path) -> None:
    spec = study(tmp_path, training={"max_length": 64})
    small = study(tmp_path, training={"max_length": 64, "micro_batch": 2})
    lean = study(tmp_path, training={"max_length": 64}, space={"optimizer": "sgd"})
    memory = [prove(which)["full"].memory or 0 for which in (spec, small, lean)]
    trainable = prove(spec)["full"].trainable
    assert memory[0] > memory[1]
    assert trainable is not None
    assert memory[0] - memory[2] == 4 * trainable


def test_strategy_that_cannot_work_says_why(tmp_path: Path) -> None:
    proof = prove(study(tmp_path, kind="llama", strategies=["bitfit"]))["bitfit"]
    assert not proof.works
    assert [refusal.message for refusal in proof.refusals] == [
        "bitfit cannot adapt LlamaForSequenceClassification - its backbone has no biases; take bitfit out of strategies"
    ]


def test_values_that_cannot_work_are_found_at_the_ends_of_their_range(tmp_path: Path) -> None:
    spec = study(tmp_path, strategies=["lora", "lora+bitfit"], space={"lora": {"r": [4, 8, 64]}})
    proofs = prove(spec)
    assert proofs["lora"].works
    assert [(refusal.knob, refusal.value) for refusal in proofs["lora"].refusals] == [("lora.r", 64)]
    assert proofs["lora"].refusals[0].message.startswith("lora.r 64 exceeds the width")
    assert not proofs["lora+bitfit"].refusals  # told already


def test_recipe_that_cannot_work_beside_values_that_can(tmp_path: Path) -> None:
    spec = study(tmp_path, strategies=["lora"])
    space = build_space(spec, catalogue=CATALOGUE, parameters=1e5)
    block = space.block("lora")
    wide = replace(space, strategies=(replace(block, recipe={**block.recipe, "lora.r": 32}),))
    proof = probe_study(spec, space=wide, classes=LABELS, folder=spec.model)[0]
    assert proof.works
    assert not proof.refusals[0].knob
    assert proof.trainable is not None


def test_prefix_and_text_must_have_positions_together(tmp_path: Path) -> None:
    spec = study(tmp_path, strategies=["prefix"], training={"max_length": 60}, space={"prefix": {"length": [2, 8]}})
    proof = prove(spec)["prefix"]
    assert proof.works
    assert proof.refusals[0].message.startswith("60 tokens and prefix.length 8 exceed the model's 64 positions")


@pytest.mark.parametrize("kind", ["bert", "distilbert", "modernbert", "gpt2", "llama", "t5"])
def test_every_family_is_asked_for_the_ends_of_ranges(kind: str, tmp_path: Path) -> None:
    spec = study(tmp_path, kind=kind, strategies=["lora", "prompt"], space={"lora": {"r": [4, 8, 64]}})
    proofs = prove(spec)
    assert not [proof.unknown for proof in proofs.values() if proof.unknown]
    assert [(refusal.knob, refusal.value) for refusal in proofs["lora"].refusals] == [("lora.r", 64)]


def test_strategy_that_breaks_does_not_break_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("query")

    spec = study(tmp_path, strategies=["head", "bitfit"])
    monkeypatch.setattr("tuner.strategies.bitfit.BitFit.apply", fail)
    proofs = prove(spec)
    assert proofs["bitfit"].unknown == "KeyError: 'query'"
    assert proofs["bitfit"].works
    assert proofs["head"].trainable is not None


@pytest.mark.parametrize("kind", ["bert", "t5"])
def test_strategy_that_breaks_the_forward_pass_does_not_work(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def narrow(_self: object, model: nn.Module, _params: object) -> nn.Module:
        block = model.get_submodule(find_blocks(model)[0].name)
        block.register_forward_pre_hook(lambda _block, given: (given[0][..., :-1], *given[1:]))
        return model

    spec = study(tmp_path, kind=kind, strategies=["head", "bitfit"])
    monkeypatch.setattr("tuner.strategies.bitfit.BitFit.apply", narrow)
    proofs = prove(spec)
    assert proofs["head"].works
    assert not proofs["bitfit"].works
    message = proofs["bitfit"].refusals[0].message
    assert message.startswith(f"bitfit does not run on {type(really(spec, 'head')).__name__} - RuntimeError: ")
    assert message.endswith("; take bitfit out of strategies")


def short_deberta(folder: Path) -> None:
    """A model that looks at its masks before the first block, so that it cannot be run on shapes, in place of BERT."""
    write_model(folder / "model-bert")
    size: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    more: dict[str, Any] = {"pooler_hidden_size": 16, "relative_attention": True, "position_buckets": 8}
    config = DebertaV2Config(**size, **more, vocab_size=23)
    AutoModel.from_config(config).save_pretrained(folder / "model-bert")


def test_model_that_needs_content_is_tried_in_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def narrow(_self: object, model: nn.Module, _params: object) -> nn.Module:
        block = model.get_submodule(find_blocks(model)[0].name)
        block.register_forward_pre_hook(lambda _block, given: (given[0][..., :-1], *given[1:]))
        return model

    short_deberta(tmp_path)
    spec = study(tmp_path, strategies=["full", "lora", "adapter", "bitfit"])
    monkeypatch.setattr("tuner.strategies.bitfit.BitFit.apply", narrow)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    proofs = prove(spec)
    assert torch.equal(before, torch.random.get_rng_state())
    assert [name for name, proof in proofs.items() if not proof.works] == ["bitfit"]
    message = proofs["bitfit"].refusals[0].message
    assert message.startswith("bitfit does not run on DebertaV2ForSequenceClassification - RuntimeError: ")


@pytest.mark.parametrize("is_in_small", [False, True])
def test_strategy_for_which_there_is_no_memory_here_is_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_in_small: bool
) -> None:
    def greedy(_self: object, model: nn.Module, _params: object) -> nn.Module:
        block = model.get_submodule(find_blocks(model)[0].name)
        block.register_forward_pre_hook(lambda _block, _given: torch.empty(2**60, dtype=torch.uint8))
        return model

    if is_in_small:
        short_deberta(tmp_path)
    monkeypatch.setattr("tuner.strategies.bitfit.BitFit.apply", greedy)
    proof = prove(study(tmp_path, strategies=["bitfit"]))["bitfit"]
    assert proof.works
    assert not proof.refusals
    assert "DefaultCPUAllocator: can't allocate memory" in proof.unknown


def test_strategy_for_which_the_small_copy_has_too_few_blocks_is_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def four(_self: object, model: nn.Module, _params: object) -> nn.Module:
        if len(find_blocks(model)) < 4:
            raise TrialInfeasible("there are too few blocks")
        return model

    short_deberta(tmp_path)
    monkeypatch.setattr("tuner.strategies.bitfit.BitFit.apply", four)
    assert prove(study(tmp_path, strategies=["bitfit"]))["bitfit"].works


def test_value_that_breaks_the_forward_pass_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def narrow(_self: object, model: nn.Module, params: Mapping[str, Any]) -> nn.Module:
        block = model.get_submodule(find_blocks(model)[0].name)
        if params["lora.r"] == 4:
            block.register_forward_pre_hook(lambda _block, given: (given[0][..., :-1], *given[1:]))
        return model

    spec = study(tmp_path, strategies=["lora"], space={"lora": {"r": [2, 4, 8]}})
    monkeypatch.setattr("tuner.strategies.lora.Lora.apply", narrow)
    proof = prove(spec)["lora"]
    assert proof.works
    assert [(refusal.knob, refusal.value) for refusal in proof.refusals] == [("lora.r", 4)]


def test_strategy_that_looks_at_the_content_of_tensors_is_not_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(_self: object, model: nn.Module, _params: object) -> nn.Module:
        model.get_submodule(find_blocks(model)[0].name).register_forward_pre_hook(
            lambda _block, given: (given[0] * given[0].sum().item(), *given[1:])
        )
        return model

    monkeypatch.setattr("tuner.strategies.bitfit.BitFit.apply", look)
    proof = prove(study(tmp_path, strategies=["bitfit"]))["bitfit"]
    assert proof.works
    assert not proof.refusals
    assert not proof.is_memory_counted


def short_roberta(folder: Path) -> None:
    """A model of 62 positions in place of BERT's."""
    write_model(folder / "model-bert")
    size: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    config = RobertaConfig(**size, vocab_size=23, pad_token_id=1, max_position_embeddings=64)
    AutoModel.from_config(config).save_pretrained(folder / "model-bert")


def test_strategy_works_if_all_values_at_their_lowest_do(tmp_path: Path) -> None:
    short_roberta(tmp_path)
    space = {"prompt": {"length": [8, 16]}, "prefix": {"length": [8, 16]}}
    spec = study(tmp_path, strategies=["prompt+prefix"], training={"max_length": 40}, space=space)
    searched = build_space(spec, catalogue=CATALOGUE, parameters=1e5)
    block = searched.strategies[0]
    long = replace(block, recipe={**block.recipe, "prompt.length": 16, "prefix.length": 16})
    proof = probe_study(spec, space=replace(searched, strategies=(long,)), classes=LABELS, folder=spec.model)[0]
    assert proof.works
    assert proof.trainable is not None
    assert [(refusal.knob, refusal.value) for refusal in proof.refusals] == [
        ("", None),
        ("prompt.length", 16),
        ("prefix.length", 16),
    ]
    assert proof.refusals[0].message == (
        "40 tokens, prompt.length 16 and prefix.length 16 exceed the model's positions together; "
        "lower training.max_length to 30, or space.prompt.length or space.prefix.length"
    )


@pytest.mark.parametrize(("tokens", "works"), [(30, True), (31, False)])
def test_length_that_is_recommended_is_the_longest_that_works(tokens: int, works: bool, tmp_path: Path) -> None:
    short_roberta(tmp_path)
    space = {"prompt": {"length": 16}, "prefix": {"length": 16}}
    spec = study(tmp_path, strategies=["prompt+prefix"], training={"max_length": tokens}, space=space)
    assert prove(spec)["prompt+prefix"].works == works


def test_configuration_alone_is_enough(tmp_path: Path) -> None:
    """Of a hub model that was not fetched there are no weights to look at."""
    spec = study(tmp_path, strategies=["full", "lora"])
    space = build_space(spec, catalogue=CATALOGUE, parameters=1e5)
    for file in Path(spec.model).glob("*.safetensors"):
        file.write_bytes(b"")
    for proof in probe_study(spec, space=space, classes=LABELS, folder=""):
        assert (proof.trainable, proof.total) == count_parameters(_from_config(proof.strategy))


def _from_config(strategy: str) -> nn.Module:
    config = copy.deepcopy(CONFIGS["bert"])
    config.num_labels = len(LABELS)
    model = AutoModelForSequenceClassification.from_config(config)
    return resolve(strategy).apply(freeze_backbone(model), {})


def test_the_fewest_parameters_are_counted_where_a_constraint_asks_for_fewer(tmp_path: Path) -> None:
    """No value in the space trains fewer, and some value trains as many."""
    space = {"lora": {"r": [2, 4, 8], "targets": ["attention", "linear"]}, "adapter": {"reduction": [2, 4, 8]}}
    spec = study(tmp_path, strategies=["head", "lora", "adapter"], space=space)
    proofs = prove(spec)
    assert [proof.fewest for proof in proofs.values()] == [None] * 3
    bound = proofs["head"].trainable or 0
    spec = spec.model_copy(update={"constraints": (f"trainable_params <= {bound}",)})
    found = prove(spec)
    assert found["head"].fewest is None
    base = load_base(spec, task=TASKS[spec.task], labels=LABELS, pad=0, cache=WarmCache())
    whole = build_space(spec, catalogue=CATALOGUE, parameters=1e5)
    for strategy, knobs in (
        ("lora", ("lora.r", "lora.targets")),
        ("adapter", ("adapter.reduction", "adapter.placement")),
    ):
        params, block = whole.absolute(strategy, whole.block(strategy).recipe), whole.block(strategy)
        counts = []
        for values in itertools.product(*(ends_of(block.domains[knob]) for knob in knobs)):
            model = freeze_backbone(build_model(base, dropout=0.1, seed=0), fresh=base.fresh)
            adapted = resolve(strategy).apply(model, {**params, **dict(zip(knobs, values, strict=True))})
            counts.append(count_parameters(adapted)[0])
        assert found[strategy].fewest == min(counts) < max(counts)
