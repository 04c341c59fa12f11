"""The house rules, as far as a machine can see them."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tomllib
from enum import Enum

import pytest

from tests.source_tree import PACKAGE, ROOT, Module, asserts_something, cycles, import_graph, length, modules
from tuner.store.records import Outcome, StudyState
from tuner.study.plan import Verdict

# Which room may import which others (itself apart). Whatever is not named here lies at the top (the public API, the
# command line's entry) and may import anything; nobody may import that.
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "contest": set(),
    "source": set(),
    "terminal": set(),
    "files": {"errors"},
    "study": {"errors", "contest"},
    "tasks": {"errors", "study"},
    "strategies": {"errors", "study"},
    "training": {"errors", "files", "study", "tasks", "strategies"},
    "store": {"errors", "files", "source", "study"},
    "search": {"errors", "contest", "files", "study", "store"},
    "worker": {"errors", "files", "source", "terminal", "study", "store", "search"},
    "report": {"errors", "contest", "study", "store"},
    "dashboard": {"errors", "study", "store", "report"},
    "launch": {"errors", "study", "store", "worker"},
    "export": {"errors", "files", "study", "tasks", "strategies", "training", "store"},
}
# The one place where the worker's world and the training's meet: the child process that trains.
RUNNER = "tuner.worker.runner"
RUNNER_ROOMS = {"errors", "files", "study", "tasks", "strategies", "training"}

# One vendor, one room. A name with a dot is a single module.
TRAINING_ROOMS = {"tasks", "strategies", "training", "export", "worker.runner"}
VENDORS: dict[str, set[str]] = {
    "alembic": {"store"},
    "bottle": {"dashboard"},
    "datasets": TRAINING_ROOMS | {"study.sources"},
    "fsspec": {"files"},
    "huggingface_hub": TRAINING_ROOMS | {"study.pretrained"},
    "jinja2": {"report", "dashboard"},
    "kornia": TRAINING_ROOMS,
    "lion_pytorch": TRAINING_ROOMS,
    "numpy": TRAINING_ROOMS | {"report", "search"},
    "optuna": {"search", "store", "report", "dashboard"},
    "optuna_dashboard": {"dashboard"},
    "peft": TRAINING_ROOMS,
    "PIL": TRAINING_ROOMS,
    "plotly": {"report"},
    "psutil": {"worker", "store", "cli", "training"},
    "pyarrow": {"study"},
    "psycopg": {"store"},
    "pymysql": {"store"},
    "pydantic": set(ROOMS) | {"cli"},
    "pydantic_core": {"study"},
    "ray": {"launch"},
    "rich": {"cli", "worker.display"},
    "safetensors": TRAINING_ROOMS,
    "scipy": TRAINING_ROOMS | {"contest"},
    "sklearn": TRAINING_ROOMS,
    "sqlalchemy": {"store"},
    "submitit": {"launch"},
    "tokenizers": TRAINING_ROOMS,
    "torch": TRAINING_ROOMS,
    "transformers": TRAINING_ROOMS,
    "typer": {"cli"},
    "waitress": {"dashboard"},
    "yaml": {"study", "launch"},
}
# Seconds to import, so the command line and the supervisor do without.
HEAVY = {
    "alembic",
    "datasets",
    "fsspec",
    "optuna",
    "peft",
    "plotly",
    "ray",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "submitit",
    "torch",
    "transformers",
}
# What a package is called where it is not called like its distribution.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "lion_pytorch": "lion-pytorch",
    "optuna_dashboard": "optuna-dashboard",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
# Imported, but declared by a package that is declared itself and is made of it.
CARRIED = {
    "bottle": "optuna-dashboard",
    "huggingface_hub": "transformers",
    "pydantic_core": "pydantic",
    "tokenizers": "transformers",
}
# Declared and never imported: loaded by name.
LOADED_BY_NAME = {
    "cmaes": "Optuna's sampler of that name loads it",
    "gcsfs": "fsspec loads it from the URL",
    "psycopg": "sqlalchemy loads it from the URL",
    "s3fs": "fsspec loads it from the URL",
}
# Declared ahead of the rooms that will use them.
NOT_YET = {"kornia", "onnx", "onnxruntime", "pillow"}

FILE_LINES = 400
FUNCTION_LINES = 60
# A longer function needs a reason.
LONG_FUNCTIONS: dict[str, tuple[int, str]] = {
    "tuner/api.py:run_worker": (75, "most of it says what its arguments mean"),
    "tuner/training/loop.py:train": (120, "the loop is read from top to bottom"),
}
# Overrides of a vendor's method that takes anything.
VENDOR_SIGNATURES = {"forward"}
DRAWERS = {"util", "utils", "common", "helper", "helpers", "misc", "shared", "stuff"}


def test_imports_go_one_way() -> None:
    wrong = []
    for module in modules():
        if module.room not in ROOMS:
            continue
        allowed = RUNNER_ROOMS | {"worker"} if module.name == RUNNER else ROOMS[module.room] | {module.room}
        wrong += [
            f"{module.where}:{item.line}: {module.room} imports {item.name}"
            for item in module.imports
            if item.top == PACKAGE and item.room not in allowed
        ]
    assert wrong == []


def test_rooms_are_known() -> None:
    folders = {path.parent.name for path in (ROOT / PACKAGE).glob("*/__init__.py")}
    assert folders - set(ROOMS) == {"cli"}


def test_no_import_cycles() -> None:
    assert cycles(import_graph()) == []


def test_one_vendor_one_room() -> None:
    wrong = []
    for module in modules():
        inside = module.name.removeprefix(f"{PACKAGE}.")
        for item in module.imports:
            if item.top == PACKAGE or item.top in sys.stdlib_module_names:
                continue
            rooms = VENDORS.get(item.top)
            if rooms is None:
                wrong.append(f"{module.where}:{item.line}: {item.top} has no room")
            elif module.room not in rooms and inside not in rooms:
                wrong.append(f"{module.where}:{item.line}: {item.top} lives in {', '.join(sorted(rooms))}")
    assert wrong == []


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [item for name, items in project["optional-dependencies"].items() if name != "test" for item in items]
    declared = {_distribution(item) for item in project["dependencies"] + extras}
    imported = {item.top for module in modules() for item in module.imports}
    imported -= {PACKAGE} | set(sys.stdlib_module_names)
    needed = {CARRIED.get(name, DISTRIBUTIONS.get(name, name)) for name in imported}
    assert needed - declared == set()
    assert declared - needed - set(LOADED_BY_NAME) - NOT_YET == set()


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.where)
def test_files_and_functions_can_be_read_at_a_sitting(module: Module) -> None:
    assert module.code_lines <= FILE_LINES
    too_long = {}
    for function in module.functions:
        limit, _reason = LONG_FUNCTIONS.get(f"{module.where}:{function.name}", (FUNCTION_LINES, ""))
        if length(function) > limit:
            too_long[function.name] = length(function)
    assert too_long == {}


def test_most_files_and_functions_are_short() -> None:
    files = sorted(module.code_lines for module in modules() if module.code_lines > 5)
    functions = sorted(length(function) for module in modules() for function in module.functions)
    assert statistics.median(files) <= 150
    assert statistics.quantiles(functions, n=10)[-1] <= 40


def test_no_drawers() -> None:
    assert [module.where for module in (*modules(), *modules("tests")) if module.path.stem in DRAWERS] == []


def test_public_functions_name_their_arguments() -> None:
    wrong = [
        f"{module.where}:{function.lineno}: {function.name}"
        for module in modules()
        for function in module.public_functions
        if function.args.kwarg and function.name not in VENDOR_SIGNATURES
    ]
    assert wrong == []


def test_transactions_are_committed_in_one_place() -> None:
    wrong = [
        f"{module.where}:{node.lineno}"
        for module in modules()
        if module.where != "tuner/store/transactions.py"
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "commit"
    ]
    assert wrong == []


def test_states_are_compared_as_members_not_as_words() -> None:
    states: tuple[type[Enum], ...] = (Outcome, StudyState, Verdict)
    words = {member.value for state in states for member in state}
    wrong = [
        f"{module.where}:{node.lineno}: {ast.unparse(node)}"
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Compare)
        for operand in (node.left, *node.comparators)
        if isinstance(operand, ast.Constant) and operand.value in words
    ]
    assert wrong == []


def test_every_test_can_fail() -> None:
    wrong = []
    for module in modules("tests"):
        asserting: set[str] = set()
        # A helper may call another one that asserts.
        while more := {
            function.name
            for function in module.functions
            if function.name not in asserting and asserts_something(function, asserting=asserting)
        }:
            asserting |= more
        wrong += [
            f"{module.where}:{function.lineno}: {function.name}"
            for function in module.functions
            if function.name.startswith("test_") and function.name not in asserting
        ]
    assert wrong == []


def test_nothing_is_left_to_do() -> None:
    words = ("TO" + "DO", "FIX" + "ME", "XX" + "X")
    wrong = [
        f"{module.where}:{number}"
        for module in (*modules(), *modules("tests"))
        for number, line in enumerate(module.source.splitlines(), start=1)
        if any(word in line for word in words)
    ]
    assert wrong == []


@pytest.mark.parametrize("statement", ["import tuner", "import tuner.__main__"])
def test_the_package_is_light(statement: str) -> None:
    assert loaded_by("-c", statement) & HEAVY == set()


def test_help_is_light() -> None:
    assert loaded_by("-m", PACKAGE, "--help") & HEAVY == set()


@pytest.mark.parametrize("room", ["study", "tasks", "strategies"])
def test_the_catalogue_is_read_without_torch(room: str) -> None:
    # Of the strategies the registry and all that it imports; what they put into a model is written in torch.
    names = [module.name for module in modules() if module.room == room and room != "strategies"]
    names = names or [f"{PACKAGE}.{room}"]
    assert loaded_by("-c", f"import {', '.join(names)}") & HEAVY == set()


@pytest.mark.parametrize("name", ["tuner.worker.supervisor", "tuner.search.driver", "tuner.cli.worker"])
def test_the_supervisor_does_without_torch(name: str) -> None:
    assert importlib.util.find_spec(name) is not None
    assert loaded_by("-c", f"import {name}") & {"datasets", "peft", "sklearn", "torch", "transformers"} == set()


def test_the_graph_sees_cycles() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a", "d"}}
    assert cycles(graph) == [["b", "c"]]


def loaded_by(*arguments: str) -> set[str]:
    """Top-level modules in memory at the end of a fresh Python process."""
    script = (
        "import atexit, json, runpy, sys\n"
        "atexit.register(lambda: print('\\n' + json.dumps(sorted({name.partition('.')[0] for name in sys.modules}))))\n"
        "kind, what, *sys.argv[1:] = sys.argv[1:]\n"
        "exec(what) if kind == '-c' else runpy.run_module(what, run_name='__main__', alter_sys=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def _distribution(requirement: str) -> str:
    """The name in a requirement such as ``psycopg[binary]>=3.2``."""
    for position, character in enumerate(requirement):
        if not (character.isalnum() or character in "-_."):
            return requirement[:position].lower()
    return requirement.lower()
