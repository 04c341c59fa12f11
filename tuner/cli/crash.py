"""The file that an unexpected error leaves behind, without passwords."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote, unquote_plus, urlsplit

from tuner import __version__

_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|ACCESS_?KEY", re.IGNORECASE)
_SECRET_OPTIONS = ("password", "passwd", "sslpassword")
_URL_USER = re.compile(r"(?P<scheme>[a-z][a-z0-9+.\-]*://)[^\s/@'\"]*@", re.IGNORECASE)


def write(error: BaseException) -> Path:
    """Write the traceback of an error to a private file and return its path."""
    text = "\n".join(
        [
            f"tuner {__version__}, Python {platform.python_version()}, {platform.platform()}",
            f"command: {' '.join(sys.argv)}",
            "",
            traceback_of(error),
        ]
    )
    stamp = time.strftime("%Y%m%d-%H%M%S")
    descriptor, name = tempfile.mkstemp(prefix=f"tuner-crash-{stamp}-", suffix=".txt")  # readable by its owner only
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(_without_secrets(text))
    return Path(name)


def traceback_of(error: BaseException) -> str:
    """The traceback of an error, without passwords."""
    return _without_secrets("".join(traceback.format_exception(error)))


def _without_secrets(text: str) -> str:
    return redact(text, secrets=known_secrets(argv=sys.argv, environment=os.environ))


def known_secrets(*, argv: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Texts that must not be shown: passwords in URLs and in the file that is named, values of variables named like secrets."""
    secrets: set[str] = set()
    for text in (*argv, *environment.values()):
        if "://" in text:
            secrets |= _passwords(text.split("=", 1)[1] if text.startswith("--") and "=" in text else text)
    secrets |= {value for name, value in environment.items() if _SECRET_NAME.search(name)}
    if file := environment.get("TUNER_STORAGE_PASSWORD_FILE"):
        with contextlib.suppress(OSError, ValueError):
            secrets.add(Path(file).read_text(encoding="utf-8").strip())
    return sorted((secret for secret in secrets if len(secret) >= 4), key=len, reverse=True)


def _passwords(url: str) -> set[str]:
    try:
        parts = urlsplit(url)
        passwords = {parts.password or ""}
    except ValueError:
        return {url}  # not a URL that can be taken apart: hide all of it
    for option in parts.query.split("&"):  # as libpq allows
        name, _, value = option.partition("=")
        if name in _SECRET_OPTIONS:
            passwords |= {value, unquote_plus(value)}
    return {text for password in passwords for text in (password, unquote(password)) if text}


def redact(text: str, *, secrets: Sequence[str]) -> str:
    """The text without the secrets, and without the user part of any URL."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return _URL_USER.sub(r"\g<scheme>***@", text)
