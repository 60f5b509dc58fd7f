"""Jobs with ``unattended_timeout``, which run only while a client follows them or waits for them."""

from __future__ import annotations

import json
from typing import Any

from scheduler.model import JobState
from tests.unit.api.cases import ServerTestCase
from tests.unit.api.conversation import Connection

WHY = "stopped: no client followed it or waited for it for 60 s"
EVENTS = {"accept": "text/event-stream"}


class AttendanceTests(ServerTestCase):
    def submit(self, query: str = "", **headers: str) -> Connection:
        body = {"worker": "w1", "command": "sleep", "unattended_timeout": "1m"}
        return self.server.ask("POST", f"/v1/jobs{query}", json.dumps(body).encode(), **headers)

    def shown(self) -> Any:
        """The only job."""
        (job,) = self.server.ask("GET", "/v1/jobs").response().json()["jobs"]
        return job

    def assert_attends(self, client: Connection) -> None:
        """The job runs as long as the client's connection, and a minute more."""
        for _ in range(20):
            self.server.clock.advance(15)
        self.assertEqual(self.shown()["state"], "running")
        client.hang_up()
        self.server.clock.advance(59)
        self.assertEqual(self.shown()["state"], "running")
        self.server.clock.advance(1)
        job = self.shown()
        self.assertEqual((job["state"], job["reason"], job["unattended_timeout"]), ("stopped", WHY, 60))

    def test_submissions(self) -> None:
        """A client that submits a job and follows it or waits for its end attends it while connected."""
        for query, headers in (("?follow=1", {}), ("", EVENTS)):
            self.setUp()
            self.assert_attends(self.submit(query, **headers))
        self.setUp()
        waiting = self.submit("?wait=300")
        self.server.clock.advance(200)
        waiting.hang_up()
        self.assert_attends(self.server.ask("GET", f"/v1/jobs/{self.shown()['id']}/output?follow=1"))

    def test_others(self) -> None:
        """Any client that follows the job later attends it, too."""
        for path, headers in (
            ("/output?follow=1&stream=stderr", {}),
            ("/output", EVENTS),
            ("/output?offset=0,0", EVENTS),
        ):
            self.setUp()
            self.submit()
            self.server.clock.advance(59)
            self.assert_attends(self.server.ask("GET", f"/v1/jobs/{self.shown()['id']}{path}", **headers))

    def test_wait(self) -> None:
        """A client that waits again and again attends the job."""
        job_id = self.submit().response().json()["id"]
        for _ in range(10):
            self.server.clock.advance(59)
            waiting = self.server.ask("GET", f"/v1/jobs/{job_id}?wait=1")
            self.server.clock.advance(1)
            self.assertEqual(waiting.response().json()["state"], "running")
        self.server.clock.advance(60)
        self.assertEqual(self.shown()["reason"], WHY)

    def test_not_counted(self) -> None:
        """Snapshots of the job or its output attend nothing, nor does a HEAD."""
        job_id = self.submit().response().json()["id"]
        for method, path, headers in (
            ("GET", "", {}),
            ("GET", "?wait=0", {}),
            ("HEAD", "?wait=300", {}),
            ("GET", "/output", {}),
            ("GET", "/output?tail=3", {}),
            ("HEAD", "/output?follow=1", {}),
            ("HEAD", "/output", EVENTS),
        ):
            self.server.clock.advance(8)
            self.server.ask(method, f"/v1/jobs/{job_id}{path}", **headers)
            self.server.clock.advance(0)
        self.server.clock.advance(4)
        self.assertEqual(self.shown()["reason"], WHY)
        self.assertEqual(self.server.scheduler.job(job_id).state, JobState.STOPPED)
