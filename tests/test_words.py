"""Docstrings have a plain first word: a test refuses those with which riddles began."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("scheduler", "tests", "benchmarks", "examples")

#: A sentence that begins with one of these has no subject that a reader can know yet.
REFUSED = frozenset({"What", "Who", "That", "How", "Of", "Those", "One", "It", "Nobody"})

#: How many docstrings of a file still begin so. A file that has fewer must be corrected here, so this only shrinks.
EXCEPTIONS: dict[str, int] = {}


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """The docstrings of a module, its classes and its functions, each with the number of its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                yield node.body[0].lineno, text


def refused(source: str) -> list[str]:
    """The docstrings that begin with a refused word, each as ``line: beginning``."""
    found = []
    for line, text in docstrings(source):
        word = re.match(r"\W*(\w+)", text)
        if word and word[1] in REFUSED:
            found.append(f"{line}: {text[:60]}")
    return sorted(found, key=lambda each: int(each.partition(":")[0]))


def complaints(found: dict[str, list[str]], exceptions: dict[str, int]) -> list[str]:
    """Files with more refused docstrings than their exception allows, and exceptions that allow more than there are."""
    wrong = []
    for file in sorted({*found, *exceptions}):
        here, allowed = found.get(file, []), exceptions.get(file, 0)
        if len(here) > allowed:
            wrong.append(f"{file}: {len(here)} docstrings begin with a refused word, {allowed} may: {here}")
        elif len(here) < allowed:
            wrong.append(f"{file}: its exception is {allowed}, and must be {len(here)} now")
    return wrong


def found_in_tree() -> dict[str, list[str]]:
    """The refused docstrings of each file that has some. Generated code is not ours to word."""
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")) if "pb" not in path.parts]
    found = {str(path.relative_to(ROOT)): refused(path.read_text(encoding="utf-8")) for path in paths}
    return {file: lines for file, lines in found.items() if lines}


class WordsTests(SynchronousTestCase):
    """The docstrings of this project begin with a word that says something."""

    def test_first_words(self) -> None:
        """No docstring begins with a refused word, and no exception is left over."""
        wrong = complaints(found_in_tree(), EXCEPTIONS)
        self.assertEqual(wrong, [], "\n".join(wrong))


class RuleTests(SynchronousTestCase):
    """The rule finds what breaks it."""

    def test_every_kind_of_docstring(self) -> None:
        """Docstrings of modules, classes, methods and nested functions are read."""
        source = '''"""What is here."""
class A:
    """
    Of a job.
    """
    def f(self):
        """``It`` is there."""
        async def g():
            """Nobody."""
'''
        self.assertEqual([line.partition(":")[0] for line in refused(source)], ["1", "3", "7", "9"])

    def test_plain_words_pass(self) -> None:
        """A word that only begins like a refused one passes, and so does a function without a docstring."""
        self.assertEqual(refused('"""Whether it runs."""\ndef f():\n    """Its id."""\ndef g(): pass'), [])

    def test_exceptions(self) -> None:
        """An exception covers its number of docstrings, and must go when they have gone."""
        found = {"a.py": ["1: What"], "b.py": ["1: Who", "9: How"]}
        self.assertEqual(complaints(found, {"a.py": 1, "b.py": 2}), [])
        for exceptions in ({"a.py": 1, "b.py": 1}, {"b.py": 2}, {"a.py": 2, "b.py": 2}, {"a.py": 1, "b.py": 2, "c": 1}):
            self.assertEqual(len(complaints(found, exceptions)), 1, exceptions)
