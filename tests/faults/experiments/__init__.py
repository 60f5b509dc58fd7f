"""The experiments, one module each, named after their subject.

Each has a class ``Experiment``, a ``Plan``.
"""

from __future__ import annotations

import importlib
import pkgutil

from tests.faults.run import Plan


def load() -> list[Plan]:
    """All experiments, by number."""
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    return sorted((module.Experiment() for module in modules), key=lambda plan: plan.number)
