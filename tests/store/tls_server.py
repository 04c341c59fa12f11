"""TLS before a PostgreSQL server that has none: the wheel's is built without, while libpq's side is the real one."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)
_CHUNK = 65536


@contextmanager
def tls_before(port: int, *, certificate: Path, key: Path) -> Iterator[int]:
    """The port of a proxy that answers PostgreSQL's request for TLS with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, port, context), daemon=True).start()
        yield int(listener.getsockname()[1])
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, port: int, context: ssl.SSLContext) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_serve, args=(client, port, context), daemon=True).start()


def _serve(client: socket.socket, port: int, context: ssl.SSLContext) -> None:
    with contextlib.suppress(OSError), client:  # an SSLError is one, too: the client has hung up
        while client.recv(8, socket.MSG_WAITALL) != _SSL_REQUEST:
            client.sendall(b"N")  # encryption by Kerberos: no
        client.sendall(b"S")
        with (
            context.wrap_socket(client, server_side=True) as speaking,
            socket.create_connection(("127.0.0.1", port)) as server,
        ):
            threading.Thread(target=_forward, args=(server, speaking), daemon=True).start()
            _forward(speaking, server)


def _forward(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(_CHUNK):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
