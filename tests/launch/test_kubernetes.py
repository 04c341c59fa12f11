"""The manifests fit the API of every Kubernetes that is still served, and keep their promises."""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.source_tree import ROOT
from tuner.errors import UnavailableError, UsageError
from tuner.launch import kubernetes
from tuner.launch.command import PASSWORD_FILE, WorkerCommand, command_for
from tuner.launch.kubernetes import KubernetesOptions, apply, default_name, manifests, to_yaml

# podReplacementPolicy is served by default since 1.29.
VERSIONS = [version for version in kubernetes_validate.utils.all_versions() if version >= "1.29"]
OPTIONS = {
    "plain": KubernetesOptions(name="tuner-a", image="registry/tuner:0.1.0", storage_secret="db", files_claim="files"),
    "cpu": KubernetesOptions(name="cpu", image="tuner:1", storage_secret=None, files_claim="files", gpus=0),
    "all": KubernetesOptions(
        name="all",
        image="tuner@sha256:" + "0" * 64,
        storage_secret="db",
        secret_key="pw",
        files_claim="files",
        namespace="team",
        workers=8,
        gpus=2,
        gpu_resource="amd.com/gpu",
        cpu="500m",
        memory="8Gi",
        node_selector={"gpu": "h100"},
        tolerations=("spot", "team=vision", "team=vision:NoExecute"),
    ),
}


@pytest.fixture
def command() -> WorkerCommand:
    return command_for("postgresql://tuner@db/tuner", files=kubernetes.FILES, studies=("a", "b"), gpus=1)


def written(command: WorkerCommand, name: str = "plain") -> list[dict[str, Any]]:
    """The manifests as kubectl reads them."""
    return list(yaml.safe_load_all(to_yaml(manifests(command, options=OPTIONS[name]))))


def pod_of(documents: list[dict[str, Any]]) -> dict[str, Any]:
    pod: dict[str, Any] = documents[1]["spec"]["template"]["spec"]
    return pod


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", OPTIONS)
def test_manifests_fit_the_api(command: WorkerCommand, version: str, name: str) -> None:
    documents = written(command, name)
    assert [document["kind"] for document in documents] == ["ConfigMap", "Job"]
    for document in documents:
        assert kubernetes_validate.validate(document, version, strict=True) == version.rpartition(".")[0]


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("spec.podReplacementPolice", "Failed", "podReplacementPolice"),
        ("spec.parallelism", "8", "not of type"),
        ("spec.template.spec.securityContext.runAsUsr", 1, "runAsUsr"),
        ("spec.template.spec.containers.0.securityContext.capabilites", {}, "capabilites"),
        ("spec.template.spec.volumes.0.emptydir", {}, "emptydir"),
        ("spec.podFailurePolicy.rules.0.onExitCodes.operators", "In", "operators"),
        ("spec.template.spec.containers.0.env", {"A": "b"}, "not of type"),
    ],
)
def test_a_wrong_manifest_is_noticed(command: WorkerCommand, path: str, value: object, text: str) -> None:
    job = copy.deepcopy(written(command)[1])
    *parents, key = path.split(".")
    place: Any = job
    for parent in parents:
        place = place[int(parent)] if parent.isdigit() else place[parent]
    place[key] = value
    with pytest.raises(kubernetes_validate.ValidationError) as caught:
        kubernetes_validate.validate(job, VERSIONS[-1], strict=True)
    assert text in str(caught.value)


def test_names_lead_somewhere(command: WorkerCommand) -> None:
    config, _ = documents = written(command, "all")
    pod = pod_of(documents)
    (container,) = pod["containers"]
    assert container["envFrom"] == [{"configMapRef": {"name": config["metadata"]["name"]}}]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert len({mount["mountPath"] for mount in container["volumeMounts"]}) == len(container["volumeMounts"])
    assert {document["metadata"]["namespace"] for document in documents} == {"team"}
    rules = documents[1]["spec"]["podFailurePolicy"]["rules"]
    assert {rule["onExitCodes"]["containerName"] for rule in rules if "onExitCodes" in rule} == {container["name"]}


def test_it_is_a_work_queue_that_survives_disruptions(command: WorkerCommand) -> None:
    spec = written(command, "all")[1]["spec"]
    assert spec["parallelism"] == 8
    assert "completions" not in spec
    assert spec["podReplacementPolicy"] == "Failed"
    rules = spec["podFailurePolicy"]["rules"]
    assert {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]} in rules
    ignored = [rule["onExitCodes"]["values"] for rule in rules if "onExitCodes" in rule and rule["action"] == "Ignore"]
    assert ignored == [[75]]  # what tuner.launch.pod leaves with after a drain
    assert spec["template"]["spec"]["terminationGracePeriodSeconds"] == 120
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize("name", OPTIONS)
def test_pods_are_confined(command: WorkerCommand, name: str) -> None:
    pod = pod_of(written(command, name))
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert "--uid 10001" in (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    shm = next(volume for volume in pod["volumes"] if volume["name"] == "shm")
    assert shm["emptyDir"]["medium"] == "Memory"


def test_gpus_are_asked_for_by_their_resource(command: WorkerCommand) -> None:
    (container,) = pod_of(written(command, "all"))["containers"]
    assert container["resources"]["limits"]["amd.com/gpu"] == "2"
    (container,) = pod_of(written(command, "cpu"))["containers"]
    assert set(container["resources"]["limits"]) == {"memory"}
    assert "tolerations" not in pod_of(written(command, "cpu"))


def test_tolerations_are_read(command: WorkerCommand) -> None:
    assert pod_of(written(command, "all"))["tolerations"] == [
        {"key": "amd.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "spot", "operator": "Exists"},
        {"key": "team", "operator": "Equal", "value": "vision"},
        {"key": "team", "operator": "Equal", "value": "vision", "effect": "NoExecute"},
    ]


def test_the_secret_is_named_and_mounted_and_never_written(
    command: WorkerCommand, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text("s3cr3tPW", encoding="utf-8")
    monkeypatch.setenv(PASSWORD_FILE, str(file))
    here = command_for("postgresql://tuner@db/tuner", files=kubernetes.FILES, studies=("a",), gpus=1)
    text = to_yaml(manifests(here, options=OPTIONS["all"]))
    assert "s3cr3tPW" not in text
    assert str(file) not in text  # a path of this machine means nothing in a pod
    assert "kind: Secret" not in text
    config, job = yaml.safe_load_all(text)
    secret = next(volume for volume in job["spec"]["template"]["spec"]["volumes"] if "secret" in volume)
    assert secret["secret"] == {
        "secretName": "db",
        "defaultMode": 0o440,
        "items": [{"key": "pw", "path": "pw"}],
    }
    assert config["data"][PASSWORD_FILE] == "/run/secrets/tuner/pw"


def test_a_database_without_a_password_needs_no_secret(command: WorkerCommand) -> None:
    config, job = written(command, "cpu")
    assert PASSWORD_FILE not in config["data"]
    assert "secret" not in str(job)


@pytest.mark.parametrize(
    ("studies", "name"),
    [
        (("my-study",), "tuner-my-study"),
        (("Bank_77.v2", "b"), "tuner-bank-77-v2"),
        ((), "tuner-workers"),
        (("___",), "tuner-workers"),
        (("a" * 99,), "tuner-" + "a" * 47),
    ],
)
def test_a_job_is_named_after_its_study(studies: tuple[str, ...], name: str) -> None:
    assert default_name(studies) == name
    assert KubernetesOptions(name=name, image="i", storage_secret=None, files_claim="f").name == name


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"name": "Tuner"}, "no name for a Job"),
        ({"name": "a" * 54}, "53 characters at most"),
        ({"workers": 0}, "--workers must be at least 1"),
        ({"gpus": -1}, "--gpus must be 0 or more"),
        ({"cpu": "-1"}, '--cpu "-1" is no quantity'),
        ({"cpu": "0"}, '--cpu "0" is no quantity'),
        ({"memory": "16Q"}, '--memory "16Q" is no quantity; write it as Kubernetes does'),
        ({"image": "a b"}, '--image "a b" is no name of an image'),
    ],
)
def test_what_no_cluster_takes_is_refused_here(changes: dict[str, Any], text: str) -> None:
    plain: dict[str, Any] = {"name": "a", "image": "i", "storage_secret": None, "files_claim": "f"}
    with pytest.raises(UsageError, match=text):
        KubernetesOptions(**(plain | changes))


@pytest.mark.parametrize("text", ["=b", "a:Nope", ":NoSchedule"])
def test_a_toleration_that_cannot_be_read_is_refused(command: WorkerCommand, text: str) -> None:
    options = KubernetesOptions(name="a", image="i", storage_secret=None, files_claim="f", tolerations=(text,))
    with pytest.raises(UsageError, match=re.escape(text)):
        manifests(command, options=options)


def kubectl(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A program of that name, where no cluster is at hand."""
    tool = folder / "kubectl"
    tool.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_manifests_are_given_to_kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubectl(tmp_path, monkeypatch, f'echo "$@" > {tmp_path}/words; cat > {tmp_path}/text; echo job created')
    assert apply("kind: Job\n") == "job created"
    assert (tmp_path / "words").read_text(encoding="utf-8") == "apply -f -\n"
    assert (tmp_path / "text").read_text(encoding="utf-8") == "kind: Job\n"


def test_what_kubectl_says_against_it_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kubectl(tmp_path, monkeypatch, 'echo warning >&2; echo "error: no such namespace" >&2; exit 1')
    with pytest.raises(UnavailableError, match="kubectl refused the manifests - no such namespace; check:"):
        apply("kind: Job\n")


def test_without_kubectl_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UnavailableError, match="kubectl is not installed here; add --dry-run"):
        apply("kind: Job\n")
