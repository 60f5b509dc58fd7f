"""Common parts of the measurements: the rows of the table, and simultaneous calls."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from attrs import frozen


@frozen
class Row:
    """A row of the table."""

    what: str
    figure: str
    n: str
    note: str = ""


def together(functions: list[Callable[[], None]]) -> None:
    """Call all functions at once, each in a thread. An exception in one of them is raised."""
    with ThreadPoolExecutor(len(functions)) as threads:
        for done in [threads.submit(function) for function in functions]:
            done.result()
