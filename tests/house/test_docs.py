"""What the documents say is true: links lead somewhere, commands are accepted, files that are named exist."""

from __future__ import annotations

import ast
import json
import re
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

import tuner
from tests.house.command_line import tuner_words, why_refused
from tests.source_tree import ROOT
from tuner.cli.app import app

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/**/*.md")])
SHELLS = {"", "bash", "sh", "shell", "console"}
LINK = re.compile(r"(?<!\\)\[[^\]]*\]\(<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\)")
FENCE = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,}|~{3,})(?P<language>[\w-]*)[^\n]*\n(?P<body>.*?)^\1(?P=fence)",
    re.MULTILINE | re.DOTALL,
)
MAKE = re.compile(r"^\s*(?:\w+=\S+ +)*make +((?:[a-z-]+ ?)+)")


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def _shell_lines(path: Path) -> Iterator[str]:
    """Lines of the shell blocks of a document, continued lines joined, prompts and output left out."""
    for block in FENCE.finditer(path.read_text(encoding="utf-8")):
        if block["language"] not in SHELLS:
            continue
        lines = block["body"].replace("\\\n", " ").splitlines()
        prompted = any(line.lstrip().startswith("$ ") for line in lines)
        for line in lines:
            text = line.strip()
            if not prompted:
                yield text
            elif text.startswith("$ "):
                yield text[2:]


def _blocks(languages: set[str]) -> list[tuple[str, str]]:
    return [
        (_name(path), textwrap.dedent(block["body"]))
        for path in DOCUMENTS
        for block in FENCE.finditer(path.read_text(encoding="utf-8"))
        if block["language"] in languages
    ]


def _commands() -> list[tuple[str, str]]:
    return [
        (_name(path), line)
        for path in DOCUMENTS
        for line in _shell_lines(path)
        if line.startswith(("tuner", ".venv/bin/tuner")) or re.match(r"(\w+=\S+ +)+\S*\btuner ", line)
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    broken = []
    for target in LINK.findall(FENCE.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue  # the web is not asked
        file, _, anchor = target.partition("#")
        aim = (path.parent / file).resolve() if file else path
        if not aim.is_relative_to(ROOT) or not aim.exists():
            broken.append(target)
        elif anchor and aim.suffix == ".md":
            headings = re.findall(r"^#+ +(.*)$", FENCE.sub("", aim.read_text(encoding="utf-8")), re.MULTILINE)
            if anchor not in {_anchor(heading) for heading in headings}:
                broken.append(target)
    assert broken == []


@pytest.mark.parametrize(("document", "line"), _commands())
def test_commands_are_accepted(document: str, line: str) -> None:
    words = tuner_words(line)
    assert words is not None, f"{document}: not a command line: {line}"
    # A placeholder such as <NAME> or ... stands for a word of the reader's.
    assert why_refused([word for word in words if word not in {"...", "…"}]) is None


def test_a_command_that_does_not_exist_is_noticed() -> None:
    assert why_refused(["study", "list"]) is None
    assert why_refused(["study", "lst"]) is not None
    assert why_refused(["study", "list", "--no-such-option"]) is not None
    assert why_refused(["study", "show"]) is not None
    assert tuner_words("TUNER_STORAGE=x .venv/bin/tuner study show a | less  # look") == ["study", "show", "a"]
    assert tuner_words("echo tuner") is None


def _leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[str]:
    inner = getattr(command, "commands", {})
    if not inner:
        yield " ".join(words)
    for name, child in inner.items():
        yield from _leaves(child, (*words, name))


def test_every_command_is_documented() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    commands = list(_leaves(get_command(app), ("tuner",)))
    assert len(commands) > 10
    assert [command for command in commands if not re.search(rf"{re.escape(command)}\b", text)] == []


@pytest.mark.parametrize(("document", "code"), _blocks({"python", "py"}))
def test_python_examples_are_python(document: str, code: str) -> None:
    tree = ast.parse(code, filename=document)
    wanted = {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "tuner"
    }
    assert [name for name in wanted if not hasattr(tuner, name)] == []


@pytest.mark.parametrize(("document", "text"), _blocks({"yaml", "yml"}))
def test_yaml_examples_are_yaml(document: str, text: str) -> None:
    assert isinstance(yaml.safe_load(text), dict), document


@pytest.mark.parametrize(("document", "text"), _blocks({"json"}))
def test_json_examples_are_json(document: str, text: str) -> None:
    assert json.loads(text) is not None, document


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {
        (_name(path), word)
        for path in DOCUMENTS
        for line in _shell_lines(path)
        if (match := MAKE.match(line))
        for word in match[1].split()
    }
    assert named != set()
    assert {(document, word) for document, word in named if word not in targets} == set()


def test_every_make_target_is_explained_and_phony() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = set(re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)[1].split())  # type: ignore[index]
    assert set(re.findall(r"^([a-z-]+):", text, re.MULTILINE)) == phony
    assert set(re.findall(r"^([a-z-]+):.*## ", text, re.MULTILINE)) == phony


def test_the_changelog_begins_with_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] in {version, "Unreleased"}
    assert version in headings[:2]


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "docker-compose.yml", ROOT / "Makefile"], ids=_name)
def test_nobody_is_sent_to_a_strangers_package(path: Path) -> None:
    # The name is taken on the public index by another project: tuner is installed from a clone or a wheel.
    assert not re.search(r"pip3? install[^\n]*[ '\"]tuner(?![/\w-])", path.read_text(encoding="utf-8"))
