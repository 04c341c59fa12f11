"""The project's own files agree with each other and with what is installed."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tuner
from tests.source_tree import ROOT, modules

EXTRAS = ("gcs", "mysql", "postgres", "ray", "s3", "slurm", "test", "vision")


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    settings: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return settings


def _pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {str(canonicalize_name(name)): version for name, version in pinned}


def _installed_below(requirements: list[str]) -> dict[str, str]:
    """Version of everything that the requirements bring in here, without local labels such as ``+cpu``."""
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    todo = [(Requirement(text), "") for text in requirements]
    while todo:
        requirement, parent_extra = todo.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": parent_extra}):
            continue
        name = str(canonicalize_name(requirement.name))
        distribution = importlib.metadata.distribution(name)
        found[name] = distribution.version.partition("+")[0]
        for extra in ("", *requirement.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                todo += [(Requirement(text), extra) for text in distribution.requires or []]
    return found


def test_everything_installed_is_pinned_to_its_version(project: dict[str, Any]) -> None:
    requirements = [
        *project["dependencies"],
        *(item for name in EXTRAS for item in project["optional-dependencies"][name]),
    ]
    installed = _installed_below(requirements)
    assert {"torch", "optuna", "psycopg", "numpy"} <= set(installed)
    pins = _pins()
    assert {name: (version, pins.get(name)) for name, version in installed.items() if pins.get(name) != version} == {}


def test_pins_are_portable(project: dict[str, Any]) -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert re.findall(r"^(?![\w.-]+==[\w.]+$|#|$).*", text, re.MULTILINE) == []
    assert _pins()["torch"] == "2.13.0"


def test_pins_satisfy_the_declared_ranges(project: dict[str, Any]) -> None:
    pins = _pins()
    requirements = [Requirement(text) for text in project["dependencies"]]
    wrong = [str(item) for item in requirements if not item.specifier.contains(pins[canonicalize_name(item.name)])]
    assert wrong == []


def test_one_version(project: dict[str, Any]) -> None:
    assert tuner.__version__ == project["version"]
    assert f"image: tuner:{project['version']}" in (ROOT / "docker-compose.yml").read_text(encoding="utf-8")


def test_the_console_script_is_the_module(project: dict[str, Any]) -> None:
    from tuner import __main__

    assert project["scripts"] == {"tuner": "tuner.__main__:main"}
    assert callable(__main__.main)


def test_ci_runs_what_people_run() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script], check=False).returncode == 0
    assert script.read_text(encoding="utf-8").rstrip().endswith("\nmake test")


def test_make_alone_says_what_it_can_do() -> None:
    done = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"make demo", "make test", "make check"} <= set(re.findall(r"make [a-z]+", done.stdout))


def test_the_code_speaks_of_nobodys_machine() -> None:
    machine = re.compile(r"/(?:home|Users|root)/\w|/work/\w")
    wrong = [
        f"{module.where}:{number}: {line.strip()}"
        for module in (*modules(), *modules("tests"))
        if module.path != Path(__file__).resolve()
        for number, line in enumerate(module.source.splitlines(), start=1)
        if machine.search(line)
    ]
    assert wrong == []


@pytest.mark.slow
def test_the_wheel_holds_what_an_installation_needs(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    studies = {f"tuner/studies/{path.name}" for path in (ROOT / "studies").glob("*.yaml")}
    assert "tuner/studies/quickstart.yaml" in studies
    data = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tuner").rglob("*") if path.is_file()}
    wanted = {name for name in data if "__pycache__" not in name} | studies
    assert wanted - names == set()
    assert not any(name.startswith(("tests/", "docs/")) for name in names)
