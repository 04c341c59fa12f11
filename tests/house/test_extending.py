"""The guide to a strategy of one's own, done word for word in a copy of the project."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.source_tree import ROOT
from tests.tiny import write_model, write_rows

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # minutes, where the machine has other work

GUIDE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


def block(language: str, *, holding: str) -> str:
    """The guide's fenced block of a language that holds a text."""
    found = [text for text in re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL) if holding in text]
    assert len(found) == 1, (language, holding)
    return str(found[0])


def add_line(file: Path, line: str, *, above: str) -> None:
    """Write a line of the guide into a file, above the first line that begins so."""
    text = file.read_text(encoding="utf-8")
    assert line not in text
    changed = re.sub(f"^(?={re.escape(above)})", lambda _: line, text, count=1, flags=re.MULTILINE)
    assert changed != text
    file.write_text(changed, encoding="utf-8")


def run(command: str, *, project: Path, folder: Path, expected: int = 0) -> str:
    """A shell line with the copy in the place of the installed program; what it printed."""
    words = command.replace("tuner ", f"{sys.executable} -m tuner ", 1) if command.startswith("tuner ") else command
    words = words.replace("python -m pytest", f"{sys.executable} -m pytest -q -p no:cacheprovider", 1)
    done = subprocess.run(
        ["bash", "-c", words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(project)},
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == expected, (command, done.stdout, done.stderr)
    return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the guide's strategy in it."""
    copied = tmp_path_factory.mktemp("copy")
    for folder in ("tuner", "tests", "docs", "studies"):
        shutil.copytree(ROOT / folder, copied / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in (ROOT / "pyproject.toml", ROOT / "Makefile"):
        shutil.copy(file, copied)
    strategies = copied / "tuner" / "strategies"
    (strategies / "attention.py").write_text(block("python", holding="class Attention"), encoding="utf-8")
    imports = block("python", holding="import Attention\n")
    add_line(strategies / "__init__.py", imports, above="from tuner.strategies.base ")
    add_line(strategies / "__init__.py", block("text", holding="Attention(),"), above='    "full": ')
    return copied


def test_a_study_compares_it(project: Path, tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    write_rows(tmp_path / "train.csv", count=160, seed=1)
    write_rows(tmp_path / "test.csv", count=60, seed=2)
    (tmp_path / "cards.yaml").write_text(block("yaml", holding="name: cards"), encoding="utf-8")
    for line in block("bash", holding="tuner study check cards.yaml").splitlines():
        run(line, project=project, folder=tmp_path)
    listed = json.loads(run("tuner study trials cards --json", project=project, folder=tmp_path))["trials"]
    assert {trial["strategy"] for trial in listed} == {"head", "attention", "head>attention"}
    assert {trial["state"] for trial in listed} <= {"complete", "pruned"}, listed
    assert "attention" in (tmp_path / "cards.html").read_text(encoding="utf-8")


def test_the_contract_asks_for_the_refusal_and_then_passes(project: Path) -> None:
    command = block("bash", holding="-k attention").strip()
    before = run(command, project=project, folder=project, expected=1)
    assert re.findall(r"FAILED \S+\[(\S+)\]", before) == ["attention-resnet", "attention.part-output-resnet"]
    line = block("text", holding='"attention": {"resnet"')
    add_line(project / "tests" / "contract" / "matrix.py", line, above='    "bitfit": ')
    assert re.search(r"^\d+ passed, \d+ deselected", run(command, project=project, folder=project), re.MULTILINE)
    run(f"{sys.executable} -m tests.contract.strategy_guide", project=project, folder=project)
    assert "### attention" in (project / "docs" / "strategies.md").read_text(encoding="utf-8")


def test_the_strategy_is_held_to_the_projects_style(project: Path) -> None:
    said = [
        run(f"{sys.executable} -m {command} tuner/strategies/attention.py", project=project, folder=project)
        for command in ("ruff check", "ruff format --check")
    ]
    assert said == ["All checks passed!\n", "1 file already formatted\n"]
