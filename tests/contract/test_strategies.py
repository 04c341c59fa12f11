"""What every strategy and combination must do, on every kind of architecture."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

from tests.training.samples import CONFIGS, LEARNING_RATES, Recorder, plan, run, study
from tuner.errors import ConflictError, TrialInfeasible
from tuner.strategies import STRATEGIES, resolve
from tuner.strategies.base import Strategy, backbone_of, freeze_backbone
from tuner.strategies.state import count_parameters, load_trainable_state, trainable_state
from tuner.study.plan import Verdict

NAMES = (*STRATEGIES, "lora+bitfit", "bitfit+lora")
TEXT = ("bert", "distilbert", "modernbert", "gpt2", "llama", "t5")
WITHOUT_BIASES = {"modernbert", "llama", "t5"}
PAIRS = [(name, kind) for name in NAMES for kind in (*TEXT, "vit") if not ("bitfit" in name and kind in WITHOUT_BIASES)]


def build(kind: str, *, seed: int = 0, dropout: bool = False) -> nn.Module:
    """A model with 3 labels whose head alone is trainable."""
    torch.manual_seed(seed)
    config = copy.deepcopy(CONFIGS[kind])
    config.num_labels = 3
    auto = AutoModelForImageClassification if kind == "vit" else AutoModelForSequenceClassification
    model: nn.Module = auto.from_config(config)
    return freeze_backbone(model.train(dropout))


def inputs(kind: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    if kind == "vit":
        return {"pixel_values": torch.rand(4, 3, 8, 8, generator=generator)}
    ids = torch.randint(4, 23, (4, 6), generator=generator)
    ids[:, -1] = 3  # the end token, by which T5 finds its sentence
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def adapt(name: str, kind: str, *, seed: int = 0) -> nn.Module:
    model = build(kind, seed=seed)
    torch.manual_seed(seed + 1)
    return resolve(name).apply(model, {"lora.r": 4})


def steps(model: nn.Module, kind: str, *, count: int = 8, rate: float = 1e-2) -> list[float]:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    losses = []
    for _ in range(count):
        logits = model(**inputs(kind)).logits
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 1]))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_it_learns_and_changes_nothing_else(name: str, kind: str) -> None:
    model = adapt(name, kind)
    trained = trainable_state(model).keys()
    before = {key: tensor.detach().clone() for key, tensor in (*model.named_parameters(), *model.named_buffers())}
    losses = steps(model, kind)
    assert losses[-1] < losses[0]
    after = dict((*model.named_parameters(), *model.named_buffers()))
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed <= trained
    assert any(key.startswith(("classifier", "score", "classification_head")) for key in changed)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_reloaded_weights_give_equal_logits(name: str, kind: str, tmp_path: Path) -> None:
    model = adapt(name, kind)
    steps(model, kind, count=3)
    save_file({key: value.contiguous() for key, value in trainable_state(model).items()}, tmp_path / "w.safetensors")
    other = build(kind)  # the same pretrained model …
    torch.manual_seed(99)  # … whose inserted weights and head are drawn differently
    for parameter in other.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter)
    other = resolve(name).apply(other, {"lora.r": 4})
    load_trainable_state(other, load_file(tmp_path / "w.safetensors"))
    with torch.inference_mode():
        expected, found = model.eval()(**inputs(kind)).logits, other.eval()(**inputs(kind)).logits
    assert torch.equal(expected, found)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_merged_model_has_the_same_logits_and_plain_layers(name: str, kind: str) -> None:
    strategy, model = resolve(name), adapt(name, kind)
    steps(model, kind, count=3)
    with torch.inference_mode():
        expected = model.eval()(**inputs(kind)).logits
        merged = strategy.merge(model).eval()
        torch.testing.assert_close(merged(**inputs(kind)).logits, expected, rtol=1e-4, atol=1e-5)
    assert merged.state_dict().keys() == build(kind).state_dict().keys()


def head_size(model: nn.Module) -> int:
    inside = {id(parameter) for parameter in backbone_of(model).parameters()}
    return sum(parameter.numel() for parameter in model.parameters() if id(parameter) not in inside)


def test_head_trains_the_classifier_alone() -> None:
    assert count_parameters(adapt("head", "bert"))[0] == 16 * 3 + 3
    assert count_parameters(adapt("head", "distilbert"))[0] == (16 * 16 + 16) + (16 * 3 + 3)


@pytest.mark.parametrize("kind", TEXT)
def test_full_trains_everything(kind: str) -> None:
    trained, total = count_parameters(adapt("full", kind))
    assert trained == total == sum(parameter.numel() for parameter in build(kind).parameters())


def test_lora_has_r_times_inputs_and_outputs_for_each_layer() -> None:
    # A layer of BERT: query, key, value, attention output (16 to 16 each), then 16 to 32 and 32 to 16; and the pooler.
    layer = 4 * 4 * (16 + 16) + 4 * (16 + 32) + 4 * (32 + 16)
    assert count_parameters(adapt("lora", "bert"))[0] == 2 * layer + 4 * (16 + 16) + head_size(build("bert"))
    assert count_parameters(adapt("lora", "distilbert"))[0] == 2 * layer + head_size(build("distilbert"))
    # GPT-2: query, key and value in one Conv1D (16 to 48), its output, and the two of the feed-forward.
    gpt2 = 4 * (16 + 48) + 4 * (16 + 16) + 4 * (16 + 64) + 4 * (64 + 16)
    assert count_parameters(adapt("lora", "gpt2"))[0] == 2 * gpt2 + head_size(build("gpt2"))


@pytest.mark.parametrize("kind", ["bert", "distilbert", "gpt2", "vit"])
def test_bitfit_trains_exactly_the_biases_and_the_head(kind: str) -> None:
    model = adapt("bitfit", kind)
    inside = {id(parameter) for parameter in backbone_of(model).parameters()}
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (name.endswith("bias") or id(parameter) not in inside), name


@pytest.mark.parametrize("kind", ["bert", "distilbert", "gpt2"])
def test_combination_trains_the_union(kind: str) -> None:
    sizes = {name: count_parameters(adapt(name, kind))[0] for name in ("lora", "bitfit", "lora+bitfit", "bitfit+lora")}
    assert sizes["lora+bitfit"] == sizes["bitfit+lora"]
    assert sizes["lora+bitfit"] == sizes["lora"] + sizes["bitfit"] - head_size(build(kind))


@pytest.mark.parametrize("kind", sorted(WITHOUT_BIASES))
def test_bitfit_refuses_a_backbone_without_biases(kind: str) -> None:
    model = build(kind)
    biases = [name for name, _ in backbone_of(model).named_parameters() if name.endswith("bias")]
    assert biases == []
    with pytest.raises(TrialInfeasible, match="no biases"):
        resolve("bitfit").apply(model, {})


@pytest.mark.parametrize("name", NAMES)
def test_fresh_backbone_parameters_are_trained(name: str) -> None:
    model = build("bert")
    freeze_backbone(model, fresh={"bert.pooler.dense.weight", "bert.pooler.dense.bias"})
    resolve(name).apply(model, {})
    assert model.get_parameter("bert.pooler.dense.weight").requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_another_shape_are_refused_and_change_nothing(name: str) -> None:
    model = adapt(name, "bert")
    state = {key: value.clone() + 1 for key, value in trainable_state(model).items()}
    before = {key: value.clone() for key, value in trainable_state(model).items()}
    state["classifier.weight"] = torch.zeros(5, 16)
    with pytest.raises(ConflictError, match=r"classifier\.weight"):
        load_trainable_state(model, state)
    assert all(torch.equal(value, before[key]) for key, value in trainable_state(model).items())


@pytest.mark.parametrize("strategy", STRATEGIES.values(), ids=STRATEGIES)
def test_facts_are_in_order(strategy: Strategy) -> None:
    info = strategy.info
    assert STRATEGIES[info.name] is strategy
    sizes = [size for size, _ in info.learning_rate]
    assert sizes == sorted(sizes) and all(0 < rate < 1 for _, rate in info.learning_rate)
    for knob in info.hyperparameters:
        assert knob.name.startswith(f"{info.name}.")
        assert knob.domain.clip(knob.default) == knob.default
        assert knob.allowed is None or knob.allowed.clip(knob.default) == knob.default
    assert len(Strategy.__abstractmethods__) <= 3


@pytest.mark.parametrize("kind", ["bert", "distilbert"])
@pytest.mark.parametrize("name", LEARNING_RATES)
def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(name: str, kind: str, tmp_path: Path) -> None:
    spec = study(tmp_path, kind=kind, training={"epochs": 3})
    whole = Recorder()
    expected = run(plan(spec, tmp_path / "whole", strategy=name, dropout=0.2, score_test=True), report=whole)
    assert whole.curve[-1][1]["train_loss"] < whole.curve[0][1]["train_loss"]
    for epoch in (1, 2):
        first, second = Recorder(after=epoch, verdict=Verdict.RELEASE), Recorder()
        part = tmp_path / f"part-{epoch}"
        released = run(plan(spec, part, strategy=name, dropout=0.2), report=first)
        assert (released.ended_by, released.epochs) == ("release", epoch)
        found = run(
            plan(spec, tmp_path / f"rest-{epoch}", strategy=name, dropout=0.2, score_test=True, resume_from=[part]),
            report=second,
        )
        assert first.curve == whole.curve[:epoch]
        assert second.curve == whole.curve[epoch - 1 :]
        assert (found.metrics, found.test, found.confusion) == (expected.metrics, expected.test, expected.confusion)
        ours = load_file(Path(expected.checkpoint) / "weights.safetensors")
        theirs = load_file(Path(found.checkpoint) / "weights.safetensors")
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
