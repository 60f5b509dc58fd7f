"""Random ids."""

from __future__ import annotations

import os
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor

from twisted.trial.unittest import SynchronousTestCase

from scheduler.random_ids import random_uuid


class RandomIdTests(SynchronousTestCase):
    def test_form(self) -> None:
        """Each is a UUID of version 4, of the variant that RFC 9562 describes."""
        self.assertTrue(all((each.version, each.variant) == (4, uuid.RFC_4122) for each in map(_made, range(1000))))

    def test_threads(self) -> None:
        """Threads that make ids at the same time never make one twice."""
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1e-6)
        with ThreadPoolExecutor(8) as threads:
            made = [each for many in threads.map(_many, range(8)) for each in many]
        self.assertEqual(len(set(made)), 20_000)

    def test_forks(self) -> None:
        """A process and its fork make different ids."""
        random_uuid()
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.write(writing, random_uuid().bytes)
            os._exit(0)
        os.waitpid(child, 0)
        others = {random_uuid().bytes for _ in range(300)}
        self.assertNotIn(os.read(reading, 16), others)
        os.close(reading)
        os.close(writing)


def _made(_: int) -> uuid.UUID:
    return random_uuid()


def _many(_: int) -> list[uuid.UUID]:
    return [random_uuid() for _ in range(2_500)]
