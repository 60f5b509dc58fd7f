"""The simulation replays: the same seed gives the same trace, byte for byte, in whichever process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import tests
from tests.simulation.profiles import PROFILES, make_plan
from tests.simulation.world import World

#: Where ``tests`` is imported from.
ROOT = Path(tests.__file__).parents[1]

#: Seeds of each profile.
SEEDS = range(1, 4)


def digests(hash_seed: int, profiles: list[str]) -> list[str]:
    """Of each run, by a process of its own that runs the profiles in this order."""
    arguments = [word for profile in profiles for word in ("--profile", profile)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--seeds", f"{SEEDS[0]}-{SEEDS[-1]}", "--digests", *arguments],
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": os.pathsep.join((str(ROOT), *sys.path))},
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    words = (line.split() for line in done.stdout.splitlines())
    return sorted(" ".join(line) for line in words if len(line) == 3 and line[0] in profiles)


class ReplayTests(SynchronousTestCase):
    """A seed is all that a run depends on."""

    def test_processes(self) -> None:
        """Not on how Python hashes, nor on the runs that the process made before."""
        profiles = list(PROFILES)
        first = digests(1, profiles)
        self.assertEqual(len(first), len(SEEDS) * len(profiles), first)
        self.assertEqual(first, digests(2, profiles[::-1]))

    def test_again(self) -> None:
        """Nor on anything that a run leaves behind; another seed gives another trace."""
        seen = [World(seed, make_plan(seed, "all")).run().trace.digest() for seed in (1, 2, 1)]
        self.assertEqual(seen[0], seen[2])
        self.assertNotEqual(seen[0], seen[1])
