"""The compose file is valid, agrees with itself, keeps its promises, and calls commands that exist.

No container engine is needed: the compose specification's own schema comes with a test dependency. What a schema cannot
see (names that lead nowhere, durations, ports, passwords) is checked here.
"""

from __future__ import annotations

import importlib.resources
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from tests.house.command_line import why_refused
from tests.source_tree import ROOT

DURATION = re.compile(r"(?=\d)(?:\d+h)?(?:\d+m)?(?:\d+s)?(?:\d+ms)?")
DURATIONS = {
    "stop_grace_period",
    "interval",
    "timeout",
    "start_period",
    "start_interval",
    "delay",
    "window",
    "max_delay",
}
SECRET_WORD = re.compile(r"(?i)passw|secret|token")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
    return data


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")


def problems(compose: dict[str, Any]) -> list[str]:
    """What is wrong with a compose file although it fits the schema."""
    services: dict[str, Any] = compose["services"]
    found = [f"{name}: {problem}" for name in services for problem in _service_problems(name, compose)]
    found += [
        f"{path}: {value} is no duration" for path, value in _durations(services) if not DURATION.fullmatch(value)
    ]
    for kind in ("networks", "secrets"):
        used = {item for service in services.values() for item in service.get(kind, ())}
        found += [f"{kind} {item} is declared and not used" for item in compose.get(kind, {}) if item not in used]
    return found


def _service_problems(name: str, compose: dict[str, Any]) -> Iterator[str]:
    service = compose["services"][name]
    for kind in ("networks", "secrets", "configs"):
        for item in service.get(kind, ()):
            if item not in compose.get(kind, {}):
                yield f"{kind} {item} is not declared"
    for mount in service.get("volumes", ()):
        source = mount["source"] if isinstance(mount, dict) else mount.partition(":")[0]
        if re.match(r"[a-z]", source) and source not in compose.get("volumes", {}):
            yield f"volume {source} is not declared"
    for other, how in service.get("depends_on", {}).items():
        target = compose["services"].get(other)
        if target is None:
            yield f"depends on {other}, which is no service"
        elif how["condition"] == "service_healthy" and "healthcheck" not in target:
            yield f"waits for the health of {other}, which has no check"
        elif set(target.get("profiles", ())) - set(service.get("profiles", ())):
            yield f"depends on {other}, which is started by a profile only"
    for port in service.get("ports", ()):
        if not (isinstance(port, str) and re.match(r"(127\.0\.0\.1|\[::1\]):", port)):
            yield f"port {port} is open to other machines"
    if "healthcheck" not in service and service.get("restart") != "no":
        yield "neither a healthcheck nor one-shot"
    for key, value in (service.get("environment") or {}).items():
        is_secret = SECRET_WORD.search(key) and not key.endswith("_FILE")
        if is_secret or re.search(r"://[^/@]*:[^/@]*@", str(value)):
            yield f"{key} holds a password"


def _durations(node: Any, path: str = "services") -> Iterator[tuple[str, str]]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key in DURATIONS and isinstance(value, str | int):
                yield f"{path}.{key}", str(value)
            else:
                yield from _durations(value, f"{path}.{key}")


def test_it_fits_the_compose_specification(compose: dict[str, Any]) -> None:
    vendored = importlib.resources.files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    schema = json.loads(vendored.read_text(encoding="utf-8"))
    errors = jsonschema.Draft202012Validator(schema).iter_errors(compose)
    assert [f"{error.json_path}: {error.message}" for error in errors] == []


def test_it_agrees_with_itself(compose: dict[str, Any]) -> None:
    assert problems(compose) == []


@pytest.mark.parametrize(
    ("service", "change", "problem"),
    [
        ("dashboard", {"networks": ["nowhere"]}, "networks nowhere is not declared"),
        ("dashboard", {"secrets": ["other"]}, "secrets other is not declared"),
        ("worker", {"volumes": ["gone:/files"]}, "volume gone is not declared"),
        ("worker", {"depends_on": {"nobody": {"condition": "service_started"}}}, "depends on nobody"),
        ("schema", {"depends_on": {"worker": {"condition": "service_started"}}}, "started by a profile only"),
        ("schema", {"depends_on": {"schema": {"condition": "service_healthy"}}}, "has no check"),
        ("worker", {"stop_grace_period": "2 minutes"}, "2 minutes is no duration"),
        ("database", {"ports": ["5432:5432"]}, "open to other machines"),
        ("dashboard", {"ports": ["0.0.0.0:8080:8080"]}, "open to other machines"),
        ("schema", {"restart": "always"}, "neither a healthcheck nor one-shot"),
        ("database", {"environment": {"POSTGRES_PASSWORD": "x"}}, "holds a password"),
        ("worker", {"environment": {"TUNER_STORAGE": "postgresql://tuner:pw@database/tuner"}}, "holds a password"),
    ],
)
def test_a_broken_file_is_noticed(compose: dict[str, Any], service: str, change: dict[str, Any], problem: str) -> None:
    broken = {**compose, "services": {**compose["services"], service: {**compose["services"][service], **change}}}
    assert any(problem in line for line in problems(broken))


@pytest.mark.parametrize("name", ["database", "schema", "dashboard", "worker", "worker-cpu", "cli"])
def test_every_service_is_confined(compose: dict[str, Any], name: str) -> None:
    service = compose["services"][name]
    assert set(compose["services"]) == {"database", "schema", "dashboard", "worker", "worker-cpu", "cli"}
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] == ("999:999" if name == "database" else "10001:10001")
    assert service["secrets"] == ["database-password"]
    assert not any("docker.sock" in str(mount) for mount in service.get("volumes", ()))
    assert ":" in service["image"]
    assert not service["image"].endswith(":latest")


def test_the_database_is_reached_from_inside_only(compose: dict[str, Any]) -> None:
    assert compose["networks"]["back"] == {"internal": True}
    assert compose["services"]["database"]["networks"] == ["back"]
    assert [name for name, service in compose["services"].items() if "ports" in service] == ["dashboard"]


def test_the_schema_comes_before_whoever_needs_it(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert services["schema"]["depends_on"] == {"database": {"condition": "service_healthy"}}
    for name in ("dashboard", "worker", "worker-cpu", "cli"):
        assert services[name]["depends_on"] == {"schema": {"condition": "service_completed_successfully"}}


def test_workers_get_gpus_and_time_to_save(compose: dict[str, Any]) -> None:
    worker = compose["services"]["worker"]
    assert worker["profiles"] == ["gpu"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert worker["stop_grace_period"] == "120s"
    assert worker["init"] is True
    assert "shm_size" in worker


def test_its_commands_exist(compose: dict[str, Any], dockerfile: str) -> None:
    assert 'ENTRYPOINT ["tuner"]' in dockerfile
    refused: dict[str, str] = {}
    for name, service in compose["services"].items():
        commands = [service["command"]] if "command" in service and name != "database" else []
        check = service.get("healthcheck", {}).get("test", [])
        commands += [check[2:]] if check[:2] == ["CMD", "tuner"] else []
        refused |= {f"{name}: {command}": why for command in commands if (why := why_refused(command))}
    assert refused == {}


def test_the_dashboard_is_read_only(compose: dict[str, Any]) -> None:
    assert "--allow-write" not in compose["services"]["dashboard"]["command"]


def test_the_image_runs_as_an_ordinary_user(dockerfile: str) -> None:
    instructions = re.findall(r"^([A-Z]+) (.*)$", dockerfile, re.MULTILINE)
    assert [value for name, value in instructions if name == "USER"] == ["10001:10001"]
    assert json.loads(next(value for name, value in instructions if name == "CMD")) == ["--help"]
    for _name, image in (item for item in instructions if item[0] == "FROM"):
        assert re.match(r"[\w./-]+:[\w.-]*\d[\w.-]*", image), f"{image} is not pinned"


def test_what_the_image_copies_exists_and_is_not_ignored(dockerfile: str) -> None:
    kept = {
        line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line.startswith("!")
    }
    copied = {
        word
        for words in re.findall(r"^COPY (?!--from)(.*)$", dockerfile, re.MULTILINE)
        for word in shlex.split(words)[:-1]
    }
    assert copied == kept
    assert [name for name in copied if not (ROOT / name).exists()] == []


def test_the_extras_of_the_image_exist(dockerfile: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extras,) = re.findall(r'"\.\[([\w,]+)\]"', dockerfile)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
