"""Every study file of the project can be read, and matches the schema that editors are given."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from tests.study.samples import CATALOGUE
from tuner.study.build import resolve_space
from tuner.study.check import check_study
from tuner.study.document import read_document
from tuner.study.file import load_study_file
from tuner.study.schema import study_schema

FOLDER = Path(__file__).parents[1] / "studies"
FILES = sorted(FOLDER.rglob("*.y*ml"))


def test_there_are_study_files() -> None:
    assert FOLDER / "quickstart.yaml" in FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_study_loads_and_its_space_has_nothing_odd(file: Path) -> None:
    spec = load_study_file(file, catalogue=CATALOGUE)
    resolved = resolve_space(spec.space, strategies=spec.strategy_names, catalogue=CATALOGUE, parameters=1e8)
    assert not resolved.problems
    assert not resolved.warnings


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_study_matches_the_schema(file: Path) -> None:
    data = read_document(file.read_text(encoding="utf-8"), source=file.name).data
    assert not list(jsonschema.Draft202012Validator(study_schema(CATALOGUE)).iter_errors(data))


def test_plain_yaml_readers_see_the_same_names() -> None:
    """People edit with tools that read YAML 1.1; nothing but numbers such as 1e-5 may look different to them."""
    for file in FILES:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
        ours = read_document(file.read_text(encoding="utf-8"), source=file.name).data
        assert {key: value for key, value in data.items() if key != "space"} == {
            key: value for key, value in ours.items() if key != "space"
        }


def test_quickstart_passes_the_check_on_its_real_model_and_data() -> None:
    spec = load_study_file(FOLDER / "quickstart.yaml", catalogue=CATALOGUE)
    report = check_study(spec, catalogue=CATALOGUE)
    assert not report.problems
    assert report.model is not None
    assert report.model.model_type == "bert"
    assert 4_300_000 < report.model.parameters < 4_500_000
    assert report.data is not None
    assert len(report.data.classes) == 8
    assert (report.data.train_rows, report.data.test_rows) == (1200, 2189)
    assert report.forecast.trials is not None
    assert report.forecast.trials >= 24
    assert report.forecast.strategies == 4
    assert report.forecast.confirm_runs > 0
