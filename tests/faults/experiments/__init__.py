"""The experiments, one module each, named after their numbers.

Each has a class ``Experiment`` with what ``Plan`` describes.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import ClassVar, Protocol

from tests.faults.run import Run


class Plan(Protocol):
    """What an experiment is."""

    #: By which it is known, and called.
    number: ClassVar[int]
    name: ClassVar[str]
    #: In a whole run.
    rounds: ClassVar[int]
    #: In the short one; 0: it is no part of it.
    quick_rounds: ClassVar[int]

    def possible(self) -> None:
        """``Skipped`` if it can't be made here."""

    def go(self, run: Run) -> None:
        """Make it, up to where all shall agree; then ``run.verdict``."""


def load() -> list[Plan]:
    """All of them, by number."""
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return sorted((module.Experiment() for module in modules), key=lambda plan: plan.number)
