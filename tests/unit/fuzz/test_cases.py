"""The cases of ``make fuzz``: repeatable, harmless, and of every kind."""

from __future__ import annotations

import re
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from scheduler.api.routes import ROUTES
from tests.fuzz import frames, messages, requests, values
from tests.integration.http2 import PREFACE

IDS = {"job_id": ["job-1"], "worker": ["w1"], "name": ["internal"]}
SEEDS = range(1500)


class CaseTests(SynchronousTestCase):
    def test_repeatable(self) -> None:
        """A seed gives the same case again."""
        for seed in SEEDS[:50]:
            self.assertEqual(requests.request(Random(seed), IDS), requests.request(Random(seed), IDS))
            self.assertEqual(frames.conversation(Random(seed)), frames.conversation(Random(seed)))
            for methods in messages.METHODS.values():
                for _, kind in methods:
                    made = [messages.message(Random(seed), kind, {}) for _ in range(2)]
                    self.assertEqual(
                        made[0].SerializeToString(deterministic=True), made[1].SerializeToString(deterministic=True)
                    )

    def test_every_route(self) -> None:
        """Requests of every route are made, most of them well-formed at their begin."""
        lines = [requests.request(Random(seed), IDS).partition(b" HTTP/1.1\r\n")[0].decode("latin-1") for seed in SEEDS]
        for route in ROUTES:
            form = re.compile(f"{route.method} {re.sub('<.*?>', '[^/?]+', route.path)}([?].*)?")
            self.assertTrue(any(form.fullmatch(line) for line in lines), route.name)

    def test_every_method(self) -> None:
        """Both services are called, with all their methods."""
        self.assertEqual(set(messages.METHODS), {"Scheduler", "Worker"})
        self.assertEqual(len(messages.METHODS["Worker"]), 8)

    def test_harmless_commands(self) -> None:
        """Messages start nothing but harmless commands."""
        (kind,) = (kind for path, kind in messages.METHODS["Worker"] if path.endswith("/StartJob"))
        found = {messages.message(Random(seed), kind, {}).command for seed in SEEDS}
        self.assertLessEqual(found, set(values.COMMANDS))

    def test_frames(self) -> None:
        """Most connections begin as HTTP/2, and some do not."""
        begun = [frames.conversation(Random(seed)).startswith(PREFACE) for seed in SEEDS]
        self.assertGreater(sum(begun), len(begun) / 2)
        self.assertIn(False, begun)
