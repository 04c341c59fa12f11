"""What a person may propose for a trial, and what each mistake is told as."""

from __future__ import annotations

import pytest

from tuner.errors import UsageError
from tuner.study.domains import Choice, Domain, Fixed, Range, Value
from tuner.study.hyperparameters import RELATIVE_LEARNING_RATE
from tuner.study.proposals import as_proposal, choose_strategy
from tuner.study.space import SearchSpace, StrategySpace

DOMAINS: dict[str, Domain] = {
    RELATIVE_LEARNING_RATE: Range(low=-1.0, high=1.0),
    "batch_size": Choice(options=(8, 16)),
    "schedule": Choice(options=("linear", "cosine")),
    "nesterov": Choice(options=(True, False)),
    "warmup": Range(low=0.0, high=0.2),
    "epochs": Fixed(value=3),
    "lora.r": Range(low=4, high=16, step=4, kind="int"),
}


def block(**changes: Domain) -> StrategySpace:
    return StrategySpace(strategy="lora", prior=5e-4, domains={**DOMAINS, **changes}, recipe={})


def space_of(*blocks: StrategySpace) -> SearchSpace:
    return SearchSpace(strategies=blocks)


@pytest.mark.parametrize(
    ("values", "proposal"),
    [
        ({}, {}),
        ({"learning_rate": 5e-4}, {RELATIVE_LEARNING_RATE: 0.0}),
        ({"learning_rate": "5e-3"}, {RELATIVE_LEARNING_RATE: 1.0}),
        ({"batch_size": "16"}, {"batch_size": 16}),
        ({"batch_size": 16.0}, {"batch_size": 16}),
        ({"schedule": "cosine"}, {"schedule": "cosine"}),
        ({"nesterov": "true"}, {"nesterov": True}),
        ({"warmup": "0.2"}, {"warmup": 0.2}),
        ({"lora.r": "12"}, {"lora.r": 12}),
        ({"epochs": "3"}, {}),
    ],
)
def test_values_become_what_a_sampler_would_say(values: dict[str, Value], proposal: dict[str, Value]) -> None:
    found = as_proposal(block(), values)
    assert found == pytest.approx(proposal)
    assert {name: type(value) for name, value in found.items()} == {k: type(v) for k, v in proposal.items()}


def test_what_is_proposed_is_what_is_trained() -> None:
    space = space_of(block())
    asked: dict[str, Value] = {
        "learning_rate": 3e-4,
        "batch_size": 8,
        "schedule": "linear",
        "nesterov": False,
        "warmup": 0.1,
        "lora.r": 8,
    }
    trained = space.absolute("lora", as_proposal(space.block("lora"), asked))
    assert trained == pytest.approx(asked | {"epochs": 3})


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"learning_rate": 1.0}, "learning_rate=1.0 is outside [5e-05, 0.005]"),
        ({"learning_rate": "fast"}, "learning_rate=fast must be a number"),
        ({"learning_rate": "nan"}, "learning_rate=nan must be a number"),
        ({"learning_rat": 1e-4}, 'unknown parameter "learning_rat"; did you mean "learning_rate"?'),
        ({"batch_size": 20}, "batch_size=20 is none of 8, 16"),
        ({"schedule": "cosin"}, 'schedule=cosin is none of linear, cosine; did you mean "cosine"?'),
        ({"warmup": 0.3}, "warmup=0.3 is outside [0, 0.2]"),
        ({"lora.r": 7.5}, "lora.r=7.5 must be a whole number"),
        ({"lora.r": 7}, "lora.r=7 is not on the grid of 4 to 16 in steps of 4"),
        ({"epochs": 5}, "epochs=5 is not searched: it is 3 in this study"),
        ({"batch_size": 20, "warmup": 1}, "batch_size=20 is none of 8, 16; warmup=1 is outside [0, 0.2]"),
    ],
)
def test_mistakes_are_told_all_at_once(values: dict[str, Value], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        as_proposal(block(), values)
    assert str(caught.value) == text


def test_a_learning_rate_is_relative_to_the_optimizer() -> None:
    two = block(optimizer=Choice(options=("adamw", "lion")))
    with pytest.raises(UsageError, match="needs the optimizer, too: set optimizer to one of adamw, lion"):
        as_proposal(two, {"learning_rate": 5e-4})
    found = as_proposal(two, {"learning_rate": 5e-4, "optimizer": "adamw"})
    assert found == {RELATIVE_LEARNING_RATE: pytest.approx(0.0), "optimizer": "adamw"}
    others: dict[str, Value] = {"batch_size": 8, "schedule": "linear", "nesterov": True, "warmup": 0.0, "lora.r": 4}
    proposal = as_proposal(two, {"learning_rate": 1e-4, "optimizer": "lion"})
    lion = space_of(two).absolute("lora", others | proposal)
    assert lion["learning_rate"] == pytest.approx(1e-4)


@pytest.mark.parametrize("rates", [Choice(options=(-1.0, 0.0)), Fixed(value=0.0)])
def test_a_learning_rate_of_a_few(rates: Domain) -> None:
    few = block(**{RELATIVE_LEARNING_RATE: rates})
    assert as_proposal(few, {"learning_rate": 5e-4}) in ({RELATIVE_LEARNING_RATE: 0.0}, {})
    with pytest.raises(UsageError, match=r"learning_rate=0.0004 is none of .*0.0005"):
        as_proposal(few, {"learning_rate": 4e-4})


def test_the_strategy_is_named_where_there_are_several() -> None:
    one, two = block(), StrategySpace(strategy="full", prior=5e-5, domains=DOMAINS, recipe={})
    assert choose_strategy(space_of(one), None) == "lora"
    assert choose_strategy(space_of(one, two), "full") == "full"
    with pytest.raises(UsageError, match="no strategy is named; say one of lora, full"):
        choose_strategy(space_of(one, two), None)
    with pytest.raises(UsageError, match='unknown strategy "lroa"; did you mean "lora"'):
        choose_strategy(space_of(one, two), "lroa")


@pytest.mark.parametrize("name", ["r", "rank", "lora_r"])
def test_a_knob_is_known_by_its_last_word_and_by_what_others_call_it(name: str) -> None:
    with pytest.raises(UsageError, match=rf'unknown parameter "{name}"; did you mean "lora\.r"\?'):
        as_proposal(block(), {name: 8})


def test_a_parameter_is_known_by_its_initials() -> None:
    with pytest.raises(UsageError, match=r'unknown parameter "lr"; did you mean "learning_rate"\?'):
        as_proposal(block(), {"lr": 3e-4})
