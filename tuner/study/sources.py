"""Where models and data come from: a path, a resource of an installed package, or the hub.

``package://DISTRIBUTION/PATH`` names a file or folder that an installed Python package brings; the package is never
imported, only its installed files are read. ``hub://OWNER/NAME?split=train`` names a data set on the Hugging Face hub.
"""

from __future__ import annotations

import importlib.metadata
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import parse_qs, urlsplit

from tuner.errors import DataError
from tuner.study.names import did_you_mean, nearest

PACKAGE = "package://"
HUB = "hub://"

_HUB_OPTIONS = ("split", "config", "revision")
_HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class HubSource:
    """Rows of a hub data set.

    Attributes:
        name: The data set's id, such as ``stanfordnlp/imdb``.
        split: Which split.
        config: Which configuration (subset), None for the data set's default.
        revision: Branch, tag or commit, None for the newest.
    """

    name: str
    split: str = "train"
    config: str | None = None
    revision: str | None = None


def is_hub(uri: str) -> bool:
    """Whether a source is a hub data set."""
    return uri.startswith(HUB)


def is_package(uri: str) -> bool:
    """Whether a source is a resource of an installed package."""
    return uri.startswith(PACKAGE)


def is_hub_name(name: str) -> bool:
    """Whether a name has the form of a hub id: ``NAME`` or ``OWNER/NAME``."""
    return _HUB_NAME.fullmatch(name) is not None


def parse_hub(uri: str) -> HubSource:
    """The parts of ``hub://OWNER/NAME?split=train&config=plain_text&revision=COMMIT``.

    Raises:
        DataError: If the address is not of that form.
    """
    example = "write hub://OWNER/NAME?split=train"
    try:
        parts = urlsplit(uri)
        options = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError as error:
        raise DataError(f'"{uri}" is no address of a hub data set', fix=example) from error
    name = f"{parts.netloc}{parts.path}".rstrip("/")
    if not is_hub(uri) or not is_hub_name(name) or parts.fragment:
        raise DataError(f'"{uri}" is no address of a hub data set', fix=example)
    for key, values in options.items():
        if key not in _HUB_OPTIONS:
            raise DataError(f'"{uri}": unknown option "{key}"{did_you_mean(key, _HUB_OPTIONS)}')
        if len(values) != 1 or not values[0]:
            raise DataError(f'"{uri}": option "{key}" needs one value', fix=example)
    chosen = {key: values[0] for key, values in options.items()}
    return HubSource(
        name=name,
        split=chosen.get("split", "train"),
        config=chosen.get("config"),
        revision=chosen.get("revision"),
    )


def split_package(uri: str) -> tuple[str, str]:
    """The distribution and the path of ``package://DISTRIBUTION/PATH``.

    Raises:
        DataError: If the address is not of that form, or the path leaves the package.
    """
    distribution, _, path = uri.removeprefix(PACKAGE).partition("/")
    steps = PurePosixPath(path).parts
    if (
        not is_package(uri)
        or not is_hub_name(distribution)
        or not steps
        or steps[0] == "/"
        or ".." in steps
        or "\0" in path
    ):
        raise DataError(f'"{uri}" is no address of a package\'s file', fix="write package://DISTRIBUTION/PATH")
    return distribution, path


def resolve_package(uri: str) -> Path:
    """The file or folder that ``package://DISTRIBUTION/PATH`` names on this machine.

    Raises:
        DataError: If the address is malformed, the distribution is not installed, or it has no such file.
    """
    distribution, path = split_package(uri)
    try:
        found = Path(str(importlib.metadata.distribution(distribution).locate_file(path)))
    except importlib.metadata.PackageNotFoundError:
        raise DataError(
            f'"{uri}" cannot be found',
            why=f'the Python package "{distribution}" is not installed',
            fix=_near_distribution(distribution),
        ) from None
    if not found.exists():
        raise DataError(f'"{uri}" cannot be found', why=f'the package "{distribution}" has no file or folder {path}')
    return found


def _near_distribution(name: str) -> str:
    """What to do about a package that is not installed; never to install a name that may be misspelt."""
    # The metadata of a broken installation may lack the name.
    names: list[str | None] = [found.metadata["Name"] for found in importlib.metadata.distributions()]
    near = nearest(name, sorted({found for found in names if found}))
    return f'did you mean "{near}"?' if near else "check the name, and install it if you trust it"


def local_path(source: str) -> Path:
    """The path of a source that is a file path or a package's resource.

    Raises:
        DataError: If a package's resource cannot be found.
        ValueError: If the source is on the hub.
    """
    if is_hub(source):
        raise ValueError(source)
    return resolve_package(source) if is_package(source) else Path(source).expanduser()
