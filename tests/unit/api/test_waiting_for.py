"""The member ``waiting_for`` of a queued job, in every answer that has it."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.unit.api.conversation import Connection, Server

PLACE_2 = {"why": "no-free-slot", "detail": "1 worker matches; its only slot is taken", "place": 2}


class WaitingForTests(SynchronousTestCase):
    """A worker whose only slot is taken, and two queued jobs."""

    def setUp(self) -> None:
        self.server = Server()
        self.server.fleet.add_worker(slots=1, labels={"zone": "a"})
        self.running, self.first, self.second = (self.submit().response().json() for _ in range(3))

    def submit(self, query: str = "", **headers: str) -> Connection:
        body = json.dumps({"selector": {"zone": "a"}, "command": "sleep"}).encode()
        return self.server.ask("POST", f"/v1/jobs{query}", body, **headers)

    def get(self, path: str) -> Any:
        return self.server.ask("GET", path).response().json()

    def test_submitted(self) -> None:
        """The answer to a submission has ``waiting_for``; it is null for a job that runs at once."""
        shown = [job["waiting_for"] for job in (self.running, self.first, self.second)]
        self.assertEqual(shown, [None, {**PLACE_2, "place": 1}, PLACE_2])

    def test_one(self) -> None:
        """The job has ``waiting_for``, also when a wait for its end is over, and in the first event of a stream."""
        path = f"/v1/jobs/{self.second['id']}"
        self.assertEqual(self.get(path)["waiting_for"], PLACE_2)
        waiting = self.server.ask("GET", f"{path}?wait=5")
        self.server.clock.advance(5)
        self.assertEqual(waiting.response().json()["waiting_for"], PLACE_2)
        self.assertIn('"place":3', self.submit(accept="text/event-stream").response().body.decode())

    def test_list(self) -> None:
        """All jobs of a page have ``waiting_for``."""
        shown = [job["waiting_for"] for job in self.get("/v1/jobs")["jobs"]]
        self.assertEqual(shown, [PLACE_2, {**PLACE_2, "place": 1}, None])

    def test_no_more(self) -> None:
        """A stopped job waits no more, and the job behind it is next."""
        path = f"/v1/jobs/{self.first['id']}/stop"
        self.assertIsNone(self.server.ask("POST", path).response().json()["waiting_for"])
        self.assertEqual(self.get(f"/v1/jobs/{self.second['id']}")["waiting_for"]["place"], 1)
        stopped = self.server.ask("POST", "/v1/jobs/stop?state=queued").response().json()["jobs"]
        self.assertEqual([(job["id"], job["waiting_for"]) for job in stopped], [(self.second["id"], None)])

    def test_sent_again(self) -> None:
        """A request that is sent again is answered with the job's place as it is now."""
        first = self.submit(idempotency_key="k").response().json()
        self.assertEqual(first["waiting_for"]["place"], 3)
        self.server.ask("POST", f"/v1/jobs/{self.first['id']}/stop")
        again = self.submit(idempotency_key="k").response().json()
        self.assertEqual((again["id"], again["waiting_for"]["place"]), (first["id"], 2))
