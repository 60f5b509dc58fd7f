"""The known faults of the product, each with a plan that shows it."""

from __future__ import annotations

from tests.simulation.known import Known

KNOWN: tuple[Known, ...] = ()
