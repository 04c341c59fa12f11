"""The page that is shown while there is nothing to show: it says why and what to do, and looks again by itself."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIEnvironment

REFRESH_SECONDS = 5

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="{refresh}">
<title>tuner: {title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.6 system-ui, sans-serif; max-width: 38rem; margin: 15vh auto 0; padding: 0 1.25rem; }}
h1 {{ font-size: 1.4rem; }}
pre {{ padding: .8rem 1rem; border: 1px solid GrayText; border-radius: .4rem; overflow-x: auto; }}
small {{ color: GrayText; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{text}</p>
{commands}
<small>This page looks again every {refresh} seconds.</small>
</body>
</html>
"""


def answer(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    *,
    status: str,
    title: str,
    text: str,
    commands: tuple[str, ...] = (),
) -> Iterable[bytes]:
    """Answer a request with a page, or with JSON under ``/api``.

    Args:
        environ: The request.
        start_response: As in WSGI.
        status: HTTP status line.
        title: What is the case.
        text: Why.
        commands: What to run now, one a line.
    """
    if str(environ.get("PATH_INFO", "")).startswith("/api"):
        # Optuna's own pages ask here; an error tells them to try again.
        status, kind = "503 Service Unavailable", "application/json"
        body = json.dumps({"reason": f"{title}: {text}"}).encode()
    else:
        kind = "text/html; charset=utf-8"
        shown = html.escape("\n".join(commands))
        body = _PAGE.format(
            refresh=REFRESH_SECONDS,
            title=html.escape(title),
            text=html.escape(text),
            commands=f"<pre>{shown}</pre>" if shown else "",
        ).encode()
    headers = [
        ("Content-Type", kind),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'"),
    ]
    start_response(status, headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
