"""The training rows in folds: what each run learns from and is judged by."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.samples import Recorder, plan, run, study
from tests.training.test_data import counts
from tuner.errors import DataError
from tuner.study.folds import fold_of, fresh_seed
from tuner.study.plan import TrialPlan
from tuner.study.spec import StudySpec
from tuner.training.cache import WarmCache
from tuner.training.data import StudyData, fold_places, load_data, load_labels
from tuner.training.model import load_tokenizer
from tuner.training.run import run_trial

FOLDS: dict[str, Any] = {"data": {"validation": {"folds": 5}}}


def load(spec: StudySpec, *, fold: int, cache: WarmCache | None = None) -> StudyData:
    cache = cache or WarmCache()
    return load_data(
        spec,
        tokenizer=load_tokenizer(spec, cache=cache),
        labels=load_labels(spec, cache=cache),
        balance="none",
        with_test=False,
        cache=cache,
        fold=fold,
    )


@settings(deadline=None, max_examples=60)
@given(
    targets=st.lists(st.integers(0, 4), min_size=3, max_size=80),
    folds=st.integers(3, 20),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_row_has_one_fold_and_folds_are_alike(targets: list[int], folds: int, seed: int) -> None:
    places = fold_places(np.array(targets), folds=folds, seed=seed)
    assert set(places.tolist()) <= set(range(1, folds + 1))
    sizes = np.bincount(places, minlength=folds + 1)[1:]
    assert sizes.sum() == len(targets)
    assert sizes.max() - sizes.min() <= 1
    for label in set(targets):
        share = np.bincount(places[np.array(targets) == label], minlength=folds + 1)[1:]
        assert share.max() - share.min() <= 1
    assert places.tolist() == fold_places(np.array(targets), folds=folds, seed=seed).tolist()


def test_the_fold_of_a_row_is_drawn() -> None:
    targets = np.zeros(40, dtype=int)
    first, second = (fold_places(targets, folds=5, seed=seed).tolist() for seed in (0, 1))
    assert first != second
    assert first != sorted(first)


def test_folds_are_disjoint_cover_all_rows_and_keep_the_shares(tmp_path: Path) -> None:
    spec, cache = study(tmp_path, **FOLDS), WarmCache()
    parts = [load(spec, fold=fold, cache=cache) for fold in range(1, 6)]
    judged = [set(data.validation.chosen.tolist()) for data in parts]
    assert not any(one & other for one, other in itertools.combinations(judged, 2))
    assert set.union(*judged) == set(range(60))
    for data, rows in zip(parts, judged, strict=True):
        assert counts(data.validation) == [4, 4, 4]
        assert set(data.train.chosen.tolist()) == set(range(60)) - rows
        assert data.held_back is None
    assert len({data.fingerprint() for data in parts}) == 5


def test_a_sample_of_the_training_rows_never_takes_what_judges(tmp_path: Path) -> None:
    spec = study(tmp_path, data={"validation": {"folds": 5}, "train_rows": 9})
    for fold in range(1, 6):
        data = load(spec, fold=fold)
        assert counts(data.train) == [3, 3, 3]
        assert not set(data.train.chosen.tolist()) & set(data.validation.chosen.tolist())


def test_more_folds_than_rows(tmp_path: Path) -> None:
    file = tmp_path / "few.csv"
    file.write_text("text,label\nthe cat,a\nthe fig,b\nthe saw,b\n")
    spec = study(tmp_path, data={"train": str(file), "validation": {"folds": 4}})
    with pytest.raises(DataError, match=r"few\.csv: 3 rows are too few for 4 folds"):
        load(spec, fold=1)


def facts_of(plan: TrialPlan) -> dict[str, Any]:
    found: dict[str, Any] = {}
    run_trial(plan, report=Recorder(), started=found.update)
    return found


def test_the_search_has_fold_1_and_the_confirmation_every_other_one(tmp_path: Path) -> None:
    """By the fingerprint of the rows that a run really learnt from and was judged by."""
    spec = study(tmp_path, training={"epochs": 1}, **FOLDS)
    fold_with = {load(spec, fold=fold).fingerprint(): fold for fold in range(1, 6)}
    search = [facts_of(plan(spec, tmp_path / f"s{seed}", seed=seed)) for seed in (0, 500_009)]
    assert [fold_with[facts["data"]] for facts in search] == [1, 1]
    assert search[0]["rows"] == [48, 12]
    seeds = [fresh_seed(spec, index) for index in range(1, spec.confirm.seeds + 1)]
    confirmed = [
        facts_of(plan(spec, tmp_path / f"c{seed}", seed=seed, score_test=True, strategy="head")) for seed in seeds
    ]
    assert [fold_with[facts["data"]] for facts in confirmed] == [2, 3, 4, 5]
    assert [fold_of(spec, seed=seed) for seed in seeds] == [2, 3, 4, 5]


def test_features_of_a_frozen_backbone_are_those_of_the_fold(tmp_path: Path) -> None:
    """A warm runner that has had another fold gives the same curve as a cold one."""
    spec, cache = study(tmp_path, **FOLDS), WarmCache()
    seeds = [0, fresh_seed(spec, 1), fresh_seed(spec, 2)]
    curves = []
    for seed in seeds:
        warm, cold = Recorder(), Recorder()
        run(plan(spec, tmp_path / f"w{seed}", strategy="head", seed=seed), report=warm, cache=cache)
        run(plan(spec, tmp_path / f"c{seed}", strategy="head", seed=seed), report=cold)
        assert warm.curve == cold.curve
        curves.append(warm.curve)
    assert len({str(curve) for curve in curves}) == 3


def test_a_checkpoint_of_one_fold_is_none_of_another(tmp_path: Path) -> None:
    spec = study(tmp_path, **FOLDS)
    first, second = fresh_seed(spec, 1), fresh_seed(spec, 5)  # the same fold
    other = fresh_seed(spec, 2)
    run(plan(spec, tmp_path / "first", seed=first))
    for seed, epochs in ((first, 1), (second, 3), (other, 3)):  # a run that goes on reports its last epoch once more
        recorder = Recorder()
        run(plan(spec, tmp_path / f"from{seed}", seed=seed, resume_from=[tmp_path / "first"]), report=recorder)
        assert len(recorder.curve) == epochs


def test_a_run_of_so_many_epochs_is_the_beginning_of_the_whole_one(tmp_path: Path) -> None:
    """The learning rate falls as over all epochs, the last one counts, and no score of an epoch has a say."""
    spec = study(tmp_path, training={"epochs": 4, "patience": 1}, **FOLDS)
    whole_spec = spec.model_copy(update={"training": spec.training.model_copy(update={"patience": None})})
    whole, short = Recorder(), Recorder()
    seed = fresh_seed(spec, 1)
    run(plan(whole_spec, tmp_path / "whole", seed=seed), report=whole)
    result = run(replace(plan(spec, tmp_path / "short", seed=seed, score_test=True), epochs=3), report=short)
    assert short.curve == whole.curve[:3]
    assert (result.ended_by, result.epochs, result.best_epoch) == ("epochs", 3, 3)
    assert result.metrics == short.curve[-1][1]
    assert result.test is not None
    assert result.held_back is None
