"""The experiments, one module each, named after their subject.

Each has a class ``Experiment``, which provides ``Plan``.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import ClassVar, Protocol

from tests.faults.run import Run


class Plan(Protocol):
    """An experiment."""

    #: Its number, by which it is also chosen.
    number: ClassVar[int]
    name: ClassVar[str]
    #: Rounds of a full run.
    rounds: ClassVar[int]
    #: Rounds of the short run; 0: it is left out.
    quick_rounds: ClassVar[int]

    def possible(self) -> None:
        """``Skipped`` if it can't be made here."""

    def go(self, run: Run) -> None:
        """Make it up to the point where both sides must agree, and call ``run.verdict``."""


def load() -> list[Plan]:
    """All experiments, by number."""
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return sorted((module.Experiment() for module in modules), key=lambda plan: plan.number)
