"""The HTTP server of the dashboard."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from waitress import wasyncore
from waitress.server import create_server

from tuner.dashboard.guard import guard
from tuner.dashboard.studies import StudiesApp
from tuner.errors import UnavailableError
from tuner.store.location import parse_url, shown

_THREADS = 4


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class DashboardServer:
    """The dashboard, bound to its address; :meth:`serve` answers requests."""

    def __init__(
        self, storage: str, *, host: str, port: int, allow_write: bool = False, allowed_hosts: tuple[str, ...] = ()
    ) -> None:
        """Bind the address, so that a port in use is said before anything else.

        Args:
            storage: Database URL; it stays in this process.
            host: Address to listen on.
            port: Port; 0 for any free one.
            allow_write: Let visitors change and delete studies.
            allowed_hosts: Names of this server beside ``localhost``, plain addresses and ``host``.

        Raises:
            ConfigurationError: If the URL is wrong.
            UnavailableError: If the address cannot be had.
        """
        self.safe_url = shown(parse_url(storage))
        self._studies = StudiesApp(storage, allow_write=allow_write)
        self._socket = _bound(host, port)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"
        self._channels: dict[int, Any] = {}
        self._server: Any = create_server(
            guard(self._studies, names=(host, *allowed_hosts), allow_write=allow_write),
            map=self._channels,
            sockets=[self._socket],
            threads=_THREADS,
            ident=None,
        )

    def serve(self) -> None:
        """Answer requests until :meth:`stop` or Ctrl-C."""
        try:
            self._server.run()
        finally:
            self._server.task_dispatcher.shutdown()
            wasyncore.close_all(self._channels)
            self._studies.close()

    def stop(self) -> None:
        """Let :meth:`serve` return; for other threads."""
        # Only the serving thread may close what it polls.
        self._server.trigger.pull_trigger(lambda: wasyncore.close_all(self._channels))


def _bound(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except (OSError, OverflowError):
            listener.close()
            raise
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UnavailableError(f"cannot listen on {host}:{port}", why=why, fix="choose another --port") from error
    return listener
