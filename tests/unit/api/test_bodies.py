from __future__ import annotations

import json

from twisted.internet.defer import Deferred

from scheduler.api.bodies import HELD_MAX_BYTES, PIECE_BYTES, Held
from scheduler.api.lists import PAGE_MAX_BYTES
from scheduler.errors import StoreFailed
from scheduler.model import JobSpec, JobState
from tests.unit.api.cases import ServerTestCase, parse
from tests.unit.api.conversation import NOW, Connection, read_response


def large(size: int) -> JobSpec:
    return JobSpec(command="true", args=("x" * size,))


class BodyTestCase(ServerTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.held = self.server.site.under_way.held

    def unread(self, target: str, method: str = "GET", **headers: str) -> Connection:
        """Send a request for a client that reads nothing."""
        client = self.server.connect()
        client.socket.room = PIECE_BYTES - 1
        client.ask(method, target, **headers)
        return client

    def read_all(self, client: Connection) -> list[int]:
        """Read until the answer is complete; the number of bytes of each read."""
        took = []
        while not (found := read_response(client.socket.received)) or not found.complete:
            before = len(client.socket.received)
            client.socket.take()
            took.append(len(client.socket.received) - before)
        return took


class PieceTests(BodyTestCase):
    def test_a_list(self) -> None:
        """A list is written as it is read: for a client that does not read, one piece is held."""
        jobs = [self.fleet.add_job(spec=large(10_000), created_at=NOW + number) for number in range(50)]
        client = self.unread("/v1/jobs")
        self.assertLess(len(client.socket.received), 2 * PIECE_BYTES)
        self.assertEqual(len(client.response().body), self.held.total)
        self.assertLess(max(self.read_all(client)), 2 * PIECE_BYTES)
        listed = client.response().json()
        self.assertEqual([job["id"] for job in listed["jobs"]], [job.id for job in reversed(jobs)])
        self.assertEqual((listed["next"], self.held.total), (None, 0))

    def test_specs_of_a_list_from_the_store(self) -> None:
        """A list waits for the arguments that only the store has, of several jobs at once, in each of its pieces."""
        for number in range(20):
            self.fleet.end(self.fleet.add_job(spec=large(10_000), created_at=NOW + number).id)
        self.scheduler.held["with_specs"] = held = Deferred()
        client = self.server.ask("GET", "/v1/jobs")
        self.assertFalse(client.answered)
        del self.scheduler.held["with_specs"]
        held.callback(None)
        listed = client.response().json()["jobs"]
        self.assertEqual({job["args"] and len(job["args"][0]) for job in listed}, {10_000})

    def test_a_small_list(self) -> None:
        """A small list is written at once, with its length."""
        self.fleet.add_job()
        response = self.server.ask("GET", "/v1/jobs").response()
        self.assertEqual(int(response.headers["content-length"]), len(response.body))

    def test_one_job(self) -> None:
        """A large job is written in pieces, with its length."""
        job = self.fleet.add_job(spec=large(300_000))
        client = self.unread(f"/v1/jobs/{job.id}")
        self.assertEqual(len(client.response().body), PIECE_BYTES)
        self.assertGreater(self.held.total, 300_000)
        self.assertEqual(max(self.read_all(client)), PIECE_BYTES)
        self.assertEqual((client.response().json()["id"], self.held.total), (job.id, 0))

    def test_workers(self) -> None:
        """Many workers are written in pieces."""
        names = [f"w{number:04}" for number in range(300)]
        for name in names:
            self.fleet.add_worker(name)
        client = self.unread("/v1/workers")
        self.assertLess(self.held.total, 2 * PIECE_BYTES)
        self.read_all(client)
        self.assertTrue({*names} <= {worker["name"] for worker in client.response().json()["workers"]})

    def test_stopped(self) -> None:
        """The jobs stopped by a filter are written in pieces, however many bytes they have."""
        ids = {self.fleet.add_job(spec=large(1_000_000)).id for _ in range(10)}
        client = self.unread("/v1/jobs/stop?worker=w1", "POST")
        self.assertLess(self.held.total, 1_100_000)
        self.read_all(client)
        self.assertEqual({job["id"] for job in client.response().json()["jobs"]}, ids)

    def test_hang_up(self) -> None:
        """After a client has hung up, nothing is held for it."""
        self.fleet.add_job(spec=large(300_000))
        self.unread("/v1/jobs").hang_up()
        self.assertEqual(self.held.total, 0)

    def test_head(self) -> None:
        """The answer to a HEAD has no body, however large it would be."""
        job = self.fleet.add_job(spec=large(300_000))
        for target in ("/v1/jobs", f"/v1/jobs/{job.id}"):
            response = self.server.ask("HEAD", target).response()
            self.assertEqual((response.status, response.body, self.held.total), (200, b"", 0))


class PageTests(BodyTestCase):
    def test_bytes(self) -> None:
        """A page ends before it exceeds its limit, and the next page continues there."""
        jobs = [self.fleet.add_job(spec=large(900_000), created_at=NOW + number) for number in range(20)]
        seen: list[str] = []
        cursor = ""
        for _ in range(3):
            response = self.server.ask("GET", f"/v1/jobs?limit=1000{cursor}").response()
            self.assertLess(len(response.body), PAGE_MAX_BYTES)
            page = response.json()
            seen += [job["id"] for job in page["jobs"]]
            cursor = f"&cursor={page['next']}"
        self.assertEqual((seen, page["next"]), ([job.id for job in reversed(jobs)], None))

    def test_one_that_is_larger(self) -> None:
        """A job that exceeds the limit is a page by itself."""
        jobs = [self.fleet.add_job(spec=large(size)) for size in (10, PAGE_MAX_BYTES, 10)]
        first = self.server.ask("GET", "/v1/jobs").response().json()
        self.assertEqual([job["id"] for job in first["jobs"]], [jobs[2].id])
        second = self.server.ask("GET", f"/v1/jobs?cursor={first['next']}").response().json()
        self.assertEqual([job["id"] for job in second["jobs"]], [jobs[1].id])
        self.assertEqual(second["next"], self.scheduler.cursor_after(jobs[1]))


class HeldTests(BodyTestCase):
    """The bytes held for clients that read nothing."""

    def test_in_all(self) -> None:
        """When too many bytes are held, the client that read nothing for the longest time is cut."""
        self.held.most = 1_000_000
        job = self.fleet.add_job(spec=large(300_000))
        clients = [self.unread(f"/v1/jobs/{job.id}") for _ in range(3)]
        clients[0].socket.take()  # reads on, slowly
        clients.append(self.unread(f"/v1/jobs/{job.id}"))
        self.assertEqual([client.socket.aborted for client in clients], [False, True, False, False])
        self.assertLessEqual(self.held.total, 1_000_000)
        self.read_all(clients[0])

    def test_events(self) -> None:
        """Events with a large job count, including the last event, which is followed by the end of the body."""
        job = self.fleet.add_job(spec=large(300_000))
        client = self.unread(f"/v1/jobs/{job.id}/output", accept="text/event-stream")
        self.assertGreater(self.held.total, 300_000)
        self.fleet.end(job.id)
        client.socket.take()
        self.assertGreater(self.held.total, 300_000)
        self.assertFalse(client.response().complete)
        client.socket.take()
        self.assertTrue(client.response().complete)
        self.assertEqual([name for name, _, _ in parse(client.response().body)][-1], "end")
        self.assertEqual(self.held.total, 0)

    def test_shutdown_at_the_end(self) -> None:
        """A stream that is complete except for unread bytes ends properly at shutdown."""
        job = self.fleet.add_job(b"x" * 300_000, spec=large(300_000), state=JobState.SUCCEEDED)
        clients = [
            self.unread(f"/v1/jobs/{job.id}/output", accept="text/event-stream"),
            self.unread(f"/v1/jobs/{job.id}/output?follow=1"),
        ]
        for client in clients:
            for _ in range(3):
                if not client.response().complete:
                    client.socket.take()
        clients.append(self.unread(f"/v1/jobs/{job.id}/output?follow=1"))
        self.assertFalse(clients[-1].response().complete)
        self.server.site.under_way.end()
        clients[-1].socket.take()
        self.assertEqual([client.response().complete for client in clients], [True] * 3)
        self.assertEqual([name for name, _, _ in parse(clients[0].response().body)][-1], "end")

    def test_events_are_cut(self) -> None:
        """An event stream whose client reads nothing is cut when the memory is needed."""
        self.held.most = 500_000
        job = self.fleet.add_job(spec=large(300_000))
        clients = [self.unread(f"/v1/jobs/{job.id}/output", accept="text/event-stream") for _ in range(2)]
        self.assertEqual([client.socket.aborted for client in clients], [True, False])
        self.assertEqual(len(self.house.workers.running()), 2)

    def test_output(self) -> None:
        """Unread output counts until the client has read it or is gone."""
        job = self.fleet.add_job(b"x" * 300_000, state=JobState.SUCCEEDED)
        client = self.unread(f"/v1/jobs/{job.id}/output")
        self.assertGreater(self.held.total, PIECE_BYTES)
        client.hang_up()
        self.assertEqual(self.held.total, 0)

    def test_output_of_jobs(self) -> None:
        """A page with the output of jobs is in memory as a whole, and counts as a whole."""
        for _ in range(8):
            self.fleet.add_job(b"x" * 100_000, state=JobState.SUCCEEDED)
        client = self.unread("/v1/jobs?output=100000")
        self.assertGreater(self.held.total, 800_000)
        self.read_all(client)
        self.assertEqual(self.held.total, 0)

    def test_never_itself(self) -> None:
        """A single answer larger than the limit is held."""
        cut: list[str] = []

        class Client:
            def cut_off(self) -> None:
                cut.append("cut")

        held = Held(10)
        held.hold(Client(), 11)
        self.assertEqual((cut, held.total), ([], 11))
        self.assertGreater(HELD_MAX_BYTES, 2 * PAGE_MAX_BYTES)


class StoredTests(BodyTestCase):
    """Jobs of which only the store has a part."""

    def setUp(self) -> None:
        super().setUp()
        self.jobs = [
            self.fleet.add_job(spec=large(90_000), state=JobState.SUCCEEDED, created_at=NOW - 10 + number)
            for number in range(10)
        ]
        self.path = f"/v1/jobs/{self.jobs[0].id}"

    def test_a_list(self) -> None:
        """A list reads the parts from the store one piece at a time, and shows all jobs in order."""
        self.jobs.append(self.fleet.add_job())
        asked: list[int] = []
        with_specs = self.scheduler.with_specs
        self.patch(self.scheduler, "with_specs", lambda jobs: (asked.append(len(jobs)), with_specs(jobs))[1])
        client = self.unread("/v1/jobs")
        self.assertEqual(asked, [1])
        self.read_all(client)
        self.assertEqual(asked, [1] * 10)
        listed = client.response().json()["jobs"]
        self.assertEqual([job["id"] for job in listed], [job.id for job in reversed(self.jobs)])
        self.assertEqual([len(job["args"][0]) for job in listed[1:]], [90_000] * 10)

    def test_the_store_fails(self) -> None:
        """While the store fails, a list has ``null`` for the parts and one job is 503. Stops are answered as usual."""
        self.scheduler.fail["with_specs"] = StoreFailed("disk full")
        for job in self.server.ask("GET", "/v1/jobs").response().json()["jobs"]:
            self.assertEqual((job["args"], job["env"]), (None, None))
        response = self.server.ask("GET", self.path).response()
        self.assertEqual((response.status, response.json()["type"][-13:]), (503, "store-failing"))
        stopped = self.server.ask("POST", f"{self.path}/stop").response()
        self.assertEqual((stopped.status, stopped.json()["args"]), (200, None))

    def test_everywhere(self) -> None:
        """Each answer with one such job has all of it."""
        for method, target in (
            ("GET", self.path),
            ("GET", f"{self.path}?output=1"),
            ("GET", f"{self.path}?wait=1&check=1"),
            ("POST", f"{self.path}/stop"),
        ):
            self.assertEqual(len(self.server.ask(method, target).response().json()["args"][0]), 90_000, target)
        for job in self.server.ask("GET", "/v1/jobs?output=1").response().json()["jobs"]:
            self.assertEqual(len(job["args"][0]), 90_000)

    def test_events(self) -> None:
        """The last event of a stream has all of the job."""
        body = self.server.ask("GET", f"{self.path}/output", accept="text/event-stream").response().body
        first, last = (data for _, _, data in parse(body))
        self.assertEqual((first["args"], len(last["args"][0])), (None, 90_000))


class ProblemTests(BodyTestCase):
    def test_large(self) -> None:
        """A problem document with a large job is written like any other large answer."""
        job = self.fleet.add_job(spec=large(300_000))
        self.fleet.end(job.id, 1)
        client = self.unread(f"/v1/jobs/{job.id}?wait=0&check=1")
        self.read_all(client)
        self.assertEqual((client.response().status, json.loads(client.response().body)["job_id"]), (424, job.id))
