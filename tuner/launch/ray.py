"""Workers as actors of an existing Ray cluster: Ray finds a place for them and another one when a node dies.

Ray owns no trial. Each actor only keeps a ``tuner worker start`` running beside it; where the actor dies, so does the worker,
and the database gives its trials to others.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tuner.errors import ConfigurationError, UnavailableError, UsageError, first_line
from tuner.launch.child import noted, serve
from tuner.launch.command import WorkerCommand

_ROUND_SECONDS = 0.5
_PROBE_SECONDS = 60.0
_HEARING_SECONDS = 5.0
_DRAIN_SECONDS = 40.0  # a little more than the actors give their workers
_GUIDE = "docs/running/ray.md"


@dataclass(frozen=True, kw_only=True, slots=True)
class RayOptions:
    """What the cluster is asked for.

    Attributes:
        address: Of the cluster: ``HOST:PORT``, or ``auto`` on one of its nodes.
        workers: Actors.
        gpus: GPUs of each; 0 trains on the CPU.
        cpus: CPU cores of each.
        insecure: Whether a cluster that anybody in its network may use will do.
    """

    address: str = "auto"
    workers: int = 1
    gpus: int = 1
    cpus: int = 1
    insecure: bool = False

    def __post_init__(self) -> None:
        if self.address.startswith("ray://"):
            raise UsageError(
                f"--address {self.address}: Ray's client protocol is not offered",
                why="workers would end with the connection",
                fix="run this on a node of the cluster with --address auto, or give HOST:PORT",
            )
        if self.workers < 1:
            raise UsageError(f"--workers must be at least 1, got {self.workers}")
        if self.gpus < 0 or self.cpus < 0:
            raise UsageError("--gpus-per-worker and --cpus-per-worker must be 0 or more")

    @property
    def actor(self) -> dict[str, Any]:
        """The same as Ray calls it."""
        return {
            "num_gpus": self.gpus,
            "num_cpus": self.cpus,
            "max_restarts": -1,  # a node that dies is the cluster's daily life
            "max_task_retries": -1,  # and `run` is called again on the next one
            "max_concurrency": 2,  # so that `drain` is heard while `run` runs
            "scheduling_strategy": "SPREAD",
        }


class RayWorker:
    """What an actor does."""

    def __init__(self, command: WorkerCommand) -> None:
        """Prepare.

        Args:
            command: What the worker is told.
        """
        self._command = command
        self._is_asked = threading.Event()

    def run(self) -> int:
        """Serve until the studies are done or :meth:`drain` is called; the worker's exit status."""
        return serve(self._command, is_asked_to_leave=self._is_asked.is_set)

    def drain(self) -> None:
        """Ask the worker to save, to give its trials back and to leave."""
        self._is_asked.set()


def run(command: WorkerCommand, *, options: RayOptions, say: Callable[[str], None]) -> int:
    """Run workers on the cluster until all have ended; the first Ctrl-C or SIGTERM drains them, the second ends them.

    Args:
        command: What each worker is told.
        options: What the cluster is asked for.
        say: Takes one line for a person.

    Returns:
        0 if all workers ended well or were drained, else the first status that is not 0; 130 after a second Ctrl-C.

    Raises:
        ConfigurationError: If Ray is not installed, the cluster is open to everybody, or its nodes lack tuner.
        UnavailableError: If the cluster cannot be reached.
    """
    with _connected(options) as ray, noted(signal.SIGTERM, signal.SIGINT) as came:
        _tell_the_room(ray, options, say)
        actors = [ray.remote(RayWorker).options(**options.actor).remote(command) for _ in range(options.workers)]
        left = {actor.run.remote(): number for number, actor in enumerate(actors, start=1)}
        status = 0
        drained_at: float | None = None
        while left:
            ended, _ = ray.wait(list(left), num_returns=1, timeout=_ROUND_SECONDS)
            for reference in ended:
                number, one = left.pop(reference), _status(ray, reference)
                say(f"worker {number} of {options.workers} ended" + (f" with status {one}" if one else ""))
                status = status or one
            if came and drained_at is None:
                drained_at = time.monotonic()
                say("draining: the workers save and give their trials back (again to stop at once)")
                left = _drain(ray, actors, left)
            if len(came) > 1:
                return 130
            if drained_at is not None and time.monotonic() - drained_at > _DRAIN_SECONDS:
                break  # cut off: their leases run out by themselves
        return status


def _drain(ray: Any, actors: list[Any], left: dict[Any, int]) -> dict[Any, int]:
    """Ask all workers to leave; returns those that heard it. The others never found a place, or their node is gone."""
    asked = [actor.drain.remote() for actor in actors]
    heard, _ = ray.wait(asked, num_returns=len(asked), timeout=_HEARING_SECONDS)
    numbers = {asked.index(one) + 1 for one in heard}
    return {reference: number for reference, number in left.items() if number in numbers}


def _status(ray: Any, reference: Any) -> int:
    try:
        return int(ray.get(reference))
    except ray.exceptions.RayActorError as error:
        last = [line for line in str(error).splitlines() if line.strip()][-1].strip()
        raise ConfigurationError(
            "a worker could not start on the cluster",
            why=last,
            fix="install the same tuner in the Python of every node, see " + _GUIDE,
        ) from error


@contextlib.contextmanager
def _connected(options: RayOptions) -> Iterator[Any]:
    """Ray, connected to a cluster that does not let everybody in."""
    if not options.insecure:
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # before the import, which reads it
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")  # two epochs of two trials differ in their numbers only
    try:
        import ray as installed
    except ImportError as error:
        raise ConfigurationError("Ray is not installed here", fix="pip install 'ray>=2.52'") from error
    ray: Any = installed  # partly typed
    try:
        context = ray.init(address=options.address, logging_level="ERROR", log_to_driver=True)
    except ray.exceptions.AuthenticationError as error:
        raise ConfigurationError(
            f"the Ray cluster at {options.address} asks for a token",
            why=str(error).partition(". ")[0].strip(),
            fix="set RAY_AUTH_TOKEN_PATH to the file with the cluster's token",
        ) from error
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UnavailableError(
            f"no Ray cluster at {options.address}",
            why=first_line(error),
            fix="start one, see " + _GUIDE + ", and check its token: RAY_AUTH_TOKEN_PATH",
        ) from error
    try:
        if not options.insecure:
            _refuse_open_cluster(
                context.address_info["gcs_address"], dashboard=context.address_info.get("webui_url") or ""
            )
        yield ray
    finally:
        ray.shutdown()


def _refuse_open_cluster(address: str, *, dashboard: str) -> None:
    """Whoever reaches an open cluster runs code on it, which has been done to thousands of them.

    A cluster of one machine is no exception: Ray listens on all addresses, whatever its nodes are called.
    """
    if _answers_strangers(address):
        raise ConfigurationError(
            f"the Ray cluster at {address} asks nobody for a token",
            why="whoever reaches it runs code on it and reads the database password",
            fix=f"start it with RAY_AUTH_MODE=token, see {_GUIDE}, or say --insecure",
        )
    if dashboard and not _is_loopback(dashboard.rpartition(":")[0]):
        raise ConfigurationError(
            f"the Ray dashboard listens on {dashboard}",
            why="it starts jobs for whoever reaches it",
            fix="start the head node with --dashboard-host 127.0.0.1, or say --insecure",
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def _answers_strangers(address: str) -> bool:
    """Whether the cluster answers somebody without a token; asked in a process that has none."""
    hidden = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"}
    stranger = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        probe = subprocess.run(
            command,
            env={**stranger, "RAY_AUTH_MODE": "disabled"},
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
        said = probe.stderr
    except subprocess.TimeoutExpired:
        said = ""
    else:
        if probe.returncode == 0:
            return True
    if "AuthenticationError" in said:
        return False
    raise UnavailableError(
        f"cannot tell whether the Ray cluster at {address} asks for a token",
        why=(said.strip().splitlines() or ["no answer"])[-1],
        fix="try again, or say --insecure where its network is yours alone",
    )


def _tell_the_room(ray: Any, options: RayOptions, say: Callable[[str], None]) -> None:
    """Say now what would otherwise show as workers that never come."""
    total = ray.cluster_resources()
    for kind, each in (("GPU", options.gpus), ("CPU", options.cpus)):
        if each * options.workers > total.get(kind, 0):
            say(
                f"{options.workers} workers want {each * options.workers} {kind}s and the cluster has"
                f" {total.get(kind, 0):g}: the others start when there is room"
            )


def plan(command: WorkerCommand, *, options: RayOptions) -> dict[str, Any]:
    """What :func:`run` would ask the cluster for; nothing is started."""
    return {
        "address": options.address,
        "token_required": not options.insecure,
        "actors": options.workers,
        "options": options.actor,
        "command": ["tuner", *command.words],
        "environment": command.environment,
    }
