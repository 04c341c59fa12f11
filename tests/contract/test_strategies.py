"""What strategies train, by the papers' own count; and that an interrupted run of each ends as an uninterrupted one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from tests.contract.architectures import KINDS, TEXT, build
from tests.contract.matrix import NAMES, TINY, refusal
from tests.training.samples import Recorder, plan, run, study
from tuner.errors import ConflictError
from tuner.strategies import STRATEGIES, resolve
from tuner.strategies.base import Strategy, backbone_of, freeze_backbone
from tuner.strategies.state import count_parameters, load_trainable_state, trainable_state
from tuner.study.plan import Verdict

# Those that train in different ways: everything, the head on features, a part, an insertion, a schedule of its own.
RESUMED = ("full", "head", "bitfit", "lora", "gradual", "adalora")
RESUMED_TOO = tuple(name for name in (*STRATEGIES, "lora+bitfit") if name not in RESUMED)


def adapt(name: str, kind: str) -> nn.Module:
    model = build(kind)
    torch.manual_seed(1)
    return resolve(name).apply(model, {**TINY, "lora.r": 4})


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


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not refusal("bitfit", kind)])
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


@pytest.mark.parametrize("name", NAMES)
def test_fresh_backbone_parameters_are_trained(name: str) -> None:
    model = build("bert")
    freeze_backbone(model, fresh={"bert.pooler.dense.weight", "bert.pooler.dense.bias"})
    resolve(name).apply(model, TINY)
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
    assert info.summary and info.source


def test_the_contract_is_small() -> None:
    assert Strategy.__abstractmethods__ == {"apply"}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "bert") for name in RESUMED),
        *((name, "distilbert") for name in RESUMED[:4]),
        *(pytest.param(name, "bert", marks=pytest.mark.slow) for name in RESUMED_TOO),
    ],
)
def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(name: str, kind: str, tmp_path: Path) -> None:
    spec = study(tmp_path, kind=kind, training={"epochs": 3})
    whole = Recorder()
    expected = run(plan(spec, tmp_path / "whole", strategy=name, dropout=0.2, score_test=True), report=whole)
    assert len({metrics["train_loss"] for _, metrics in whole.curve}) == 3
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
