"""Object stores that really answer: moto's S3 and an emulator of Google Cloud Storage, each a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import fsspec

from tests.source_tree import ROOT

BUCKET = "bucket"
# The bucket is there before the server listens: a client that comes back at once must find it.
_S3 = f"""
import sys
from moto.s3.models import s3_backends
from moto.server import main
s3_backends["123456789012"]["aws"].create_bucket("{BUCKET}", "us-east-1")
main(sys.argv[1:])
"""
_COMMANDS = {
    "s3": ("-c", _S3, "-H", "127.0.0.1", "-p"),
    "gs": (
        "-m",
        "gcp_storage_emulator",
        "start",
        "--in-memory",
        "--host",
        "127.0.0.1",
        "--default-bucket",
        BUCKET,
        "--port",
    ),
}


@dataclass(kw_only=True, slots=True)
class ObjectStore:
    """A store with one bucket.

    Attributes:
        protocol: ``s3`` or ``gs``.
        port: Where it listens on the loopback address.
        environment: How a client finds it.
    """

    protocol: str
    port: int
    environment: dict[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its bucket."""
        return f"{self.protocol}://{BUCKET}"

    def start(self) -> None:
        """Listen; a store that was stopped has forgotten everything."""
        self._process = subprocess.Popen(
            [sys.executable, *_COMMANDS[self.protocol], str(self.port)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(400):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/", timeout=5).close()
                break
            except urllib.error.HTTPError as answer:
                answer.close()
                break
            except OSError:
                time.sleep(0.05)
        else:
            raise AssertionError(f"the {self.protocol} server does not answer")

    def stop(self) -> None:
        """Be gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def running_store(protocol: str) -> Iterator[ObjectStore]:
    """A store that is gone afterwards; its ``environment`` must be set by who uses it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    environments = {
        "s3": {
            "AWS_ENDPOINT_URL": address,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        },
        "gs": {"STORAGE_EMULATOR_HOST": address, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"},
    }
    store = ObjectStore(protocol=protocol, port=port, environment=environments[protocol])
    store.start()
    try:
        yield store
    finally:
        store.stop()


@contextmanager
def found(store: ObjectStore) -> Iterator[None]:
    """Clients of this process and of those that it starts find the store."""
    before = {name: os.environ.get(name) for name in store.environment}
    os.environ.update(store.environment)
    fsspec.get_filesystem_class(store.protocol).clear_instance_cache()  # one of another store remembers its address
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
