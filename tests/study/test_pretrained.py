from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.study.samples import CATALOGUE, CONFIG, changed, write_model
from tuner.errors import DataError
from tuner.study.file import parse_study
from tuner.study.pretrained import ModelFacts, count_parameters, read_model
from tuner.study.ranges import Findings
from tuner.study.spec import StudySpec


def study(model: str, base: Path) -> StudySpec:
    return parse_study(changed("owner/model", model), source="s", base=base, catalogue=CATALOGUE)


def read(folder: Path) -> tuple[ModelFacts | None, list[str]]:
    findings = Findings()
    facts = read_model(study(str(folder), folder), findings=findings)
    return facts, [problem.message for problem in findings.problems]


def test_facts_of_a_folder(tmp_path: Path) -> None:
    facts, problems = read(write_model(tmp_path / "model"))
    assert not problems
    assert facts == ModelFacts(
        source=str(tmp_path / "model"),
        parameters=20,
        architecture="BertModel",
        model_type="bert",
        max_tokens=512,
        folder=str(tmp_path / "model"),
    )


def test_weights_in_several_files(tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    save_file({"c": np.zeros((5, 2), np.float32)}, folder / "model-00002-of-00002.safetensors")
    facts, problems = read(folder)
    assert not problems
    assert facts is not None
    assert facts.parameters == 30


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({"model_type": "roberta", "max_position_embeddings": 514}, 512),
        ({"model_type": "bert", "max_position_embeddings": -1}, None),
        ({"model_type": "gpt2", "n_positions": 1024}, 1024),
        ({"model_type": "t5", "n_positions": 512}, None),
        ({"model_type": 3, "architectures": "x"}, None),
        ({}, None),
    ],
)
def test_configurations_that_say_little(config: dict[str, Any], tokens: int | None, tmp_path: Path) -> None:
    facts, problems = read(write_model(tmp_path, config=config))
    assert not problems
    assert facts is not None
    assert facts.max_tokens == tokens
    assert not facts.architecture


def test_package_resource() -> None:
    findings = Findings()
    facts = read_model(study("package://nothing-of-this-name/model", Path("/")), findings=findings)
    assert facts is None
    assert "is not installed; check the name, and install it if you trust it" in findings.problems[0].message


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    assert read(tmp_path / "model")[1] == [f"model: {tmp_path}/model cannot be read - no such folder on this machine"]


def test_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("")
    assert read(tmp_path / "model")[1] == [f"model: {tmp_path}/model cannot be read - it is a file; name its folder"]


@pytest.mark.parametrize(
    ("remove", "add", "message"),
    [
        ("config.json", "", "has no config.json; is it the folder that save_pretrained wrote?"),
        ("tokenizer.json", "", "has no tokenizer; save it beside the model with save_pretrained"),
        ("model.safetensors", "", "has no weights (model.safetensors)"),
        (
            "model.safetensors",
            "pytorch_model.bin",
            "has no safetensors file (pytorch_model.bin is a pickle, which can run code); convert it first with save_pretrained",
        ),
        (
            "model.safetensors",
            "adapter_model.safetensors",
            "holds an adapter only; name the model that it belongs to, or merge it first",
        ),
    ],
)
def test_folder_with_a_gap(remove: str, add: str, message: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / remove).unlink()
    if add:
        (folder / add).write_bytes(b"")
    assert read(folder)[1] == [f"model: {folder} {message}"]


@pytest.mark.parametrize("text", ["{", "[1]", "\udcff", "[" * 100_000])
def test_configuration_that_is_no_object(text: str, tmp_path: Path) -> None:
    folder = write_model(tmp_path)
    (folder / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    facts, problems = read(folder)
    assert facts is None
    assert len(problems) == 1
    assert "config.json" in problems[0]


def test_model_with_its_own_code_is_refused(tmp_path: Path) -> None:
    folder = write_model(tmp_path, config={"model_type": "homemade", "auto_map": {"AutoModel": "modeling.Homemade"}})
    assert read(folder)[1] == [
        f"model: {folder} wants to run its own code; refused. Choose a model that transformers has built in"
    ]


def test_own_code_of_a_built_in_family_is_only_ignored(tmp_path: Path) -> None:
    findings = Findings()
    folder = write_model(tmp_path, config=CONFIG | {"auto_map": {"AutoModel": "x.Y"}})
    assert read_model(study(str(folder), folder), findings=findings) is not None
    assert not findings.problems
    assert "brings its own code, which is never run; the built-in bert is used" in findings.warnings[0].message


@pytest.mark.parametrize("keep", [0, 4, 8, 20, -1])
def test_weights_that_are_cut_off(keep: int, tmp_path: Path) -> None:
    file = write_model(tmp_path) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"not a (whole )?safetensors file"):
        count_parameters(file)
    assert len(read(tmp_path)[1]) == 1


@pytest.mark.parametrize(
    "header", [b"[]", b"{", b'{"a": 1}', b'{"a": {"shape": "x", "data_offsets": [0, 0]}}', b'{"a": {"shape": [2]}}']
)
def test_weights_with_a_strange_header(header: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(DataError, match="not a safetensors file"):
        count_parameters(file)


def test_metadata_is_no_weight(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"a": np.zeros(3, np.float32), "scalar": np.zeros((), np.float32)}, file, metadata={"format": "pt"})
    assert count_parameters(file) == 4


def test_offline_and_not_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests run offline (HF_HUB_OFFLINE)."""
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    findings = Findings()
    assert read_model(study("owner/model-of-nobody", tmp_path), findings=findings) is None
    assert [problem.message for problem in findings.problems] == [
        'model: "owner/model-of-nobody" is not on this machine, and HF_HUB_OFFLINE forbids to fetch it; unset it or name a folder'
    ]


def test_header_is_read_without_the_weights(tmp_path: Path) -> None:
    """A sparse file of 40 GB: reading its weights would take minutes."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [10**5, 10**5], "data_offsets": [0, 4 * 10**10]}}).encode()
    file = tmp_path / "model.safetensors"
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        stream.truncate(8 + len(header) + 4 * 10**10)
    assert count_parameters(file) == 10**10
