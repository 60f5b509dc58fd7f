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


def digests(hash_seed: int, profiles: list[str], processes: int) -> list[tuple[int, str, str]]:
    """Seed, profile and digest of each run, by so many other processes; the profiles come in this order."""
    arguments = [word for profile in profiles for word in ("--profile", profile)]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.simulation",
            "--seeds",
            f"{SEEDS[0]}-{SEEDS[-1]}",
            "--digests",
            *arguments,
            "--processes",
            str(processes),
        ],
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": os.pathsep.join((str(ROOT), *sys.path))},
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
    )
    words = (line.split() for line in done.stdout.splitlines())
    return [(int(line[1]), line[0], line[2]) for line in words if len(line) == 3 and line[0] in profiles]


class ReplayTests(SynchronousTestCase):
    """A seed is all that a run depends on."""

    def test_processes(self) -> None:
        """Not on how Python hashes, nor on the runs that the process made before; results come in order."""
        profiles = list(PROFILES)
        alone, together = digests(1, profiles, 1), digests(2, profiles[::-1], 2)
        self.assertEqual(len(alone), len(SEEDS) * len(profiles), alone)
        self.assertEqual(sorted(alone), sorted(together))
        order = [(seed, profile) for seed in SEEDS for profile in profiles[::-1]]
        self.assertEqual([(seed, profile) for seed, profile, _ in together], order)

    def test_again(self) -> None:
        """Nor on anything that a run leaves behind; another seed gives another trace."""
        seen = [World(seed, make_plan(seed, "all")).run().trace.digest() for seed in (1, 2, 1)]
        self.assertEqual(seen[0], seen[2])
        self.assertNotEqual(seen[0], seen[1])
