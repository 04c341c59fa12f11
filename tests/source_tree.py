"""The project's source as syntax trees: what each module imports, how long things are, what a test asserts."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "tuner"
FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True, slots=True)
class Import:
    """One imported module: ``for_types`` when only a type checker sees it, ``lazy`` inside a function."""

    name: str
    line: int
    for_types: bool
    lazy: bool

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]

    @property
    def room(self) -> str:
        """Second part of the name: the room, if it is one of ours."""
        return self.name.partition(".")[2].partition(".")[0]


@dataclass(frozen=True)
class Module:
    """One Python file."""

    path: Path

    @property
    def where(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @cached_property
    def source(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.source)

    @property
    def name(self) -> str:
        """Dotted name; a package is named like its folder."""
        parts = self.path.relative_to(ROOT).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def room(self) -> str:
        """The package's folder that it lies in, or its own name when it lies at the top."""
        parts = self.name.split(".")
        return parts[1] if len(parts) > 1 else ""

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        return tuple(_imports(self.tree, for_types=False, lazy=False))

    @cached_property
    def functions(self) -> tuple[FunctionNode, ...]:
        """Every function, methods and nested ones included."""
        return tuple(node for node in ast.walk(self.tree) if isinstance(node, FunctionNode))

    @cached_property
    def public_functions(self) -> tuple[FunctionNode, ...]:
        """What others may call: functions of the module and methods of its classes, without a leading underscore."""
        bodies = [self.tree.body, *(node.body for node in self.tree.body if isinstance(node, ast.ClassDef))]
        found = (node for body in bodies for node in body if isinstance(node, FunctionNode))
        return tuple(node for node in found if not node.name.startswith("_"))

    @cached_property
    def code_lines(self) -> int:
        """Lines that are neither blank nor comment nor docstring."""
        skipped: set[int] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Module | ast.ClassDef | FunctionNode) and ast.get_docstring(node, clean=False):
                docstring = node.body[0]
                skipped.update(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
        return sum(
            1
            for number, line in enumerate(map(str.strip, self.source.splitlines()), start=1)
            if line and not line.startswith("#") and number not in skipped
        )


@cache
def modules(folder: str = PACKAGE) -> tuple[Module, ...]:
    """All Python files below a folder of the project; migrations are generated and then frozen, so they are left out."""
    return tuple(
        Module(path)
        for path in sorted((ROOT / folder).rglob("*.py"))
        if "migrations" not in path.relative_to(ROOT).parts
    )


def length(function: FunctionNode) -> int:
    """Lines from ``def`` to the end, docstring included."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def import_graph(*, types_too: bool = False) -> dict[str, set[str]]:
    """Which module of the package imports which other one, at its top or inside a function."""
    names = {module.name for module in modules()}
    return {
        module.name: {
            target
            for item in module.imports
            if item.top == PACKAGE and (types_too or not item.for_types)
            for target in [item.name if item.name in names else item.name.rpartition(".")[0]]
            if target in names and target != module.name
        }
        for module in modules()
    }


def cycles(graph: Mapping[str, AbstractSet[str]]) -> list[list[str]]:
    """Groups of nodes that reach each other (Tarjan's strongly connected components of more than one node)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        number[node] = lowest[node] = len(number)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in number:
                visit(other)
                lowest[node] = min(lowest[node], lowest[other])
            elif other in stack:
                lowest[node] = min(lowest[node], number[other])
        if lowest[node] == number[node]:
            cut = stack.index(node)
            group = stack[cut:]
            del stack[cut:]
            if len(group) > 1:
                found.append(sorted(group))

    for node in sorted(graph):
        if node not in number:
            visit(node)
    return found


def asserts_something(function: FunctionNode, *, asserting: AbstractSet[str]) -> bool:
    """Whether a test can fail by its own words.

    Args:
        function: The test.
        asserting: Names of functions in the same file that assert something.
    """
    for node in ast.walk(function):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func).rpartition(".")[2]
            if (
                name in asserting
                or name in {"raises", "warns", "fail"}
                or name.startswith(("assert", "check_", "expect"))
            ):
                return True
    return False


def _imports(node: ast.AST, *, for_types: bool, lazy: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(name=alias.name, line=child.lineno, for_types=for_types, lazy=lazy)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "relative imports are banned"
            for alias in child.names:
                yield Import(name=f"{child.module}.{alias.name}", line=child.lineno, for_types=for_types, lazy=lazy)
        elif isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            yield from _imports(child, for_types=True, lazy=lazy)
        else:
            yield from _imports(child, for_types=for_types, lazy=lazy or isinstance(child, FunctionNode | ast.Lambda))
