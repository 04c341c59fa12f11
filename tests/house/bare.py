"""Makes Python see what tuner declares as its dependencies, and nothing else that is installed.

:func:`write_site` writes a ``sitecustomize.py``: every process with its folder on PYTHONPATH, and every process that it starts,
imports and finds only distributions that tuner's own requirements (without extras) need, directly or through others.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

SITE = """\
import importlib.metadata
from importlib.machinery import PathFinder

HIDDEN_MODULES = {modules!r}
HIDDEN_NAMES = {names!r}

def find_spec(name, path=None, target=None, *, found=PathFinder.find_spec):
    return None if path is None and name in HIDDEN_MODULES else found(name, path, target)

def from_name(name, *, found=importlib.metadata.Distribution.from_name):
    if name.lower().replace("_", "-").replace(".", "-") in HIDDEN_NAMES:
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)

PathFinder.find_spec = staticmethod(find_spec)
importlib.metadata.Distribution.from_name = staticmethod(from_name)
"""


def canonical(name: str) -> str:
    """A distribution's name as indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(root: str = "tuner") -> set[str]:
    """The distributions that an installation without extras brings, by their canonical names."""
    seen: set[tuple[str, str]] = set()
    waiting = [(root, "")]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # another platform's
        seen.add((name, extra))
        for requirement in map(Requirement, requirements):
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                waiting += [(canonical(requirement.name), part) for part in ("", *requirement.extras)]
    return {name for name, _ in seen}


def write_site(folder: Path) -> set[str]:
    """Write the module that hides all else.

    Args:
        folder: Goes onto PYTHONPATH.

    Returns:
        The distributions that are hidden.
    """
    kept = declared() | {"pip", "setuptools"}
    hidden = {canonical(found.name) for found in metadata.distributions()} - kept
    modules = {
        module
        for module, names in metadata.packages_distributions().items()
        if hidden.issuperset(canonical(name) for name in names)
    }
    text = SITE.format(modules=modules, names=hidden)
    (folder / "sitecustomize.py").write_text(text, encoding="utf-8")
    return hidden
