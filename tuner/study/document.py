"""A YAML text as plain data that remembers where every key and value stands.

Only what a study file needs: mappings with text keys, lists, and the scalars of YAML 1.2 (so ``1e-4`` is a number and
``no`` is a word). Tags are refused, duplicate keys are refused, and size, depth and alias expansion are bounded, so
that no text can run code or exhaust memory.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from tuner.errors import Problem, StudyFileError
from tuner.study.names import printable

MAX_BYTES = 1024 * 1024
MAX_NODES = 10_000
MAX_DEPTH = 50


@dataclass(frozen=True, kw_only=True, slots=True)
class KeyProblem(Problem):
    """A mistake in the key itself, not in its value: it is shown where the key stands."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """Where a key and its value start; lines and columns count from 1."""

    key: tuple[int, int]
    value: tuple[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Document:
    """The data of a YAML text.

    Attributes:
        data: Mappings, lists and scalars.
        positions: Where each dotted key stands, list items by their number.
        problems: Mistakes that did not stop the reading, such as duplicate keys.
    """

    data: Any
    positions: dict[str, Position] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def locate(self, problem: Problem) -> Problem:
        """The problem with line and column: of its key if that is there, else of the nearest section around it."""
        if problem.line:
            return problem
        key = problem.key
        if key in self.positions:
            position = self.positions[key]
            line, column = position.key if isinstance(problem, KeyProblem) else position.value
            return replace(problem, line=line, column=column)
        while key and key not in self.positions:
            key = key.rpartition(".")[0]
        line, column = self.positions[key].key if key in self.positions else (1, 1)
        return replace(problem, line=line, column=column)


def read_document(text: str, *, source: str) -> Document:
    """Read one YAML document.

    Args:
        text: The file's text.
        source: The file's name in messages.

    Raises:
        StudyFileError: If the text is no YAML that a study file may use.
    """
    if len(text.encode("utf-8", errors="surrogatepass")) > MAX_BYTES:
        raise _refused("the file is larger than 1 MiB; refused", source=source)
    if text.startswith("\ufeff"):
        raise _refused("the file starts with a byte order mark; save it as UTF-8 without one", source=source, at=(1, 1))
    try:
        node = _Loader(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        raise _refused(_plain(error), source=source, at=_place(error, text)) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - text.rfind("\n", 0, error.position)
        message = f"the character U+{ord(text[error.position]):04X} is not allowed in YAML; remove it"
        raise _refused(message, source=source, at=(line, column)) from None
    if node is None:
        raise _refused("the file is empty; see studies/quickstart.yaml for an example", source=source)
    document = Document(data=None, positions={"": Position(key=(1, 1), value=(1, 1))})
    return replace(document, data=_Builder(document, source=source).build(node, "", ()))


def _refused(message: str, *, source: str, at: tuple[int, int] = (0, 0)) -> StudyFileError:
    return StudyFileError([Problem(key="", message=message, line=at[0], column=at[1])], source=source)


class _Loader(yaml.SafeLoader):
    """PyYAML's composer with bounds, without tags, and with the scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, list[Any]] = {}  # noqa: RUF012 - PyYAML's way to configure a loader class

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._nodes = 0
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(problem="YAML tags are not allowed; remove it", problem_mark=event.start_mark)
        self._nodes += 1
        self._depth += 1
        if self._nodes > MAX_NODES:
            raise yaml.MarkedYAMLError(problem=_TOO_MANY, problem_mark=event.start_mark)
        if self._depth > MAX_DEPTH:
            message = f"nested more than {MAX_DEPTH} levels deep; refused"
            raise yaml.MarkedYAMLError(problem=message, problem_mark=event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


_TOO_MANY = f"the file expands to more than {MAX_NODES:,} values; refused"
_NULL, _BOOL, _INT, _FLOAT = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))
_NUMBER_STARTS = list("-+0123456789.")

for _tag, _pattern, _first in (
    (_NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    (_BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    (_INT, r"[-+]?[0-9]+", _NUMBER_STARTS),
    (_FLOAT, r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", _NUMBER_STARTS),
    (_FLOAT, r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", _NUMBER_STARTS),
):
    _Loader.add_implicit_resolver(_tag, re.compile(rf"(?:{_pattern})\Z"), _first)


def _parse_float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


_SCALARS: dict[str, Callable[[str], Any]] = {
    _NULL: lambda _: None,
    _BOOL: lambda text: text.lower() == "true",
    _INT: int,
    _FLOAT: _parse_float,
}


class _Builder:
    """Turns nodes into data, notes every position, and counts what aliases expand to."""

    def __init__(self, document: Document, *, source: str) -> None:
        self._document = document
        self._source = source
        self._nodes = 0

    def build(self, node: yaml.Node, key: str, around: tuple[yaml.Node, ...]) -> Any:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _refused(_TOO_MANY, source=self._source, at=_start(node))
        if any(node is outer for outer in around):
            raise _refused("an alias refers to itself; refused", source=self._source, at=_start(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, key, (*around, node))
        if isinstance(node, yaml.SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                inner = _join(key, str(index))
                self._document.positions[inner] = Position(key=_start(item), value=_start(item))
                items.append(self.build(item, inner, (*around, node)))
            return items
        try:
            return _SCALARS.get(node.tag, str)(node.value)
        except ValueError:  # more digits than Python turns into a number
            self._problem(node, key, "the number is too long")
            return math.inf

    def _mapping(self, node: yaml.MappingNode, key: str, around: tuple[yaml.Node, ...]) -> dict[str, Any]:
        data: dict[str, Any] = {}
        first_lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag in _SCALARS:
                self._problem(key_node, key, "a key must be text; put it in quotes")
                continue
            name = key_node.value
            if name in first_lines:
                self._problem(
                    key_node, _join(key, name), f'key "{name}" is given twice (first at line {first_lines[name]})'
                )
                continue
            first_lines[name] = _start(key_node)[0]
            inner = _join(key, name)
            self._document.positions[inner] = Position(key=_start(key_node), value=_start(value_node))
            data[name] = self.build(value_node, inner, around)
        return data

    def _problem(self, node: yaml.Node, key: str, message: str) -> None:
        line, column = _start(node)
        self._document.problems.append(Problem(key=key, message=printable(message), line=line, column=column))


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _start(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _tab(text: str, last: int) -> tuple[int, int] | None:
    """The first tab in the indentation of a line, up to line ``last``."""
    for number, line in enumerate(text.splitlines()[:last], start=1):
        indentation = line[: len(line) - len(line.lstrip(" \t"))]
        if "\t" in indentation and line.strip():
            return number, indentation.index("\t") + 1
    return None


def _place(error: yaml.MarkedYAMLError, text: str) -> tuple[int, int]:
    mark = error.problem_mark or error.context_mark
    if (error.problem or "").startswith(_UNCLOSED) and error.context_mark is not None:
        mark = error.context_mark  # where it starts; the parser's mark is where the next thing or the file ends
    if mark is None:
        return 1, 1
    return _tab(text, mark.line + 1) or (mark.line + 1, mark.column + 1)


_UNCLOSED = ("expected ',' or", "found unexpected end of stream")
_ENDS = "the file ends within a value; close its [ or {"
_PLAIN = {
    "could not find expected ':'": 'this line has no colon after its key; write "key: value"',
    "expected <block end>, but found '<block mapping start>'": "this line is indented differently from the lines around it",
    "expected <block end>, but found '-'": "a list item stands where a key is expected; indent the list under its key",
    "expected <block end>, but found '<scalar>'": "there is text after the end of the value; put the value in quotes",
    "expected ',' or ']'": "a list that starts with [ is not closed with ]",
    "expected ',' or '}'": "a block that starts with { is not closed with }",
    "found unexpected end of stream": "a quote is not closed",
    "but found another document": "there is a second document (---) in the file; keep one",
    "found undefined alias": "an alias (*) names no anchor (&) before it",
    "found duplicate anchor": "an anchor (&) is given twice",
    "expected the node content, but found '<stream end>'": _ENDS,
    "expected the node content, but found ','": "a value is missing before the comma",
    "expected the node content, but found ']'": "a value is missing before the ]",
    "expected the node content, but found '}'": "a value is missing before the }",
    "expected '<document start>', but found '<block mapping start>'": "this line starts further left than the first key; start both alike",
    "sequence entries are not allowed here": "a list item stands beside its key; write it into the next line, or the list as [a, b]",
    "expected <block end>, but found": "the text before this has ended the value; put the whole value in quotes",
    "found unknown escape character": "a backslash in double quotes means more than itself; use single quotes",
    "expected alphabetic or numeric character": "* and & begin a name of YAML's own; put the value in quotes",
    "expected a comment or a line break": "| and > begin a text of several lines; put the value in quotes",
    "expected chomping or indentation indicators": "| and > begin a text of several lines; put the value in quotes",
}


def _colon(lines: list[str], *, line: int, column: int) -> str:
    """Why a colon stands where YAML wants none: after the line's first word, the line before is to blame."""
    before = lines[line - 1] if line else ""
    if re.fullmatch(r"\s*[^\s:]+", lines[line][:column]) and before.strip():
        if ":" not in before:
            return 'the line before has no colon after its key; write "key: value"'
        return "this line is indented more than the one before, which has its value already"
    return "a colon followed by a space stands inside a value; put the value in quotes"


def _plain(error: yaml.MarkedYAMLError) -> str:
    """What is wrong, without the parser's jargon."""
    problem = error.problem or "not valid YAML"
    mark = error.problem_mark or error.context_mark
    if mark is not None and mark.buffer is not None and _tab(mark.buffer, mark.line + 1):
        return "tab used for indentation; use spaces"
    if mark is not None and mark.buffer is not None and problem.startswith("mapping values"):
        return _colon(mark.buffer.splitlines(), line=mark.line, column=mark.column)
    for known, plain in _PLAIN.items():
        if problem.startswith(known):
            return plain
    if problem.startswith("found character"):
        return f"{problem.removeprefix('found character ').split(' ')[0]} cannot start a value; put the value in quotes"
    return problem if "YAML" in problem or "refused" in problem else f"not valid YAML here ({problem})"
