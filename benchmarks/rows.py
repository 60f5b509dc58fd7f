"""What every measurement is made of and ends in."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from attrs import frozen


@frozen
class Row:
    """One line of the table."""

    what: str
    figure: str
    n: str
    note: str = ""


def together(functions: list[Callable[[], None]]) -> None:
    """Call all at once, each in a thread; what one of them raises is raised."""
    with ThreadPoolExecutor(len(functions)) as threads:
        for done in [threads.submit(function) for function in functions]:
            done.result()
