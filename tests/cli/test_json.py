"""The real output of every reading command against the schemas of docs/json.md."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.cli.command import ROOT
from tests.cli.conftest import Run
from tests.cli.little import STUDY
from tests.cli.rehearsal import claim, open_study
from tuner.store import workers
from tuner.store.database import Database

BLOCK = re.compile(r"^```json schema=(?P<name>\S+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
BLOCKS = {
    match["name"]: json.loads(match["text"])
    for match in BLOCK.finditer((ROOT / "docs" / "json.md").read_text(encoding="utf-8"))
}


def closed(schema: Any) -> Any:
    """The schema with every object closed, so that an undocumented field is found."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    copy = {key: closed(value) for key, value in schema.items()}
    if "properties" in schema and isinstance(schema.get("type"), str | list):
        copy.setdefault("additionalProperties", False)
    return copy


def validate(document: Any, name: str) -> None:
    """Hold a document to a schema of the documentation."""
    schema = closed({**BLOCKS[name], "$defs": BLOCKS["definitions"]})
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(document)


def test_show_has_what_the_documentation_says(run: Run, finished: str) -> None:
    document = json.loads(run("study", "show", "played", "--json", "--storage", finished).stdout)
    validate(document, "study-show")
    assert document["trials"]["errored"] == 1
    assert document["trials"]["infeasible"] == 1
    assert sum(document["trials"].values()) == 8
    assert document["best"]["values"].keys() == {"macro_f1"}
    assert document["best"]["basis"] == "confirmed"
    assert document["best"]["params"]["learning_rate"] < 1.0
    assert {finalist["is_baseline"] for finalist in document["finalists"]} == {True, False}
    assert document["budget"]["asked"]["trials"] == 8
    assert document["budget"]["used"]["trials"] == 8


def test_show_of_a_study_without_trials(run: Run, sqlite_url: str) -> None:
    open_study(sqlite_url)
    document = json.loads(run("study", "show", "played", "--json", "--storage", sqlite_url).stdout)
    validate(document, "study-show")
    assert document["best"] is None


def test_trials_have_what_the_documentation_says(run: Run, finished: str) -> None:
    claim_url = finished
    open_study(claim_url, name="running")
    claim(claim_url, name="running")
    document = json.loads(run("study", "trials", "played", "--json", "--storage", finished).stdout)
    validate(document, "study-trials")
    complete, failed = document["trials"][0], document["trials"][4]
    assert [record["epoch"] for record in complete["epochs"]] == [1, 2, 3]
    assert complete["epochs"][0]["metrics"]["macro_f1"] > 0.5
    assert complete["trainable_params"] == 1026
    assert failed["state"] == "errored"
    assert failed["values"] == {}
    assert failed["attempts"][0]["log_tail"] == "the last words"
    running = json.loads(run("study", "trials", "running", "--json", "--storage", finished).stdout)
    validate(running, "study-trials")
    assert running["trials"][0]["state"] == "running"


def test_best_and_list(run: Run, finished: str) -> None:
    best = json.loads(run("study", "best", "played", "--json", "--storage", finished).stdout)
    validate(best, "study-best")
    listed = json.loads(run("study", "list", "--json", "--storage", finished).stdout)
    validate(listed, "study-list")
    assert [study["name"] for study in listed["studies"]] == ["played"]
    assert best["best"]["number"] in range(9)


def test_report(run: Run, finished: str, tmp_path: Path) -> None:
    document = json.loads(run("study", "report", "played", "--json", "--storage", finished).stdout)
    validate(document, "study-report")
    assert document["path"] == str(tmp_path / "played.html")
    assert document["headline"] in (tmp_path / "played.html").read_text(encoding="utf-8")


def test_best_agrees_with_show(run: Run, finished: str) -> None:
    best = json.loads(run("study", "best", "played", "--json", "--storage", finished).stdout)["best"]
    assert best == json.loads(run("study", "show", "played", "--json", "--storage", finished).stdout)["best"]


def test_watch_is_one_document_a_line(run: Run, finished: str) -> None:
    text = run("study", "watch", "played", "--until-done", "--json", "--storage", finished).stdout
    assert len(text.splitlines()) == 1
    validate(json.loads(text), "study-show")


def test_workers(run: Run, finished: str) -> None:
    with Database.open(finished) as database:
        identity = workers.Identity.of_this_process("w-1")
        workers.register(database, identity, devices=["cpu/0"], version="0", lease=90.0)
    document = json.loads(run("worker", "list", "--json", "--storage", finished).stdout)
    validate(document, "worker-list")
    assert document["workers"][0]["is_alive"] is True


def test_database(run: Run, finished: str) -> None:
    document = json.loads(run("db", "check", "--json", "--storage", finished).stdout)
    validate(document, "db-check")
    assert document["is_current"] is True


def test_doctor(run: Run, finished: str) -> None:
    document = json.loads(run("doctor", "--skip-torch", "--json", "--storage", finished).stdout)
    validate(document, "doctor")
    assert {check["name"] for check in document["checks"]} >= {"python", "database", "schema", "clock", "disk"}


def test_create_and_check(run: Run, study_file: Path, sqlite_url: str) -> None:
    created = json.loads(run("study", "create", study_file, "--json", "--storage", sqlite_url).stdout)
    validate(created, "study-create")
    assert created["created"] is True
    again = json.loads(run("study", "create", study_file, "--json", "--storage", sqlite_url).stdout)
    assert again == {**created, "created": False}
    checked = json.loads(run("study", "check", study_file, "--json").stdout)
    validate(checked, "study-check")
    assert checked["ok"] is True
    study_file.write_text(STUDY.replace("head", "haed").replace("rows.csv", "gone.csv"), encoding="utf-8")
    result = run("study", "check", study_file, "--json")
    assert result.exit_code == 78
    broken = json.loads(result.stdout)
    validate(broken, "study-check")
    assert [problem["line"] for problem in broken["problems"]] == [6]


@pytest.mark.parametrize("name", sorted(set(BLOCKS) - {"definitions"}))
def test_every_schema_refuses_an_empty_document(name: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate({}, name)
