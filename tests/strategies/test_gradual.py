from __future__ import annotations

import itertools

import pytest

from tests.contract.architectures import KINDS, build
from tuner.strategies.gradual import Gradual
from tuner.strategies.state import count_parameters, trained_names


def test_one_block_more_is_trained_in_each_phase() -> None:
    params = {"gradual.share": 0.6}
    model = Gradual().apply(build("bert"), params)
    phases = Gradual().phases(model, params)
    assert [phase.start for phase in phases] == pytest.approx([0.0, 0.2, 0.4, 0.6])
    added = [phases[0].trained, *(later.trained - earlier.trained for earlier, later in itertools.pairwise(phases))]
    prefixes = (
        ("classifier.", "bert.pooler."),
        ("bert.encoder.layer.1.",),
        ("bert.encoder.layer.0.",),
        ("bert.embeddings.",),
    )
    for names, prefix in zip(added, prefixes, strict=True):
        assert names == {name for name, _ in model.named_parameters() if name.startswith(prefix)}
    assert all(phase.rate == 1.0 and not phase.restarts for phase in phases)


@pytest.mark.parametrize("kind", KINDS)
def test_in_the_end_everything_is_trained(kind: str) -> None:
    model = Gradual().apply(build(kind), {})
    assert count_parameters(model)[0] == count_parameters(model)[1]
    phases = Gradual().phases(model, {})
    assert phases[0].start == 0.0
    assert phases[-1].start == pytest.approx(0.4)
    assert phases[-1].trained == trained_names(model)
    assert all(earlier.trained < later.trained for earlier, later in itertools.pairwise(phases))
    assert {name for name in phases[0].trained if name.startswith(("classifier", "score", "classification_head"))}


def test_phases_are_the_same_whatever_requires_gradients_just_now() -> None:
    model = Gradual().apply(build("bert"), {})
    phases = Gradual().phases(model, {})
    model.requires_grad_(requires_grad=False)
    assert Gradual().phases(model, {}) == phases


def test_discriminative_rates_are_off_unless_asked_for() -> None:
    model = Gradual().apply(build("bert"), {})
    assert Gradual().learning_rates(model, {}) == {}
    found = Gradual().learning_rates(model, {"gradual.decay": 0.38})
    assert found["bert.encoder.layer.1.output.dense.weight"] == pytest.approx(0.38)
    assert found["bert.embeddings.word_embeddings.weight"] == pytest.approx(0.38**3)
    assert "classifier.weight" not in found
