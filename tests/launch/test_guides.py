"""What the guides tell people to copy would work: manifests, the service, commands inside other commands."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from tests.house.command_line import tuner_words, why_refused
from tests.source_tree import ROOT
from tuner.launch.slurm import parse_minutes

GUIDES = ROOT / "docs" / "running"
PAGES = {"README.md", "one-box.md", "ssh.md", "compose.md", "slurm.md", "kubernetes.md", "ray.md"}
# A command in quotes, after `--` or after variables.
INNER = re.compile(r"(?:-- |'|TUNER_FILES=\S+ )(tuner [^'|\n]*)")


def blocks(page: str, language: str) -> list[str]:
    text = (GUIDES / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_there_is_a_page_for_each_place_and_the_index_has_them_all() -> None:
    assert {path.name for path in GUIDES.glob("*.md")} == PAGES
    index = (GUIDES / "README.md").read_text(encoding="utf-8")
    assert {name for name in PAGES if f"]({name})" not in index} == {"README.md"}


@pytest.mark.parametrize("text", blocks("kubernetes.md", "yaml"))
def test_manifests_of_the_guide_fit_the_api(text: str) -> None:
    manifest = yaml.safe_load(text)
    assert kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


def test_the_service_starts_what_exists_and_stops_it_gently() -> None:
    (text,) = blocks("ssh.md", "ini")
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(text)
    service = unit["Service"]
    words = tuner_words(service["ExecStart"])
    assert words is not None
    assert why_refused(words) is None
    assert service["KillMode"] == "mixed"  # runners get no SIGTERM of their own: the worker tells them to save
    assert int(service["TimeoutStopSec"]) > 30
    assert re.findall(r"password=|://\w+:\w+@", text) == []


@pytest.mark.parametrize("page", sorted(PAGES))
def test_commands_inside_other_commands_are_accepted(page: str) -> None:
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ")
    inner = [match.replace('"', "").strip() for match in INNER.findall(lines)]
    assert {words: why_refused(words.split()[1:]) for words in inner} == dict.fromkeys(inner)
    if page in {"one-box.md", "ssh.md", "kubernetes.md"}:
        assert inner


def test_time_limits_of_the_guide_are_read() -> None:
    limits = re.findall(r"--time (\S+)", Path(GUIDES / "slurm.md").read_text(encoding="utf-8"))
    assert limits
    assert [parse_minutes(limit) for limit in limits] == [240] * len(limits)
