"""Workers as a Kubernetes Job: the manifests as plain data, and ``kubectl`` to apply them.

The Job is a work queue: it keeps a number of pods and has no number of completions; the first pod that ends with status 0 says
that the studies are done. Manifests name Secrets and never hold one.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from tuner.errors import ConfigurationError, NotFoundError, TemporaryError, UnavailableError, UsageError
from tuner.launch.command import PASSWORD_FILE, WorkerCommand

FILES = "/files"
"""Where the claim for files is mounted."""
MOUNT = "/run/secrets/tuner"
"""Where the Secret of the database is mounted, a file for each of its keys."""

_USER = 10001  # the image's own
_DRAIN_SECONDS = 120
_KEEP_SECONDS = 86400  # a day to read the logs of a Job that is over
_QUANTITY = re.compile(r"(?=.*[1-9])[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei)?")
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,51}[a-z0-9])?")
# What another pod would do as well: it ends the Job. A database out of reach, an out-of-memory or a crash are tried again.
_FATAL = (UsageError.exit_code, NotFoundError.exit_code, ConfigurationError.exit_code)


@dataclass(frozen=True, kw_only=True, slots=True)
class KubernetesOptions:
    """What the cluster is asked for.

    Attributes:
        name: Of the Job; the ConfigMap has it, too.
        image: The workers' image.
        storage_secret: Secret with the database password; None where the database asks for none.
        secret_key: The key in it.
        files_claim: PersistentVolumeClaim for checkpoints and caches; with several nodes it must be ReadWriteMany.
        namespace: Where all of it lives; None for kubectl's current one.
        workers: Pods at once.
        gpus: GPUs of each pod; 0 trains on the CPU.
        gpu_resource: What the cluster calls a GPU.
        cpu: CPU cores of each pod, as Kubernetes writes quantities.
        memory: Memory of each pod, likewise.
        shared_memory: Size of ``/dev/shm``, likewise.
        node_selector: Labels that a node must have.
        tolerations: Taints that are tolerated, as ``key``, ``key=value`` or ``key=value:effect``.
        retries: Pods that may crash before the Job is given up.
    """

    name: str
    image: str
    storage_secret: str | None
    secret_key: str = "password"  # noqa: S105 - the name of a key
    files_claim: str
    namespace: str | None = None
    workers: int = 1
    gpus: int = 1
    gpu_resource: str = "nvidia.com/gpu"
    cpu: str = "4"
    memory: str = "16Gi"
    shared_memory: str = "2Gi"
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[str, ...] = ()
    retries: int = 20

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f'--name "{self.name}" is no name for a Job', why="a-z, 0-9 and - are allowed, 53 characters at most"
            )
        if self.workers < 1:
            raise UsageError(f"--workers must be at least 1, got {self.workers}")
        if self.gpus < 0:
            raise UsageError(f"--gpus must be 0 or more, got {self.gpus}")
        for option, text in (("cpu", self.cpu), ("memory", self.memory)):
            if not _QUANTITY.fullmatch(text):
                raise UsageError(
                    f'--{option} "{text}" is no quantity', fix="write it as Kubernetes does: 4, 500m, 16Gi"
                )
        if not self.image or any(character.isspace() for character in self.image):
            raise UsageError(
                f'--image "{self.image}" is no name of an image', fix="write for example registry/tuner:0.1.0"
            )


def default_name(studies: tuple[str, ...]) -> str:
    """A name for the Job that serves these studies."""
    study = re.sub(r"[^a-z0-9]+", "-", (studies[0] if studies else "workers").lower()).strip("-")
    return f"tuner-{study or 'workers'}"[:53].rstrip("-")


def manifests(command: WorkerCommand, *, options: KubernetesOptions) -> list[dict[str, Any]]:
    """The ConfigMap and the Job, in the order in which they are to be applied."""
    return [_config_map(command, options), _job(command, options)]


def to_yaml(documents: list[dict[str, Any]]) -> str:
    """Manifests as one YAML text."""
    return yaml.safe_dump_all(documents, sort_keys=False, explicit_start=True, width=100)


def _metadata(options: KubernetesOptions) -> dict[str, Any]:
    place = {"namespace": options.namespace} if options.namespace else {}
    return {"name": options.name, **place, "labels": _labels(options)}


def _labels(options: KubernetesOptions) -> dict[str, str]:
    return {"app.kubernetes.io/name": "tuner", "app.kubernetes.io/instance": options.name}


def _config_map(command: WorkerCommand, options: KubernetesOptions) -> dict[str, Any]:
    environment = command.environment
    environment.pop(PASSWORD_FILE, None)  # the launching machine's; the pods have their own
    if options.storage_secret is not None:
        environment[PASSWORD_FILE] = f"{MOUNT}/{options.secret_key}"
    environment |= {"HF_HOME": f"{FILES}/hub", "HOME": "/tmp"}  # noqa: S108 - the pod's own
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": _metadata(options), "data": environment}


def _job(command: WorkerCommand, options: KubernetesOptions) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(options),
        "spec": {
            "parallelism": options.workers,
            "backoffLimit": options.retries,
            "podReplacementPolicy": "Failed",  # never two pods on one GPU: the next one waits for the end of the last
            "ttlSecondsAfterFinished": _KEEP_SECONDS,
            "podFailurePolicy": {
                "rules": [
                    {"action": "FailJob", "onExitCodes": _codes(*_FATAL)},
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {"action": "Ignore", "onExitCodes": _codes(TemporaryError.exit_code)},
                ]
            },
            "template": {"metadata": {"labels": _labels(options)}, "spec": _pod(command, options)},
        },
    }


def _codes(*values: int) -> dict[str, Any]:
    return {"containerName": "worker", "operator": "In", "values": sorted(values)}


def _pod(command: WorkerCommand, options: KubernetesOptions) -> dict[str, Any]:
    pod: dict[str, Any] = {
        "restartPolicy": "Never",  # the policy above needs it
        "terminationGracePeriodSeconds": _DRAIN_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "shareProcessNamespace": True,  # somebody has to reap what a runner leaves behind
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(command, options)],
        "volumes": _volumes(options),
    }
    if options.node_selector:
        pod["nodeSelector"] = dict(options.node_selector)
    tolerations = [_toleration(text) for text in options.tolerations]
    if options.gpus:
        tolerations.insert(0, {"key": options.gpu_resource, "operator": "Exists", "effect": "NoSchedule"})
    if tolerations:
        pod["tolerations"] = tolerations
    return pod


def _container(command: WorkerCommand, options: KubernetesOptions) -> dict[str, Any]:
    gpus = {options.gpu_resource: str(options.gpus)} if options.gpus else {}
    mounts = [("files", FILES, False), ("tmp", "/tmp", False), ("shm", "/dev/shm", False)]  # noqa: S108 - the pod's own
    if options.storage_secret is not None:
        mounts.append(("database", MOUNT, True))
    return {
        "name": "worker",
        "image": options.image,
        "command": ["python", "-m", "tuner.launch.pod"],
        "args": command.words,
        "envFrom": [{"configMapRef": {"name": options.name}}],
        "resources": {
            "requests": {"cpu": options.cpu, "memory": options.memory, **gpus},
            "limits": {"memory": options.memory, **gpus},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": name, "mountPath": path, **({"readOnly": True} if read_only else {})}
            for name, path, read_only in mounts
        ],
    }


def _volumes(options: KubernetesOptions) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [
        {"name": "files", "persistentVolumeClaim": {"claimName": options.files_claim}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "1Gi"}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": options.shared_memory}},
    ]
    if options.storage_secret is not None:
        secret = {
            "secretName": options.storage_secret,
            "defaultMode": 0o440,
            "items": [{"key": options.secret_key, "path": options.secret_key}],
        }
        volumes.append({"name": "database", "secret": secret})
    return volumes


def _toleration(text: str) -> dict[str, str]:
    rest, _, effect = text.partition(":")
    key, equals, value = rest.partition("=")
    if not key or effect not in {"", "NoSchedule", "PreferNoSchedule", "NoExecute"}:
        raise UsageError(f'--toleration: key, key=value or key=value:NoSchedule expected, got "{text}"')
    wanted = {"operator": "Equal", "value": value} if equals else {"operator": "Exists"}
    return {"key": key, **wanted, **({"effect": effect} if effect else {})}


def apply(text: str) -> str:
    """Give manifests to ``kubectl apply``.

    Returns:
        What it said.

    Raises:
        UnavailableError: If it is not installed, or refuses.
    """
    tool = shutil.which("kubectl")
    if tool is None:
        raise UnavailableError(
            "kubectl is not installed here", fix="add --dry-run and apply the output where it is: kubectl apply -f FILE"
        )
    done = subprocess.run([tool, "apply", "-f", "-"], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or [f"status {done.returncode}"]
        why = lines[-1].removeprefix("error: ").partition("; if you choose to ignore")[0]
        raise UnavailableError("kubectl refused the manifests", why=why, fix="check: kubectl cluster-info")
    return done.stdout.strip()
