from __future__ import annotations

from typing import Any

import pytest

from tests.study.samples import CATALOGUE
from tuner.errors import StudyFileError
from tuner.study.build import ResolvedSpace, build_space, resolve_space
from tuner.study.domains import Choice, Fixed, Range
from tuner.study.file import validate_study
from tuner.study.hyperparameters import OPTIMIZER_RATES, RELATIVE_LEARNING_RATE, SHARED_HYPERPARAMETERS
from tuner.study.space import SearchSpace

SIZE = 1.1e8


def resolve(raw: dict[str, Any], *strategies: str) -> ResolvedSpace:
    return resolve_space(raw, strategies=strategies or ("head", "lora"), catalogue=CATALOGUE, parameters=SIZE)


def space(raw: dict[str, Any], *strategies: str) -> SearchSpace:
    resolved = resolve(raw, *strategies)
    assert not resolved.problems
    return resolved.space


def test_without_a_section_every_strategy_has_its_own_ranges() -> None:
    block = space({}).block("lora")
    shared = {knob.name for knob in SHARED_HYPERPARAMETERS}
    own = {knob.name for knob in CATALOGUE.strategies["lora"].hyperparameters}
    assert set(block.domains) == shared | own
    assert block.prior == pytest.approx(5e-4)
    assert block.recipe[RELATIVE_LEARNING_RATE] == 0.0
    assert set(block.recipe) == {name for name, domain in block.domains.items() if not isinstance(domain, Fixed)}


def test_prior_follows_the_size_of_the_model() -> None:
    priors = [
        resolve_space({}, strategies=["full"], catalogue=CATALOGUE, parameters=size).space.block("full").prior
        for size in (4.4e6, 1.1e8, 3e9)
    ]
    assert priors == sorted(priors, reverse=True)
    assert len(set(priors)) == 3


def test_one_absolute_learning_rate_for_all_has_one_name() -> None:
    built = space({"learning_rate": {"low": 1e-5, "high": 3e-4, "log": True}})
    for block in built.strategies:
        assert RELATIVE_LEARNING_RATE not in block.domains
        assert block.domains["learning_rate"] == Range(low=1e-5, high=3e-4, log=True)
    assert built.block("lora").recipe["learning_rate"] == 3e-4  # the prior of 5e-4, clipped
    assert built.absolute("lora", {**built.block("lora").recipe})["learning_rate"] == 3e-4


def test_learning_rate_of_one_strategy_has_its_own_name() -> None:
    built = space(
        {
            "learning_rate": {"low": 1e-5, "high": 1e-3},
            "lora": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}},
        }
    )
    assert built.block("lora").domains["lora.learning_rate"] == Range(low=1e-4, high=1e-2, log=True)
    assert "learning_rate" not in built.block("lora").domains
    assert "learning_rate" in built.block("head").domains
    assert built.absolute("lora", built.block("lora").recipe)["learning_rate"] == pytest.approx(5e-4)


def test_shared_hyperparameter_of_one_strategy_leaves_the_others_alone() -> None:
    built = space({"lora": {"batch_size": [4, 8], "weight_decay": 0.0}})
    assert built.block("lora").domains["lora.batch_size"] == Choice(options=(4, 8))
    assert "batch_size" not in built.block("lora").domains
    assert built.block("head").domains["batch_size"] == Choice(options=(8, 16, 32))
    absolute = built.absolute("lora", built.block("lora").recipe)
    assert absolute["batch_size"] == 8
    assert absolute["weight_decay"] == 0.0
    assert not [name for name in absolute if name in {"lora.batch_size", "lora.weight_decay"}]


def test_own_dropout_of_lora_is_not_the_shared_one() -> None:
    built = space({"dropout": 0.25, "lora": {"dropout": 0.125}})
    absolute = built.absolute("lora", built.block("lora").recipe)
    assert absolute["dropout"] == 0.25
    assert absolute["lora.dropout"] == 0.125


def test_combination_has_the_knobs_of_its_components() -> None:
    built = space(
        {"lora": {"r": [2, 4]}, "lora+bitfit": {"learning_rate": 1e-3, "batch_size": 4}}, "lora+bitfit", "lora"
    )
    block = built.block("lora+bitfit")
    assert block.domains["lora.r"] == built.block("lora").domains["lora.r"] == Choice(options=(2, 4))
    assert block.domains["lora+bitfit.learning_rate"] == Fixed(value=1e-3)
    absolute = built.absolute("lora+bitfit", block.recipe)
    assert absolute["learning_rate"] == 1e-3
    assert absolute["batch_size"] == 4
    assert absolute["lora.r"] == 4  # the recipe's 8 is not among the choices; the nearest is
    rates = [space({}, name).block(name).prior for name in ("lora", "bitfit")]
    assert block.prior == pytest.approx((rates[0] * rates[1]) ** 0.5)


def test_components_block_serves_a_combination_alone() -> None:
    assert space({"lora": {"r": 4}}, "lora+bitfit").block("lora+bitfit").domains["lora.r"] == Fixed(value=4)


def test_component_that_is_no_strategy_has_no_learning_rate() -> None:
    resolved = resolve({"lora": {"learning_rate": 1e-3}}, "lora+bitfit")
    assert [problem.message for problem in resolved.problems] == [
        '"lora" is not among the strategies; write learning_rate in the block lora+bitfit'
    ]


def test_knob_of_a_component_belongs_in_the_components_block() -> None:
    resolved = resolve({"lora+bitfit": {"r": 4}}, "lora+bitfit")
    assert [problem.message for problem in resolved.problems] == ["r belongs to lora; write it in the block lora"]


def test_block_of_another_strategy_only_warns() -> None:
    resolved = resolve({"bitfit": {"learning_rate": 1e-3}})
    assert not resolved.problems
    assert resolved.warnings[0].message == 'space.bitfit: has no effect, since "bitfit" is not among the strategies'


def test_names_searched_by_several_strategies_have_one_domain() -> None:
    """Optuna keeps one distribution for a name."""
    raw = {"dropout": [0.0, 0.1], "lora": {"weight_decay": 0.0, "r": [4, 8]}, "lora+bitfit": {"batch_size": [4, 8]}}
    built = space(raw, "head", "lora", "bitfit", "lora+bitfit", "full")
    domains: dict[str, Any] = {}
    for block in built.strategies:
        for name, domain in block.domains.items():
            assert domains.setdefault(name, domain) == domain


def test_sequence_has_the_prior_of_its_last_stage_and_begins_with_that_of_its_first() -> None:
    built = space({}, "head>lora+bitfit", "head", "lora+bitfit")
    block = built.block("head>lora+bitfit")
    assert block.prior == built.block("lora+bitfit").prior
    assert "lora.r" in block.domains
    assert block.domains["switch.at"] == Range(low=0.1, high=0.5)
    absolute = built.absolute(block.strategy, block.recipe)
    assert absolute["switch.at"] == 0.25
    assert float(absolute["learning_rate"]) * float(absolute["switch.rate"]) == pytest.approx(built.block("head").prior)
    assert not [name for name in built.block("head").domains if name.startswith("switch.")]


def test_switch_may_be_searched() -> None:
    raw = {"switch": {"at": [0.2, 0.4], "rate": {"low": 0.5, "high": 2.0}}, "head>lora": {"learning_rate": 1e-3}}
    block = space(raw, "head>lora", "head>full").block("head>lora")
    assert block.domains["switch.at"] == Choice(options=(0.2, 0.4))
    assert block.recipe["switch.at"] == 0.2
    assert block.domains["switch.rate"] == Range(low=0.5, high=2.0)
    assert block.recipe["switch.rate"] == 2.0  # the heads' rate is far above lora's; clipped
    assert block.domains["head>lora.learning_rate"] == Fixed(value=1e-3)
    assert space(raw, "head>lora").absolute("head>lora", block.recipe)["learning_rate"] == 1e-3


def test_switch_without_a_sequence_only_warns() -> None:
    resolved = resolve({"switch": {"at": 0.2}})
    assert not resolved.problems
    assert [warning.message for warning in resolved.warnings] == [
        "space.switch: has no effect, since no strategy is a sequence such as head>lora"
    ]


def test_study_with_a_teacher_has_its_hyperparameters_in_every_block() -> None:
    built = resolve_space(
        {},
        strategies=["head", "lora"],
        catalogue=CATALOGUE,
        parameters=SIZE,
        distill={"teacher": "demo/3", "revision": None, "temperature": {"low": 1, "high": 4}, "weight": 0.5},
    ).space
    for block in built.strategies:
        assert block.domains["distill.temperature"] == Range(low=1.0, high=4.0)
        assert block.recipe["distill.temperature"] == 2.0
        assert built.absolute(block.strategy, block.recipe)["distill.weight"] == 0.5
    assert "distill.weight" not in space({}).block("lora").domains


def test_relative_learning_rate_follows_the_optimizer() -> None:
    built = space({"optimizer": ["adamw", "sgd"], "lora": {"optimizer": "lion"}})
    prior = built.block("head").prior
    for optimizer in ("adamw", "sgd"):
        absolute = built.absolute("head", {**built.block("head").recipe, "optimizer": optimizer})
        assert absolute["learning_rate"] == pytest.approx(prior * OPTIMIZER_RATES[optimizer])
    lora = built.block("lora")
    assert built.absolute("lora", lora.recipe)["learning_rate"] == pytest.approx(lora.prior * OPTIMIZER_RATES["lion"])
    assert lora.prior == space({}).block("lora").prior


def test_absolute_learning_rate_is_left_alone_but_the_recipe_knows_its_optimizer() -> None:
    raw = {"optimizer": "sgd", "learning_rate": {"low": 1e-6, "high": 10.0, "log": True}}
    built = space(raw)
    block = built.block("lora")
    assert block.domains["learning_rate"] == Range(low=1e-6, high=10.0, log=True)
    assert block.recipe["learning_rate"] == pytest.approx(block.prior * OPTIMIZER_RATES["sgd"])
    assert built.absolute("lora", {**block.recipe, "learning_rate": 0.25})["learning_rate"] == 0.25


def test_only_the_parts_and_the_whole_of_what_is_composed_are_tried_first() -> None:
    study = {
        "name": "demo",
        "task": "text-classification",
        "model": "owner/model",
        "data": {"train": "train.csv"},
        "objective": {"metric": "loss"},
        "strategies": ["head", {"compose": ["lora", "bitfit", "norm"]}],
    }
    spec = validate_study(study, catalogue=CATALOGUE)
    built = build_space(spec, catalogue=CATALOGUE, parameters=SIZE)
    assert {block.strategy: block.is_tried_first for block in built.strategies} == {
        "head": True,
        "lora": True,
        "bitfit": True,
        "norm": True,
        "lora+bitfit": False,
        "lora+norm": False,
        "bitfit+norm": False,
        "lora+bitfit+norm": True,
    }
    assert SearchSpace.from_json(built.to_json()) == built


def test_space_survives_json() -> None:
    built = space({"dropout": [0.0, 0.1], "lora": {"r": {"low": 4, "high": 16, "step": 4}}}, "lora", "head>lora")
    assert SearchSpace.from_json(built.to_json()) == built


def test_space_of_an_older_database_tries_every_recipe() -> None:
    stored = space({}).to_json()["strategies"]
    for block in stored:
        del block["is_tried_first"]
    assert SearchSpace.from_json(stored) == space({})


def test_every_value_of_a_recipe_is_absolute() -> None:
    built = space({}, *CATALOGUE.strategies)
    for block in built.strategies:
        absolute = built.absolute(block.strategy, block.recipe)
        assert absolute["learning_rate"] == pytest.approx(block.prior)
        assert RELATIVE_LEARNING_RATE not in absolute


def test_build_space_of_a_study_and_its_refusal() -> None:
    study = {
        "name": "demo",
        "task": "text-classification",
        "model": "owner/model",
        "data": {"train": "train.csv"},
        "objective": {"metric": "loss"},
        "strategies": ["head"],
        "space": {"dropout": 0.1},
    }
    spec = validate_study(study, catalogue=CATALOGUE)
    assert build_space(spec, catalogue=CATALOGUE, parameters=SIZE).block("head").domains["dropout"] == Fixed(value=0.1)
    wrong = spec.model_copy(update={"space": {"dropout": 3}})
    with pytest.raises(StudyFileError, match=r"space.dropout: 3 is outside the allowed 0 to 0.9"):
        build_space(wrong, catalogue=CATALOGUE, parameters=SIZE)


def test_own_names_start_with_the_strategy() -> None:
    for name, info in CATALOGUE.strategies.items():
        assert all(knob.name.startswith(f"{name}.") for knob in info.hyperparameters)


def test_defaults_and_domains_of_the_catalogue_lie_in_what_is_allowed() -> None:
    own = [knob for info in CATALOGUE.strategies.values() for knob in info.hyperparameters]
    for knob in (*SHARED_HYPERPARAMETERS, *own):
        if knob.allowed is not None:
            assert knob.allowed.clip(knob.default) == knob.default, knob.name
        if isinstance(knob.domain, Range) and isinstance(knob.allowed, Range):
            assert knob.allowed.low <= knob.domain.low <= knob.domain.high <= knob.allowed.high, knob.name
