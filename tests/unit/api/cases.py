"""The base classes of the tests of the HTTP API, and a parser of event streams."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from scheduler.cluster.saving import UNSAVED_MAX_SECONDS
from tests.unit.api.conversation import Connection, Server

EVENTS = {"accept": "text/event-stream"}


class ServerTestCase(SynchronousTestCase):
    """A server in memory."""

    def setUp(self) -> None:
        self.begin()

    def begin(self, **settings: Any) -> None:
        self.server = Server(**settings)
        self.scheduler, self.fleet, self.house = self.server.parts
        self.clock = self.server.clock


class StreamTestCase(ServerTestCase):
    """A server whose streams must leave nothing behind."""

    def tearDown(self) -> None:
        self.assert_nothing_left()

    def follow(self, job_id: str, more: str = "", **headers: str) -> Connection:
        return self.server.ask("GET", f"/v1/jobs/{job_id}/output?follow=1{more}", **headers)

    def events(self, job_id: str, query: str = "", **headers: str) -> Connection:
        return self.server.ask("GET", f"/v1/jobs/{job_id}/output{query}", **EVENTS, **headers)

    def assert_nothing_left(self) -> None:
        self.clock.advance(UNSAVED_MAX_SECONDS)
        self.assertTrue(self.house.parts.outputs.idle)
        self.assertTrue(self.house.parts.ledger.idle)
        for channel in list(self.server.site.channels):
            channel.loseConnection()
        self.assertEqual(self.house.timers(), 0)


def parse(body: bytes) -> list[tuple[str, str, dict[str, Any]]]:
    """Name, id and data of each event, as a browser reads them."""
    found = []
    for block in body.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
        if "data" in fields:
            found.append((fields["event"], fields["id"], json.loads(fields["data"])))
    return found
