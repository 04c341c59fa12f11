"""What stands between a browser and Optuna's dashboard, which has no login and lets anyone write.

Only reading verbs pass unless writing was allowed; only requests for our own names pass, so that a web page elsewhere
cannot reach the dashboard by re-pointing its own name at this machine (DNS rebinding); and every answer says that it may not
be framed, sniffed or read from another origin.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

READING = frozenset({"GET", "HEAD"})
_OWN_NAMES = frozenset({"localhost", "ip6-localhost"})
_OTHERS_HEADERS = frozenset({"access-control-allow-origin", "x-frame-options", "server"})

Headers = list[tuple[str, str]]


def guard(app: WSGIApplication, *, names: Iterable[str] = (), allow_write: bool = False) -> WSGIApplication:
    """Wrap a WSGI application.

    Args:
        app: The application.
        names: Names of this server beside ``localhost`` and plain addresses.
        allow_write: Let all verbs through, from pages of our own origin.
    """
    allowed = _OWN_NAMES | {name.lower().rstrip(".") for name in names}

    def _guarded(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        host = host_name(environ.get("HTTP_HOST", ""))
        if not _is_ours(host, allowed):
            text = "this server does not go by that name; start it with --allowed-host NAME"
            return refuse(environ, start_response, status="421 Misdirected Request", text=text)
        if environ["REQUEST_METHOD"] not in READING:
            if not allow_write:
                text = "this dashboard is read-only; start it with --allow-write to change studies"
                return refuse(environ, start_response, status="403 Forbidden", text=text)
            if not _from_own_page(environ):
                text = "pages of other origins may not change anything"
                return refuse(environ, start_response, status="403 Forbidden", text=text)
        return app(environ, _with_safe_headers(start_response))

    return _guarded


def host_name(header: str) -> str:
    """The name or address in a ``Host`` header, without its port, lower case; empty if there is none."""
    try:
        return (urlsplit(f"//{header}").hostname or "").lower().rstrip(".")  # it leaves what follows a % as it is
    except ValueError:
        return ""


def _is_ours(host: str, allowed: frozenset[str]) -> bool:
    if host in allowed:
        return True
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True  # an attacker can re-point a name, never an address


def _from_own_page(environ: WSGIEnvironment) -> bool:
    if environ.get("HTTP_SEC_FETCH_SITE", "same-origin") not in {"same-origin", "none"}:
        return False
    origin = environ.get("HTTP_ORIGIN")
    if origin is None:
        return True  # no browser, or a browser that does not tell: it sends one with every cross-origin write
    return bool(urlsplit(origin).netloc.lower() == str(environ.get("HTTP_HOST", "")).lower())


def refuse(environ: WSGIEnvironment, start_response: StartResponse, *, status: str, text: str) -> Iterable[bytes]:
    """Answer with one line: JSON under ``/api``, as Optuna's dashboard does, plain text elsewhere."""
    is_api = str(environ.get("PATH_INFO", "")).startswith("/api")
    body = (json.dumps({"reason": text}) if is_api else text + "\n").encode()
    kind = "application/json" if is_api else "text/plain; charset=utf-8"
    headers = [("Content-Type", kind), ("Content-Length", str(len(body))), *_SAFE]
    if status.startswith("403"):
        headers.append(("Allow", "GET, HEAD"))
    start_response(status, headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


_SAFE: Headers = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    # A second policy beside the application's own: a browser obeys both.
    ("Content-Security-Policy", "frame-ancestors 'none'; base-uri 'self'; form-action 'self'"),
]


def _with_safe_headers(start_response: StartResponse) -> StartResponse:
    def _start(status: str, headers: Headers, exc_info: Any = None, /) -> Callable[[bytes], object]:
        kept = [(name, value) for name, value in headers if name.lower() not in _OTHERS_HEADERS]
        return start_response(status, kept + _SAFE, exc_info)

    return _start
