"""Boxes that can be cut off: network namespaces of this kernel with cables between them, or proxies where those are not allowed."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CLONE_NEWNET = 0x40000000  # <linux/sched.h>
_CHUNK = 65536


class NoNamespaces(Exception):
    """Network namespaces cannot be made here; the text says why."""


class Namespace:
    """A box of its own network and host name, kept by a process that lives as long as ours; gone with it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._keeper = subprocess.Popen(
            ["unshare", "--net", "--uts", "sh", "-c", f"hostname {name} && echo up && exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._keeper.stdout is not None
        if self._keeper.stdout.readline() != "up\n":
            raise NoNamespaces((self._keeper.communicate()[1].strip().splitlines() or ["unshare said nothing"])[-1])
        self.run("ip", "link", "set", "lo", "up")

    @property
    def pid(self) -> int:
        """The process that keeps it."""
        return self._keeper.pid

    @property
    def within(self) -> tuple[str, ...]:
        """What stands before a command that shall run in this box."""
        return ("nsenter", f"--net=/proc/{self.pid}/ns/net", f"--uts=/proc/{self.pid}/ns/uts")

    def run(self, *command: str) -> None:
        """Run a command in it.

        Raises:
            NoNamespaces: If it fails.
        """
        done = subprocess.run([*self.within, *command], capture_output=True, text=True, check=False)
        if done.returncode:
            raise NoNamespaces(f"{' '.join(command)}: {done.stderr.strip()}")

    def close(self) -> None:
        self._keeper.kill()
        self._keeper.communicate()


class Cable:
    """A cable between a box and the database's; ``cut`` pulls it out, ``mend`` puts it in again."""

    def __init__(self, box: Namespace, hub: Namespace, *, number: int) -> None:
        self.box, self._hub, self._end = box, hub, f"to-{box.name}"
        near, far = f"10.99.{number}.2", f"10.99.{number}.1"
        self.address = far  # of the database, as this box sees it
        box.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", self._end, "netns", str(hub.pid))
        box.run("ip", "address", "add", f"{near}/30", "dev", "eth0")
        box.run("ip", "link", "set", "eth0", "up")
        hub.run("ip", "address", "add", f"{far}/30", "dev", self._end)
        self.mend()

    def cut(self) -> None:
        """No packet gets through, and nobody is told."""
        self._hub.run("ip", "link", "set", self._end, "down")

    def mend(self) -> None:
        """As before; what was sent meanwhile and is tried again arrives now."""
        self._hub.run("ip", "link", "set", self._end, "up")


@contextmanager
def network(*names: str) -> Iterator[list[Cable]]:
    """A box for each name, each with a cable to one for the database, in which the calling thread stands meanwhile.

    Raises:
        NoNamespaces: If this machine does not allow it.
    """
    for tool in ("unshare", "nsenter", "ip"):
        if shutil.which(tool) is None:
            raise NoNamespaces(f"{tool} is not installed")
    with contextlib.ExitStack() as stack:
        boxes = []
        for name in ("database", *names):
            boxes.append(Namespace(name))
            stack.callback(boxes[-1].close)
        hub, *others = boxes
        cables = [Cable(box, hub, number=number) for number, box in enumerate(others)]
        with _standing_in(hub):
            yield cables


@contextmanager
def _standing_in(box: Namespace) -> Iterator[None]:
    """The calling thread and what it starts belong to the box's network."""
    with Path("/proc/thread-self/ns/net").open("rb") as home, Path(f"/proc/{box.pid}/ns/net").open("rb") as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(home.fileno())


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET) != 0:
        raise NoNamespaces(os.strerror(ctypes.get_errno()))


class Hose:
    """A TCP proxy that stands for a cable: while it is cut, bytes wait in it and new connections get no answer."""

    within: tuple[str, ...] = ()

    def __init__(self, *, port: int) -> None:
        self._server_port = port
        self._is_whole = threading.Event()
        self._is_whole.set()
        self._is_closed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """No byte gets through, and nobody is told."""
        self._is_whole.clear()

    def mend(self) -> None:
        """As before; what was sent meanwhile arrives now."""
        self._is_whole.set()

    def close(self) -> None:
        self._is_closed = True
        self.mend()
        for one in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        self._sockets.append(client)
        self._is_whole.wait()
        if self._is_closed:
            return
        server = socket.create_connection(("127.0.0.1", self._server_port))
        self._sockets.append(server)
        threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
        self._forward(server, client)

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(_CHUNK):
                self._is_whole.wait()
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextmanager
def hoses(*, port: int, number: int) -> Iterator[list[Hose]]:
    """So many proxies before one port of this machine."""
    made = [Hose(port=port) for _ in range(number)]
    try:
        yield made
    finally:
        for one in made:
            one.close()
