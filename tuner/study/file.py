"""The study file: YAML in, a valid :class:`StudySpec` out, or every mistake at once with its line and column."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tuner.errors import Problem, StudyFileError
from tuner.study.aims import with_goals
from tuner.study.catalogue import Catalogue
from tuner.study.document import MAX_BYTES, read_document
from tuner.study.messages import shown, spec_problems
from tuner.study.names import did_you_mean
from tuner.study.rules import is_path, rule_problems
from tuner.study.sources import is_hub, is_package
from tuner.study.spec import StudySpec


def load_study_file(path: Path | str, *, catalogue: Catalogue) -> StudySpec:
    """Read and check a study file.

    Args:
        path: The file.
        catalogue: Tasks and strategies that exist.

    Returns:
        The study; relative paths in it are now absolute, taken as relative to the file.

    Raises:
        StudyFileError: All mistakes, in the order of the file.
    """
    place = Path(path)
    return parse_study(_read(place), source=str(path), base=place.resolve().parent, catalogue=catalogue)


def parse_study(text: str, *, source: str, base: Path, catalogue: Catalogue) -> StudySpec:
    """Check the text of a study file.

    Args:
        text: YAML.
        source: The file's name in messages.
        base: Folder to which relative paths are relative.
        catalogue: Tasks and strategies that exist.

    Raises:
        StudyFileError: All mistakes, in the order of the text.
    """
    document = read_document(text, source=source)
    spec, found = _validate(document.data, catalogue=catalogue, base=base)
    problems = list(document.problems)
    told = {(problem.line, problem.column) for problem in problems}
    located = [document.locate(problem) for problem in found]
    problems += [problem for problem in located if (problem.line, problem.column) not in told]
    if problems or spec is None:
        raise StudyFileError(problems, source=source)
    return spec


def validate_study(data: Mapping[str, Any], *, catalogue: Catalogue, base: Path | None = None) -> StudySpec:
    """Check a study that a program wrote as a mapping of the study file's keys.

    Args:
        data: Plain data; paths may be :class:`pathlib.Path`.
        catalogue: Tasks and strategies that exist.
        base: Folder to which relative paths are relative; default: the current one.

    Raises:
        StudyFileError: All mistakes, without lines.
    """
    spec, problems = _validate(_plain(data), catalogue=catalogue, base=(base or Path.cwd()).resolve())
    if problems or spec is None:
        raise StudyFileError(problems)
    return spec


def locate(problems: Iterable[Problem], *, path: Path | str) -> tuple[Problem, ...]:
    """The problems that a later check found in a study, with the lines and columns of its file.

    Args:
        problems: Problems with dotted keys.
        path: The study file they are about.

    Raises:
        StudyFileError: If the file cannot be read any more.
    """
    document = read_document(_read(Path(path)), source=str(path))
    return tuple(document.locate(problem) for problem in problems)


def _validate(data: Any, *, catalogue: Catalogue, base: Path) -> tuple[StudySpec | None, list[Problem]]:
    if not isinstance(data, Mapping):
        message = f'a study file is a block of "key: value" lines, got {shown(data)}'
        return None, [Problem(key="", message=message)]
    spec: StudySpec | None = None
    problems: list[Problem] = []
    try:
        spec = StudySpec.model_validate(data)
    except ValidationError as error:
        problems = spec_problems(error.errors(include_url=False))
    said = {problem.key for problem in problems}
    problems += [rule for rule in rule_problems(data, catalogue=catalogue, base=base) if rule.key not in said]
    return (None if spec is None or problems else _absolute(with_goals(spec, catalogue=catalogue), base)), problems


def _absolute(spec: StudySpec, base: Path) -> StudySpec:
    """The study with paths that mean the same wherever it is read."""
    paths: dict[str, str] = {}
    for name in ("train", "validation", "test"):
        source = getattr(spec.data, name)
        if isinstance(source, str) and not is_hub(source) and not is_package(source):
            paths[name] = _join(base, source)
    changed: dict[str, Any] = {"data": spec.data.model_copy(update=paths)}
    if is_path(spec.model, base=base):
        changed["model"] = _join(base, spec.model)
    if spec.distill is not None and is_path(spec.distill.teacher, base=base):
        changed["distill"] = spec.distill.model_copy(update={"teacher": _join(base, spec.distill.teacher)})
    return spec.model_copy(update=changed)


def _join(base: Path, path: str) -> str:
    return os.path.normpath(base / Path(path).expanduser())


def _plain(value: Any) -> Any:
    """Data as a YAML file could hold it: text keys, lists, paths as text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        siblings = [str(other) for other in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
        raise _unreadable(path, f"no such file{did_you_mean(str(path), siblings)}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise _unreadable(path, f"cannot be read ({reason})") from None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if len(data) > MAX_BYTES:
            raise _unreadable(path, "the file is larger than 1 MiB; refused") from None
        where = f"byte 0x{data[error.start]:02x} at {error.start}"
        raise _unreadable(path, f"the file is not UTF-8 ({where}); save it as UTF-8") from None


def _unreadable(path: Path, message: str) -> StudyFileError:
    return StudyFileError([Problem(key="", message=message)], source=str(path))
