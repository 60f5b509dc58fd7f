"""Tests use no private name of the code that they test: so private parts can change without the tests."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import scheduler

CODE = Path(scheduler.__file__).parent
TESTS = Path(__file__).parent

#: Functions that take the name of an attribute.
BY_NAME = {"patch", "getattr", "setattr", "delattr", "hasattr"}

#: Public members of a named tuple.
DOCUMENTED = {"_asdict", "_fields", "_make", "_replace"}

_PRIVATE = re.compile(r"(?<!\w)_[A-Za-z]\w*")


def defined(tree: ast.AST) -> set[str]:
    """The names that a module gives to its own functions, classes, variables and attributes."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node, ast.Name):
                names.add(node.id)
            elif isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                names.add(node.attr)
    return names


def used(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """The lines and names of all attributes, imports of ours, and names of attributes given as text."""
    foreign = {
        alias.asname or alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
        if alias.name.partition(".")[0] not in ("scheduler", "tests")
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if not (isinstance(node.value, ast.Name) and node.value.id in foreign):
                yield node.lineno, node.attr
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "scheduler":
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in BY_NAME:
            texts = (argument.value for argument in node.args if isinstance(argument, ast.Constant))
            yield from ((node.lineno, text) for text in texts if isinstance(text, str))


def occurring(text: str) -> set[str]:
    """All private names in a text."""
    return set(_PRIVATE.findall(text)) - DOCUMENTED


@cache
def private_names() -> frozenset[str]:
    """The private names of all our code that is not generated."""
    paths = (path for path in CODE.rglob("*.py") if "pb" not in path.parts)
    return frozenset().union(*(occurring(path.read_text(encoding="utf-8")) for path in paths))


def offences(tree: ast.AST) -> list[tuple[int, str]]:
    """The uses of private names of ours that the module itself does not define."""
    own = defined(tree)
    return [(line, name) for line, name in used(tree) if name in private_names() and name not in own]


class LawTests(SynchronousTestCase):
    def test_kept(self) -> None:
        found = [
            f"{path.relative_to(TESTS.parent)}:{line} uses {name}"
            for path in sorted(TESTS.rglob("*.py"))
            if occurring(text := path.read_text(encoding="utf-8")) & private_names()
            for line, name in offences(ast.parse(text))
        ]
        self.assertEqual(found, [])

    def test_enforced(self) -> None:
        """Each way to use such a name is found. A test may use its own private names and those of other packages."""
        for text in (
            "ledger._waits",
            "self.house.parts.ledger._waits.idle",
            "ledger._waits = {}",
            "from scheduler.cluster.saving import _ref",
            "class Mine(Ledger):\n    def f(self): return self._waits",
            "self.patch(ledger, '_waits', 1)",
            "getattr(ledger, '_waits')",
        ):
            self.assertEqual(len(offences(ast.parse(text))), 1, text)
        for text in (
            "class Mine:\n    def f(self): self._waits = 1\n    def g(self, other): return other._waits",
            "import os\nos._exit(1)",
            "ledger.__class__",
            "point._replace(x=1)",
            "self.patch(ledger, 'idle', 1)",
        ):
            self.assertEqual(offences(ast.parse(text)), [], text)
