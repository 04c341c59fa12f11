"""What the guard lets through, and what it says to the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.dashboard.guard import guard, host_name

WRITING = ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get", "PROPFIND")


class Answer:
    """A status, headers and a body."""

    def __init__(self, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        self.status = int(status.split(maxsplit=1)[0])
        self.headers = {name.lower(): value for name, value in headers}
        self.body = body


def ask(
    method: str = "GET",
    *,
    path: str = "/",
    host: str | None = "127.0.0.1:8080",
    more: Mapping[str, str] | None = None,
    names: Iterable[str] = (),
    allow_write: bool = False,
) -> tuple[Answer, list[str]]:
    """One request to a guarded application; the second value has the verbs that reached it."""
    reached: list[str] = []

    def _inner(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        reached.append(environ["REQUEST_METHOD"])
        start_response("200 OK", [("Content-Type", "text/html"), ("Access-Control-Allow-Origin", "*"), ("Server", "x")])
        return [b"hello"]

    environ: dict[str, Any] = {"REQUEST_METHOD": method, "PATH_INFO": path, **(more or {})}
    if host is not None:
        environ["HTTP_HOST"] = host
    started: list[Any] = []

    def _start(*words: Any) -> Callable[[bytes], object]:
        started.append(words)
        return bytes

    app = guard(_inner, names=names, allow_write=allow_write)
    body = b"".join(app(environ, _start))
    return Answer(started[0][0], started[0][1], body), reached


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reading_passes(method: str) -> None:
    answer, reached = ask(method)
    assert answer.status == 200
    assert reached == [method]


@pytest.mark.parametrize("method", WRITING)
def test_every_other_verb_is_refused_with_a_reason(method: str) -> None:
    answer, reached = ask(method, path="/api/studies")
    assert answer.status == 403
    assert reached == []
    assert "--allow-write" in json.loads(answer.body)["reason"]
    assert answer.headers["allow"] == "GET, HEAD"


def test_pages_are_refused_in_plain_words() -> None:
    answer, _ = ask("POST", path="/dashboard")
    assert answer.headers["content-type"].startswith("text/plain")
    assert b"read-only" in answer.body


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:80", "127.0.0.1", "[::1]:8080", "192.168.1.7:8080", "tuner.example.org."]
)
def test_own_names_and_addresses_pass(host: str) -> None:
    answer, _ = ask(host=host, names=("Tuner.Example.ORG",))
    assert answer.status == 200


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "evil@localhost.x",
        "[::1",
        "a b",
        "x\x00",
    ],
)
def test_other_names_are_misdirected(host: str | None) -> None:
    answer, reached = ask(host=host)
    assert answer.status == 421
    assert reached == []


@given(st.text(max_size=80))
def test_no_host_header_breaks_the_guard(host: str) -> None:
    answer, _ = ask(host=host)
    assert answer.status in {200, 421}
    assert host_name(host) == host_name(host).lower()


def test_every_answer_says_that_it_may_not_be_framed_sniffed_or_shared() -> None:
    for answer in (ask()[0], ask("POST")[0], ask(host="evil.example")[0]):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in answer.headers
        assert "server" not in answer.headers


def test_writing_passes_when_it_is_allowed() -> None:
    answer, reached = ask("DELETE", allow_write=True)
    assert answer.status == 200
    assert reached == ["DELETE"]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"HTTP_ORIGIN": "http://127.0.0.1:8080"}, 200),
        ({"HTTP_ORIGIN": "http://127.0.0.1:9999"}, 403),
        ({"HTTP_ORIGIN": "http://evil.example"}, 403),
        ({"HTTP_ORIGIN": "null"}, 403),
        ({"HTTP_SEC_FETCH_SITE": "cross-site"}, 403),
        ({"HTTP_SEC_FETCH_SITE": "same-site"}, 403),
        ({"HTTP_SEC_FETCH_SITE": "same-origin"}, 200),
    ],
)
def test_pages_of_other_origins_may_not_write(headers: dict[str, str], status: int) -> None:
    answer, reached = ask("POST", more=headers, allow_write=True)
    assert answer.status == status
    assert reached == (["POST"] if status == 200 else [])


def test_head_has_no_body() -> None:
    assert ask("HEAD", host="evil.example")[0].body == b""
