"""Places: a folder, written as its path, or a folder in an object store, written as its URL."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from tuner.errors import ConfigurationError

_LOCAL = frozenset({"file", "local"})


def is_url(place: str) -> bool:
    """Whether a place is in an object store."""
    return "://" in place


def parse_place(text: str) -> str:
    """A place as it is passed on and stored: an absolute path, or a URL without a slash at its end.

    Args:
        text: A path, or the URL of a folder such as ``s3://bucket/tuner``.

    Raises:
        ConfigurationError: If it is no URL of a folder, or holds a password: places are stored in the database.
    """
    if not is_url(text):
        return str(Path(text).expanduser().absolute())
    example = "write for example s3://bucket/tuner or gs://bucket/tuner"
    try:
        parts = urlsplit(text)
        has_password = bool(parts.password)
    except ValueError as error:
        raise ConfigurationError("checkpoints: not a URL", fix=example) from error
    if has_password:  # never repeated here
        raise ConfigurationError(
            "checkpoints: the URL holds a password",
            why="it is stored in the database and shown in reports",
            fix="give credentials as the vendor's tools take them, for example AWS_PROFILE",
        )
    if parts.query or parts.fragment or "::" in text or not parts.scheme:
        plain = text.partition("?")[0]  # what follows may be a key
        raise ConfigurationError(f"checkpoints: {plain} is not the URL of a folder", fix=example)
    if parts.scheme == "memory":
        raise ConfigurationError("checkpoints: memory:// is gone with the process that writes to it", fix=example)
    if parts.scheme in _LOCAL:
        return str(Path(unquote(parts.path)).absolute())
    if not parts.netloc + parts.path.strip("/"):
        raise ConfigurationError(f"checkpoints: {text} names no bucket", fix=example)
    return text.rstrip("/")


def join(place: str, *names: str) -> str:
    """A place below another one."""
    return "/".join((place.rstrip("/"), *names))
