"""Size and naming rules of the code, checked: `python tests/tidy.py`, or through tests/unit/test_layers.py.

Each rule is a function from a file (or folder) to messages; a message says what to do instead.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "towline"
FOLDERS = ("src", "tests", "benchmarks", "examples", "scripts")

MAX_SOURCE_LINES = 500
MAX_TEST_LINES = 800
MAX_FUNCTION_LINES = 60
LONG_FUNCTION_LINES = 25
MAX_PACKAGE_FILES = 12
MIN_PACKAGE_FILES = 4
BANNED_NAMES = ("utils", "util", "common", "helpers", "helper", "types", "base", "manager", "misc")
UNFINISHED = re.compile(r"#.*\b(TODO|FIXME|XXX|HACK)\b")


def python_files() -> list[Path]:
    """All Python files of the project, in order."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")]
    return sorted(path for path in found if "__pycache__" not in path.parts)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def check_size(path: Path, lines: list[str]) -> Iterator[str]:
    limit = MAX_TEST_LINES if path.is_relative_to(ROOT / "tests") else MAX_SOURCE_LINES
    if len(lines) > limit:
        yield (
            f"{name_of(path)} has {len(lines)} lines, at most {limit}: "
            "move one of its subjects into a file named after it"
        )


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def function_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body, without the docstring: what has to be held in mind at once."""
    body = node.body
    documented = isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
    if documented and len(body) > 1:
        body = body[1:]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1


def check_functions(path: Path, tree: ast.AST) -> Iterator[str]:
    for node in functions(tree):
        lines = function_lines(node)
        if lines > MAX_FUNCTION_LINES:
            yield (
                f"{name_of(path)}:{node.lineno} {node.name} has {lines} lines, at most {MAX_FUNCTION_LINES}: "
                "give each of its steps a function with a name"
            )


def check_name(path: Path) -> Iterator[str]:
    for name in (path.stem, path.parent.name):
        if name in BANNED_NAMES:
            yield f"{name_of(path)}: {name!r} says nothing: name the file after the one thing that it holds"


def check_unfinished(path: Path, lines: list[str]) -> Iterator[str]:
    for number, line in enumerate(lines, 1):
        if UNFINISHED.search(line) and path.name != "tidy.py":
            yield f"{name_of(path)}:{number} is a note of unfinished work: finish it, or file an issue"


def check_prints(path: Path, tree: ast.AST) -> Iterator[str]:
    if not path.is_relative_to(SOURCE) or path.is_relative_to(SOURCE / "cli"):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            yield (
                f"{name_of(path)}:{node.lineno} prints: only the command line writes to a terminal; "
                "return the value, raise, or log it with structlog"
            )


def check_sleeps(path: Path, tree: ast.AST) -> Iterator[str]:
    """Unit tests of deterministic parts never sleep; others wait on signals with a bound."""
    if not path.is_relative_to(ROOT / "tests" / "unit"):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "time.sleep":
            yield f"{name_of(path)}:{node.lineno} sleeps: wait for the event or file that it waits for"


def packages() -> list[Path]:
    return sorted(path.parent for path in SOURCE.rglob("__init__.py"))


def modules_of(package: Path) -> list[Path]:
    return [path for path in package.glob("*.py") if path.name != "__init__.py"]


def check_package(package: Path) -> Iterator[str]:
    modules = modules_of(package)
    if len(modules) > MAX_PACKAGE_FILES:
        yield (
            f"{name_of(package)} has {len(modules)} files, at most {MAX_PACKAGE_FILES}: "
            "make a package of those that belong together"
        )


def check_file(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    lines, tree = text.splitlines(), ast.parse(text, str(path))
    yield from check_name(path)
    yield from check_size(path, lines)
    yield from check_functions(path, tree)
    yield from check_unfinished(path, lines)
    yield from check_prints(path, tree)
    yield from check_sleeps(path, tree)


def failures() -> list[str]:
    """Everything that breaks a rule."""
    messages = [message for package in packages() for message in check_package(package)]
    return messages + [message for path in python_files() for message in check_file(path)]


def remarks() -> list[str]:
    """What is allowed and worth a look."""
    notes: list[str] = []
    for path in python_files():
        for node in functions(ast.parse(path.read_text(encoding="utf-8"))):
            if (lines := function_lines(node)) > LONG_FUNCTION_LINES:
                notes.append(f"{name_of(path)}:{node.lineno} {node.name} has {lines} lines")
    for package in packages():
        if 0 < len(modules_of(package)) < MIN_PACKAGE_FILES:
            notes.append(f"{name_of(package)} has only {len(modules_of(package))} files")
    return notes


def main() -> int:
    if "--all" in sys.argv[1:]:
        print("\n".join(remarks()))
    found = failures()
    print("\n".join(found) if found else "tidy: all rules hold")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
