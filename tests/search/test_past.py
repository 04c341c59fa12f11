"""What a new study learns from past ones, on real databases."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.store.toy import LEASE, holder, run_out, toy_result, toy_space, toy_spec, toy_study
from tuner.search import past
from tuner.search.confirm import find_baseline
from tuner.search.driver import StudyDriver
from tuner.store import studies
from tuner.store.database import Database
from tuner.store.leases import Lease
from tuner.store.past import PastStudy, PastTrial
from tuner.store.queries import load_snapshot
from tuner.store.records import Outcome, StudyRecord, StudyState
from tuner.study.domains import Choice, Value
from tuner.study.space import LearntRecipe, ModelKind, SearchSpace

QUIET = {"learn_from": "none", "pruner": "none", "sampler": "random"}
SMALL, LARGE = ModelKind(family="bert", parameters=4_000_000), ModelKind(family="bert", parameters=110_000_000)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with Database.open(f"sqlite:///{tmp_path / 'tuner.db'}", create=True) as database:
        yield database


def of(space: SearchSpace, model: ModelKind = SMALL) -> SearchSpace:
    return replace(space, model=model)


def new_study(db: Database, name: str, *, space: SearchSpace | None = None, **changes: Any) -> StudyRecord:
    """A study as `tuner study create` stores it."""
    spec = toy_spec(name, **changes)
    learnt = past.learn(db, spec=spec, space=space or of(toy_space()))
    return studies.create_study(db, spec=spec, space=learnt, maximize=True)


def end(driver: StudyDriver, lease: Lease, value: float) -> None:
    epochs = driver.study.spec.training.epochs
    for epoch in range(1, epochs + 1):
        driver.report(lease, epoch=epoch, metrics={"f1": value}, seconds=float(epoch), extend=LEASE)
    driver.finish(lease, result=toy_result(value, epochs=epochs))


def finished(db: Database, name: str, values: Mapping[int, float], **changes: Any) -> StudyDriver:
    """A study whose trials end with these values, those without one as infeasible."""
    usual: dict[str, Any] = {"budget": {"trials": 8}, "search": QUIET, "training": {"epochs": 1}}
    new_study(db, name, **usual | changes)
    driver = StudyDriver(db, name=name)
    while (lease := driver.claim(holder())) is not None:
        if lease.number in values:
            end(driver, lease, values[lease.number])
        else:
            driver.fail(lease, outcome=Outcome.INFEASIBLE, reason="out of memory", seconds=1.0, log_tail="")
    driver.advance()
    return driver


def sources(study: StudyRecord) -> list[str]:
    return [recipe.source for recipe in study.space.learnt]


def params(db: Database, name: str, number: int) -> dict[str, Value]:
    return dict(load_snapshot(db, name).trial(number).params)


ROUGH = {number: 0.3 + 0.01 * number for number in range(8)}


def test_a_second_study_starts_with_what_was_confirmed_in_the_first(storage_url: str) -> None:
    with Database.open(storage_url, create=True) as db:
        new_study(db, "first", budget={"trials": 10}, confirm={"finalists": 2, "seeds": 2})
        run_out(StudyDriver(db, name="first"))
        first = load_snapshot(db, "first")
        assert first.study.state is StudyState.FINISHED
        scores = {finalist.number: sum(run.metrics["f1"] for run in finalist.runs) for finalist in first.finalists}
        winner = first.trial(max(scores, key=lambda number: scores[number]))

        study = new_study(db, "second")
        assert sources(study)[0] == f"first/{winner.number}"
        driver = StudyDriver(db, name="second")
        leases = [lease for _ in range(6) if (lease := driver.claim(holder())) is not None]
        assert (leases[0].learnt_from, leases[0].is_tried_first) == (f"first/{winner.number}", True)
        assert leases[0].strategy == winner.strategy
        assert leases[0].params == pytest.approx(dict(winner.params))
        # The strategies' own recipes stay in, and the baseline is theirs.
        own = [lease for lease in leases if lease.is_recipe]
        assert {lease.strategy for lease in own} == {"lora", "full"}
        trials = load_snapshot(db, "second").trials
        assert [trial.learnt_from for trial in trials[: len(study.space.learnt)]] == sources(study)
        end(driver, own[[lease.strategy for lease in own].index("full")], 0.5)
        baseline = find_baseline(load_snapshot(db, "second").trials, study=study)
        assert baseline is not None and baseline.is_recipe and baseline.strategy == "full"


def test_what_was_learnt_stays_as_it_was(storage_url: str) -> None:
    with Database.open(storage_url, create=True) as db:
        finished(db, "first", ROUGH)
        second = new_study(db, "second")
        finished(db, "third", ROUGH | {5: 0.99})
        assert new_study(db, "second").space == second.space == StudyDriver(db, name="second").study.space
        assert "third/5" in sources(new_study(db, "fourth"))


def test_a_confirmed_score_is_believed_more_than_a_lucky_one(db: Database) -> None:
    new_study(db, "first", budget={"trials": 5}, confirm={"finalists": 2, "seeds": 1}, search={"pruner": "none"})
    driver = StudyDriver(db, name="first")
    claimed: dict[str, float] = {}
    while driver.advance().state.is_open:
        lease = driver.claim(holder())
        assert lease is not None
        if lease.purpose == "search":
            value = {1: 0.95, 3: 0.9}.get(lease.number, 0.5)
        else:
            value = {1: 0.6, 3: 0.88}.get(lease.number, 0.5)  # fresh seeds say what the lucky one is worth
            claimed[str(lease.number)] = value
        end(driver, lease, value)
    assert claimed["1"] < claimed["3"]
    assert sources(new_study(db, "second", budget={"trials": 12}))[0] == "first/3"


def test_only_complete_trials_are_learnt(db: Database) -> None:
    finished(db, "first", {0: 0.4, 2: 0.6, 3: 0.5})
    found = sources(new_study(db, "second", budget={"trials": 30}))
    assert found
    assert {int(source.partition("/")[2]) for source in found} <= {0, 2, 3}
    assert sources(new_study(db, "third", search={"learn_from": ["first"]}))


def test_a_default_recipe_that_won_is_tried_first_and_stays_the_default_recipe(db: Database) -> None:
    finished(db, "first", ROUGH | {1: 0.95})  # the recipe of full
    study = new_study(db, "second")
    driver = StudyDriver(db, name="second")
    leases = [lease for _ in range(4) if (lease := driver.claim(holder())) is not None]
    assert (leases[0].strategy, leases[0].is_recipe, leases[0].learnt_from) == ("full", True, "first/1")
    assert [recipe.strategy for recipe in study.space.recipes if recipe.is_default] == ["full", "lora"]
    assert sum(lease.is_recipe for lease in leases) == 2


def taught(
    name: str,
    values: Sequence[tuple[str, float, float | None]],
    *,
    confirmed: Mapping[int, float] | None = None,
    space: SearchSpace | None = None,
    **changes: Any,
) -> PastStudy:
    """A past study with trials of a strategy, decades from its learning rate, and a value or None for one that did not complete."""
    known = space or of(toy_space())
    trials = []
    for number, (strategy, decades, value) in enumerate(values):
        proposal = {**known.block(strategy).recipe, "learning_rate_decades": decades}
        trials.append(
            PastTrial(
                number=number,
                strategy=strategy,
                params=known.absolute(strategy, proposal),
                outcome=Outcome.COMPLETE if value is not None else Outcome.PRUNED,
                value=value,
                confirmed=(confirmed or {}).get(number),
            )
        )
    return PastStudy(name=name, spec=toy_spec(name, **changes), space=known, maximize=True, trials=tuple(trials))


PLAIN = [("lora", -0.5, 0.4), ("full", 0.5, 0.3), ("lora", 0.5, 0.5), ("full", 1.0, 0.2)]


def learnt(
    studies: Sequence[PastStudy],
    *,
    space: SearchSpace | None = None,
    size: int = 8,
    holds_back: bool = True,
    **changes: Any,
) -> list[LearntRecipe]:
    spec = toy_spec("new", **changes)
    return past.learn_from(studies, spec=spec, space=space or of(toy_space()), size=size, holds_back=holds_back)


def names(recipes: Sequence[LearntRecipe]) -> list[str]:
    return [recipe.source for recipe in recipes]


def test_the_best_of_few_studies_are_taken_as_they_are() -> None:
    first = taught("first", [*PLAIN, ("lora", 1.2, 0.9)])
    second = taught("second", [*PLAIN, ("full", -1.2, 0.8), ("lora", 0.0, 0.79)])
    # The winner of each, then the best of another strategy where it is nearer to the best than to the median.
    assert names(learnt([first, second])) == ["first/4", "second/4", "second/5"]
    assert names(learnt([first, second], size=1)) == ["first/4"]


def test_confirmed_winners_come_before_others() -> None:
    confirmed = taught("far", PLAIN, confirmed={2: 0.45}, data={"train": "other.csv"})
    near = taught("near", [*PLAIN, ("full", -1.0, 0.9)])
    assert names(learnt([near, confirmed], search={"learn_from": ["near", "far"]}))[:2] == ["far/2", "near/4"]


def test_few_studies_of_other_data_teach_only_by_name() -> None:
    near = taught("near", PLAIN)
    others = [taught(name, PLAIN, data={"train": f"{name}.csv"}) for name in ("a", "b", "c")]
    assert learnt(others[:2]) == []
    assert {name.partition("/")[0] for name in names(learnt([near, *others[:1]]))} == {"near"}
    assert names(learnt(others[:1], search={"learn_from": ["a"]}))
    assert names(learnt(others))


def test_many_studies_are_covered() -> None:
    """Three want a low rate, one a high one: a recipe for each comes before a second one of the same kind."""
    low = [("lora", -1.0, 0.9), ("lora", -0.9, 0.88), ("lora", 0.1, 0.6), ("lora", 1.0, 0.5), ("full", 0.0, 0.4)]
    high = [("lora", -1.0, 0.4), ("lora", 0.1, 0.6), ("lora", 1.1, 0.9), ("full", 0.0, 0.4), ("full", 1.0, None)]
    studies = [taught("a", low), taught("b", low[1:] + low[:1]), taught("c", low), taught("d", high)]
    found = learnt(studies)
    assert found[0].values["learning_rate_decades"] == pytest.approx(-1.0)
    assert found[1].source == "d/2"
    values = [(recipe.strategy, *recipe.values.values()) for recipe in found]
    assert len(set(values)) == len(values)
    assert not {"d/4"} & set(names(found))


def test_a_default_that_won_in_the_past_is_found_again_in_another_size() -> None:
    smaller = of(toy_space())
    larger = SearchSpace(
        strategies=tuple(replace(block, prior=block.prior / 5) for block in smaller.strategies), model=LARGE
    )
    recipes = learnt([taught("first", [*PLAIN, ("full", 0.0, 0.9), ("lora", 1.0, 0.89)])], space=larger)
    assert names(recipes) == ["first/4", "first/5"]
    assert dict(recipes[0].values) == dict(larger.block("full").recipe)
    rate = larger.absolute("lora", recipes[1].values)["learning_rate"]
    assert rate == pytest.approx(10 * larger.block("lora").prior)


def test_what_this_study_does_not_have_is_dropped_or_clipped() -> None:
    full = toy_space().block("full")
    narrow = replace(
        full,
        domains={**full.domains, "batch_size": Choice(options=(4,))},
        recipe={**full.recipe, "batch_size": 4},
    )
    found = learnt([taught("first", PLAIN)], space=of(SearchSpace(strategies=(narrow,))))
    # The best trials of the past study were of LoRA, which does not compete here: the best of what is left is still no winner.
    assert [(recipe.source, recipe.values["batch_size"], recipe.clipped) for recipe in found] == [
        ("first/1", 4, ("batch_size",))
    ]


def test_the_same_data_and_the_nearer_model_count_more() -> None:
    far = taught("far", PLAIN, space=of(toy_space(), ModelKind(family="roberta", parameters=400_000_000)))
    other = taught("other", PLAIN[::-1], data={"train": "other.csv"})
    near = taught("near", PLAIN[1:])
    assert [name.partition("/")[0] for name in names(learnt([far, other, near], size=1))] == ["near"]
    assert names(learnt([far, near]))[:1] == ["near/1"]
    assert names(learnt([far, other], search={"learn_from": ["far", "other"]}))[:1] == ["other/1"]


def test_whose_training_rows_are_this_ones_test_rows_is_not_learnt_from() -> None:
    data = {"train": "new.csv", "test": "train.csv"}
    assert learnt([taught("first", PLAIN)], data=data) == []
    assert learnt([taught("first", PLAIN)], data=data, search={"learn_from": ["first"]})


def test_whom_this_ones_test_rows_judged_is_not_learnt_from() -> None:
    data = {"train": "train.csv", "test": "judge.csv"}
    chosen_by_test = taught("first", PLAIN, data={"train": "train.csv", "validation": "judge.csv"})
    assert learnt([chosen_by_test], data=data) == []
    assert learnt([chosen_by_test], data=data, search={"learn_from": ["first"]})
    assert learnt([taught("first", PLAIN, data={"train": "train.csv", "validation": "other.csv"})], data=data)


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_file_is_known_under_another_name(link: Callable[[Path, Path], None], tmp_path: Path) -> None:
    train, test, linked = (tmp_path / f"{name}.csv" for name in ("train", "test", "linked"))
    test.write_text("text,label\n")
    link(test, linked)
    ours = {"train": str(train), "test": str(test)}
    for theirs in ({"train": str(linked)}, {"train": str(train), "validation": str(linked)}):
        assert learnt([taught(name, PLAIN, data=theirs) for name in ("a", "b", "c")], data=ours) == []
    train.write_text(test.read_text())  # a copy is another file
    assert learnt([taught("a", PLAIN, data={"train": str(train)})], data=ours)


@pytest.mark.parametrize(
    "theirs",
    [
        {"confirm": {"finalists": 0}},
        {"confirm": {"finalists": 2, "held_back": 0.2}},
        {"training": {"seed": 7}},
        {"data": {"train": "train.csv", "validation": 0.3}},
        {"data": {"train": "train.csv", "validation": {"folds": 3}}},
    ],
)
def test_whom_rows_judged_that_are_held_back_here_is_not_learnt_from(theirs: dict[str, Any]) -> None:
    ours: dict[str, Any] = {"data": {"train": "train.csv"}, "confirm": {"finalists": 2}}
    other = taught("first", PLAIN, **ours | theirs)
    assert learnt([other], **ours) == []
    assert learnt([other], search={"learn_from": ["first"]}, **ours), "by name it teaches"
    assert learnt([other], holds_back=False, **ours), "no row is held back from it"
    assert learnt([taught("first", PLAIN, **ours)], **ours), "the same rows were held back there"
    assert learnt([other], **ours | {"confirm": {"finalists": 0}}), "nothing is confirmed"


@pytest.mark.parametrize("differs", [{"label": "angry"}, {"text": "subject"}])
def test_another_column_of_the_same_file_is_other_data(differs: dict[str, str]) -> None:
    data = {"train": "train.csv", "label": "topic"}
    other, same = taught("other", PLAIN[::-1], data=data | differs), taught("same", PLAIN, data=data)
    assert learnt([other], data=data) == []
    assert names(learnt([other, same], data=data))[:1] == ["same/2"]
    named = learnt([other, same], data=data, search={"learn_from": ["other"]})
    assert named, "by name it teaches"
    assert names(
        learnt(
            [taught("a", PLAIN, data=data | differs), taught("b", PLAIN, data=data | differs), same], data=data, size=1
        )
    ) == ["same/2"]


def test_studies_of_another_task_and_of_too_few_trials_teach_nothing() -> None:
    assert learnt([taught("images", PLAIN, task="image-classification"), taught("short", PLAIN[:2])]) == []
    assert names(learnt([taught("short", PLAIN[:2])], search={"learn_from": ["short"]}))[0] == "short/0"


@pytest.mark.parametrize(
    ("budget", "room"),
    [
        ({"trials": 30}, 8),
        ({"trials": 6}, 2),
        ({"trials": 3}, 1),
        ({"trials": 2}, 0),
        ({"epochs": 12}, 1),  # 4 trials of 3 epochs
        ({"gpu_hours": 1.0}, 8),
    ],
)
def test_recipes_leave_room_for_the_own_ones_and_for_the_search(budget: dict[str, float], room: int) -> None:
    assert past.room_for_recipes(toy_spec(budget=budget), own=2) == room


def test_named_studies_must_be_there_and_have_something_to_teach(db: Database) -> None:
    finished(db, "tickets", ROUGH)
    finished(db, "images", ROUGH, task="image-classification")
    toy_study(db, "empty")
    spec = toy_spec("new", search={"learn_from": ["tickets", "tikets", "new", "images", "empty"]})
    assert [problem.message for problem in past.name_problems(db, spec=spec)] == [
        'search.learn_from: no study "tikets" in this database; did you mean "tickets"?',
        "search.learn_from: a study cannot learn from itself",
        'search.learn_from: study "images" is of another task, image-classification',
        'search.learn_from: study "empty" has no complete trial to learn from',
    ]
    assert past.name_problems(db, spec=toy_spec("new", search={"learn_from": "tickets"})) == []
    (problem,) = past.name_problems(db, spec=toy_spec("new", search={"learn_from": "non"}))
    assert problem.message == 'search.learn_from: no study "non" in this database; did you mean "none"?'


def test_where_there_is_no_database_nothing_can_be_learnt_by_name(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'none.db'}"
    spec = toy_spec("new", search={"learn_from": ["tickets"]})
    assert len(past.find_unknown(url, spec=spec)) == 1
    assert not (tmp_path / "none.db").exists()


def test_a_space_keeps_what_was_learnt() -> None:
    learnt = LearntRecipe(strategy="lora", values=toy_space().block("lora").recipe, source="a/3", clipped=("lora.r",))
    space = replace(of(toy_space()), learnt=(learnt,))
    assert SearchSpace.from_json(space.to_json()) == space
