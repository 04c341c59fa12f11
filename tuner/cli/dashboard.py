"""``tuner dashboard``: the studies in a browser."""

from __future__ import annotations

import signal
import sys
from typing import Annotated

import typer

from tuner.cli.options import Storage
from tuner.cli.output import message


def serve(
    *,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", min=0, max=65535, help="port; 0: any free one")] = 8080,
    allow_write: Annotated[bool, typer.Option("--allow-write", help="let visitors change and delete studies")] = False,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", metavar="NAME", show_default=False, help="a further name of this server"),
    ] = None,
    storage: Storage = None,
) -> None:
    """Show the studies in a browser with the Optuna dashboard, read-only, until Ctrl-C.

    It has no login: it listens on this machine only. For others, put a proxy with a login in front of it.

    \b
    Examples:
      tuner dashboard
      tuner dashboard --port 9000 --storage postgresql://viewer@db/tuner
      tuner dashboard --host 0.0.0.0 --allowed-host tuner.example.org
    """
    from tuner.dashboard.server import DashboardServer, is_loopback
    from tuner.store import location

    if not is_loopback(host):
        message(f"warning: {host} is reachable from other machines, and there is no login: use a proxy that has one")
    server = DashboardServer(
        location.storage_url(storage),
        host=host,
        port=port,
        allow_write=allow_write,
        allowed_hosts=tuple(allowed_host or ()),
    )
    # Inside a container this may be process 1, which no signal ends by default.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    mode = "visitors may change and delete studies" if allow_write else "read-only"
    message(f"dashboard of {server.safe_url}: {server.url} ({mode}; Ctrl-C stops it)")
    server.serve()
