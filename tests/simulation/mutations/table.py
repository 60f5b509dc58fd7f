"""The mutations: each undoes a fix, or removes a line that a promise needs."""

from __future__ import annotations

from tests.simulation.mutations.durability import DURABILITY
from tests.simulation.mutations.jobs import JOBS
from tests.simulation.mutations.mutation import Mutation
from tests.simulation.mutations.workers import WORKERS

MUTATIONS: tuple[Mutation, ...] = (*DURABILITY, *JOBS, *WORKERS)
