"""What a search stops, apart from any database."""

from __future__ import annotations

import optuna
import pytest
from optuna.trial import TrialState

from tests.store.toy import toy_space
from tuner.search.judgement import Judgement
from tuner.store.optuna_rows import RUNGS
from tuner.study.domains import Value
from tuner.study.spec import SearchSpec

RECIPES = 2


def stops(epochs: int, values: list[float]) -> dict[int, int]:
    """Trials with constant scores report epoch by epoch, all of them each epoch; the epoch after which each was stopped."""
    study = optuna.create_study(study_name="toy", direction="maximize")
    pruner = {"name": "successive_halving", "options": {"reduction_factor": 2}}
    search = SearchSpec.model_validate({"pruner": pruner})
    judgement = Judgement(study, space=toy_space(), search=search, epochs=epochs)
    ids = [study._storage.create_new_trial(study._study_id) for _ in values]
    stopped: dict[int, int] = {}
    for epoch in range(1, epochs):
        for number, trial_id in enumerate(ids):
            if number not in stopped:
                study._storage.set_trial_intermediate_value(trial_id, epoch, values[number])
                if judgement.loses(trial_id, is_recipe=number < RECIPES):
                    stopped[number] = epoch
    return stopped


def test_a_recipe_is_not_stopped_after_its_first_epoch() -> None:
    stopped = stops(12, [0.9, 0.1, 0.1, 0.8])
    assert (stopped[1], stopped[2]) == (2, 1)  # as bad as each other, but trial 1 is a recipe


@pytest.mark.parametrize("epochs", [2, 4, 8])
def test_a_recipe_is_never_stopped_where_epochs_are_few(epochs: int) -> None:
    assert set(stops(epochs, [0.5, 0.1, 0.2, 0.8])) <= {2, 3}


@pytest.mark.parametrize(
    ("pruner", "options", "later"),
    [
        ("auto", {}, [2, 3]),  # rungs at 1, 2, 4 and 8 epochs
        ("patient", {}, [2, 3]),
        ("successive_halving", {"reduction_factor": 3, "min_early_stopping_rate": 1}, [0, 1, 2, 3]),
        ("hyperband", {"min_resource": 2, "max_resource": 3}, [1, 2, 3]),  # one bracket
        ("median", {}, []),
    ],
)
def test_rungs_after_an_epoch_are_known(pruner: str, options: dict[str, int], later: list[int]) -> None:
    study = optuna.create_study(study_name="toy", direction="maximize")
    search = SearchSpec.model_validate({"pruner": {"name": pruner, "options": options}})
    judgement = Judgement(study, space=toy_space(), search=search, epochs=9)
    trial_id = study._storage.create_new_trial(study._study_id)
    study._storage.set_trial_system_attr(trial_id, "other", 1)
    for rung in range(4):
        study._storage.set_trial_system_attr(trial_id, f"{RUNGS}{rung}", 0.5)
    assert judgement.rungs_after(trial_id, epoch=2) == [f"{RUNGS}{rung}" for rung in later]


def test_others_are_compared_with_the_recipes() -> None:
    assert stops(4, [0.8, 0.9, 0.1, 0.2]) == {2: 1, 3: 1}


@pytest.mark.parametrize("sampler", ["random", "auto", "tpe", "nsgaii", "qmc", "cmaes"])
def test_each_trial_is_drawn_anew_and_by_its_number_alone(sampler: str) -> None:
    """Also what a sampler with one sequence for the whole study has no place for: strategies, and the knobs of some of them."""

    def _draw() -> list[tuple[str, tuple[tuple[str, Value], ...]]]:
        study = optuna.create_study(study_name="toy", direction="maximize")
        found = []
        for number in range(16):
            trial_id = study._storage.create_new_trial(study._study_id)
            search = SearchSpec.model_validate({"sampler": sampler, "seed": 1})
            judgement = Judgement(study, space=toy_space(), search=search, epochs=3)  # another worker each time
            judgement.propose(trial_id, number=number)  # one that dies before it stores what it drew
            proposal = judgement.propose(trial_id, number=number)
            judgement.keep(trial_id, proposal)
            judgement.end(trial_id, number=number, state=TrialState.COMPLETE, value=0.5)
            study._storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [0.5])
            found.append((proposal.strategy, tuple(proposal.params.items())))
        return found

    drawn = _draw()
    assert len(set(drawn)) == len(drawn)
    assert {strategy for strategy, _ in drawn} == {"lora", "full"}
    assert _draw() == drawn
