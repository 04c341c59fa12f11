"""TCP proxies before a database: one cuts connections at the worst moment, around a commit; one is a bad network."""

from __future__ import annotations

import contextlib
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

COMMIT = re.compile(rb"COMMIT(?!TED)")  # as both PostgreSQL's and MySQL's clients send it; not READ COMMITTED


class _Proxy:
    """Listens beside a server of this machine and hands every connection on, with one to the server."""

    def __init__(self, *, port: int, seed: int) -> None:
        self._server_port = port
        self._random = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._sockets: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for one in self._sockets:
            _cut(one)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._sockets += [client, server]
                threading.Thread(target=self._to_server, args=(client, server), daemon=True).start()
                threading.Thread(target=self._to_client, args=(server, client), daemon=True).start()

    def _to_server(self, client: socket.socket, server: socket.socket) -> None:
        raise NotImplementedError

    def _to_client(self, server: socket.socket, client: socket.socket) -> None:
        raise NotImplementedError

    @staticmethod
    def _forward(source: socket.socket, target: socket.socket, *, is_last: Callable[[bytes], bool]) -> None:
        """Hand bytes on until one side closes, or until some are the last, which are not handed on."""
        with contextlib.suppress(OSError):
            while (data := source.recv(65536)) and not is_last(data):
                target.sendall(data)
        _cut(source)
        _cut(target)


class CuttingProxy(_Proxy):
    """Forwards bytes; while it is armed, some commits are cut: half before the server hears, half before it is heard."""

    def __init__(self, *, port: int, share: float, seed: int = 0) -> None:
        self.cuts_before = self.cuts_after = 0
        self.is_armed = False
        self._share = share
        self._answers: dict[socket.socket, threading.Event] = {}
        super().__init__(port=port, seed=seed)

    def _to_server(self, client: socket.socket, server: socket.socket) -> None:
        def _is_cut(data: bytes) -> bool:
            if not (self.is_armed and COMMIT.search(data) and self._random.random() < self._share):
                return False
            if self._random.random() < 0.5:
                self.cuts_before += 1
            else:
                self.cuts_after += 1
                answered = self._answers[server] = threading.Event()
                server.sendall(data)
                answered.wait(5.0)  # the commit took effect, and nobody hears of it
            return True

        self._forward(client, server, is_last=_is_cut)

    def _to_client(self, server: socket.socket, client: socket.socket) -> None:
        def _is_swallowed(_data: bytes) -> bool:
            answered = self._answers.get(server)
            if answered is not None:
                answered.set()
            return answered is not None

        self._forward(server, client, is_last=_is_swallowed)


class BadNetwork(_Proxy):
    """Forwards bytes late, resets connections by chance, or swallows everything for a while and delivers it then."""

    def __init__(self, *, port: int, seconds: float = 0.0, resets: float = 0.0, seed: int = 0) -> None:
        """Everything is forwarded.

        Args:
            port: Of the server.
            seconds: For a way there and back.
            resets: Share of the client's messages that are answered by a reset.
            seed: Of the chance.
        """
        self.resets = 0
        self._seconds = seconds / 2
        self._share = resets
        self._is_open = threading.Event()
        self._is_open.set()
        super().__init__(port=port, seed=seed)

    def close(self) -> None:
        self._is_open.set()
        super().close()

    @contextmanager
    def swallowing(self) -> Iterator[None]:
        """Nothing gets through, and nobody is told."""
        self._is_open.clear()
        try:
            yield
        finally:
            self._is_open.set()

    def _to_server(self, client: socket.socket, server: socket.socket) -> None:
        self._pass(client, server, self._share)

    def _to_client(self, server: socket.socket, client: socket.socket) -> None:
        self._pass(server, client, 0.0)

    def _pass(self, source: socket.socket, target: socket.socket, resets: float) -> None:
        def _is_reset(_data: bytes) -> bool:
            time.sleep(self._seconds)
            self._is_open.wait()
            if not resets or self._random.random() >= resets:
                return False
            self.resets += 1
            _reset(source, target)
            return True

        self._forward(source, target, is_last=_is_reset)


class OneReset(_Proxy):
    """Forwards bytes, and answers one message of the client by a reset: the so-and-so-manieth of all, whatever connection it is on."""

    def __init__(self, *, port: int, at: int, is_heard: bool, then: Callable[[], object]) -> None:
        """Everything is forwarded until then, and afterwards.

        Args:
            port: Of the server.
            at: 1: the first message of the first connection.
            is_heard: Whether the server hears the message and answers, and only the answer is lost.
            then: Called before the reset.
        """
        self.messages = 0
        self._at = at
        self._is_heard = is_heard
        self._then = then
        self._lock = threading.Lock()
        self._last: socket.socket | None = None
        super().__init__(port=port, seed=0)

    def _to_server(self, client: socket.socket, server: socket.socket) -> None:
        def _is_it(_data: bytes) -> bool:
            with self._lock:
                self.messages += 1
                is_it = self.messages == self._at
            if is_it and self._is_heard:
                self._last = server
                return False
            if is_it:
                self._end(client, server)
            return is_it

        self._forward(client, server, is_last=_is_it)

    def _to_client(self, server: socket.socket, client: socket.socket) -> None:
        def _is_it(_data: bytes) -> bool:
            is_it = self._last is server
            if is_it:
                self._end(client, server)
            return is_it

        self._forward(server, client, is_last=_is_it)

    def _end(self, client: socket.socket, server: socket.socket) -> None:
        self._then()
        _reset(client, server)


def _reset(*sockets: socket.socket) -> None:
    """Let the kernel send a reset instead of an end."""
    for one in sockets:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _cut(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()


@contextmanager
def cutting_proxy(*, port: int, share: float) -> Iterator[CuttingProxy]:
    """A proxy before a port of this machine."""
    proxy = CuttingProxy(port=port, share=share)
    try:
        yield proxy
    finally:
        proxy.close()


@contextmanager
def one_reset(*, port: int, at: int, is_heard: bool, then: Callable[[], object] = lambda: None) -> Iterator[OneReset]:
    """A proxy before a port of this machine."""
    proxy = OneReset(port=port, at=at, is_heard=is_heard, then=then)
    try:
        yield proxy
    finally:
        proxy.close()


@contextmanager
def bad_network(*, port: int, seconds: float = 0.0, resets: float = 0.0) -> Iterator[BadNetwork]:
    """A bad network before a port of this machine."""
    network = BadNetwork(port=port, seconds=seconds, resets=resets)
    try:
        yield network
    finally:
        network.close()
