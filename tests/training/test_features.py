from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.training.samples import CONFIGS, Recorder, plan, run, study, write_model
from tuner.strategies import resolve
from tuner.strategies.base import freeze_backbone
from tuner.tasks import TASKS
from tuner.training.batches import TokenExamples
from tuner.training.cache import WarmCache
from tuner.training.data import load_data, load_labels
from tuner.training.device import Compute, choose_compute
from tuner.training.evaluate import predict
from tuner.training.features import frozen_position, load_features, replayed
from tuner.training.model import build_model, load_base, load_tokenizer

CPU = choose_compute("fp32")


def prepare(folder: Path, *, kind: str, strategy: str = "head", **changes: Any) -> tuple[nn.Module, TokenExamples]:
    spec, cache = study(folder, kind=kind, **changes), WarmCache()
    tokenizer, labels = load_tokenizer(spec, cache=cache), load_labels(spec, cache=cache)
    base = load_base(spec, task=TASKS[spec.task], labels=labels, pad=0, cache=cache)
    model = freeze_backbone(build_model(base, dropout=0.1, seed=3), fresh=base.fresh)
    data = load_data(spec, tokenizer=tokenizer, labels=labels, balance="none", with_test=False, cache=cache)
    return resolve(strategy).apply(model, {}), TokenExamples.on(CPU.device, rows=data.train, pad=0)


@pytest.mark.parametrize(
    ("kind", "position"),
    [("bert", "first"), ("distilbert", "first"), ("modernbert", "first"), ("gpt2", "last"), ("llama", "last")],
)
def test_cached_vectors_reproduce_the_logits(tmp_path: Path, kind: str, position: str) -> None:
    model, examples = prepare(tmp_path, kind=kind)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert frozen_position(model, examples=examples, compute=CPU) == position
    expected = predict(model, examples=examples, compute=CPU)
    features = load_features(
        model, position=position, examples=examples, base_key=("m", None), compute=CPU, cache=WarmCache()
    )
    with replayed(model):
        torch.testing.assert_close(predict(model, examples=features, compute=CPU), expected)
        assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == names
    assert torch.equal(predict(model, examples=examples, compute=CPU), expected)


@pytest.mark.parametrize("strategy", ["full", "lora", "bitfit", "head>full", "gradual"])
def test_a_trained_backbone_is_never_replaced(tmp_path: Path, strategy: str) -> None:
    model, examples = prepare(tmp_path, kind="bert", strategy=strategy)
    assert frozen_position(model, examples=examples, compute=CPU) is None


def test_a_head_that_reads_every_token_takes_the_ordinary_way(tmp_path: Path) -> None:
    model, examples = prepare(tmp_path, kind="t5")
    assert frozen_position(model, examples=examples, compute=CPU) is None
    CONFIGS["modernbert-mean"] = type(CONFIGS["modernbert"])(
        **{**CONFIGS["modernbert"].to_dict(), "classifier_pooling": "mean"}
    )
    try:
        model, examples = prepare(tmp_path, kind="modernbert-mean")
    finally:
        del CONFIGS["modernbert-mean"]
    assert frozen_position(model, examples=examples, compute=CPU) is None


@pytest.mark.parametrize("fits", [4, 0])
def test_a_device_that_is_short_of_memory_decides_nothing(tmp_path: Path, fits: int) -> None:
    """The ordinary way trains another model: the same trial must not take it on a fuller device."""
    model, examples = prepare(tmp_path, kind="bert")

    def _look(_module: nn.Module, _arguments: Any, named: dict[str, Any]) -> None:
        if "inputs_embeds" not in named and len(named["input_ids"]) > fits:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model.register_forward_pre_hook(_look, with_kwargs=True)
    if fits:
        assert frozen_position(model, examples=examples, compute=CPU) == "first"
    else:
        with pytest.raises(torch.OutOfMemoryError):
            frozen_position(model, examples=examples, compute=CPU)


def test_without_dropout_both_ways_give_the_same_curve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = study(tmp_path, training={"max_length": 32})
    fast, slow = Recorder(), Recorder()
    # One batch an epoch, so that the two ways, which sort rows differently, see the same rows at each step.
    run(plan(spec, tmp_path / "fast", strategy="head", dropout=0.0, batch_size=48), report=fast)
    monkeypatch.setattr("tuner.training.run.frozen_position", lambda *_, **__: None)
    run(plan(spec, tmp_path / "slow", strategy="head", dropout=0.0, batch_size=48), report=slow)
    for (_, found), (_, expected) in zip(fast.curve, slow.curve, strict=True):
        assert found == pytest.approx(expected, rel=1e-4)


def test_a_pooler_that_the_checkpoint_lacks_is_trained_on_cached_vectors(tmp_path: Path) -> None:
    write_model(tmp_path / "model-bert", pooler=False)
    model, examples = prepare(tmp_path, kind="bert")
    assert model.get_parameter("bert.pooler.dense.weight").requires_grad
    assert frozen_position(model, examples=examples, compute=CPU) == "first"
    result = run(plan(study(tmp_path), tmp_path / "c", strategy="head"))
    assert result.trainable_params == (16 * 16 + 16) + (16 * 3 + 3)


def test_vectors_are_computed_once_for_all_trials(tmp_path: Path) -> None:
    spec, cache = study(tmp_path), WarmCache()
    run(plan(spec, tmp_path / "a", strategy="head"), cache=cache)
    kept = len(cache)
    run(plan(spec, tmp_path / "b", strategy="head", dropout=0.3, seed=9, batch_size=4), cache=cache)
    assert len(cache) == kept


def test_kept_vectors_lie_in_the_memory_of_the_cpu(tmp_path: Path) -> None:
    model, examples = prepare(tmp_path, kind="bert")
    cache = WarmCache()
    place = torch.device("meta")  # a device that every machine has and that is not the CPU
    load_features(model, position="first", examples=examples, base_key=("m", None), compute=CPU, cache=cache)
    elsewhere = load_features(
        model,
        position="first",
        examples=examples,
        base_key=("m", None),
        compute=_SameName(device=place, dtype=CPU.dtype),
        cache=cache,
    )
    assert len(cache) == 1
    assert elsewhere.features.device == place


class _SameName(Compute):
    """Another device whose vectors count as those of the CPU."""

    def __str__(self) -> str:
        return str(CPU)
