"""The operations of the client: their requests, and their results for each answer."""

from __future__ import annotations

from datetime import UTC, datetime

from twisted.trial.unittest import SynchronousTestCase

from scheduler.client.errors import ApiProblem, ClientError, ConnectionFailed, JobFailed, OutputLost, WaitTimedOut
from scheduler.client.operations import OBJECTS_PER_PAGE, WAIT_REQUEST_SECONDS
from scheduler.client.values import Job, Readiness, Result, Version
from tests.unit.client.test_streams import event, events, text
from tests.unit.client.world import CUT, REFUSED, TIMEOUT, World, answer, job, problem

WORKER = {"id": "w", "name": "w1", "state": "online"}


def ended(state: str = "succeeded", **more: object) -> bytes:
    """The last event of a job."""
    return event("end", job(state=state, **more))


class RunTests(SynchronousTestCase):
    """``run``: a command and all of its output."""

    def run_(self, world: World, check: bool = False) -> Result:
        return world.run(world.operations.run(["a", "b"], check, None, None, {"worker": "w1"}))

    def test_result(self) -> None:
        """The result has the exit code, both whole streams and the job, also after a cut."""
        world = World(
            answer(job(), 201),
            events(text("stdout", 0, "one "), text("stderr", 0, "e"), end=CUT),
            events(text("stdout", 4, "two"), ended("failed", exit_code=3)),
        )
        result = self.run_(world)
        self.assertEqual((result.exit_code, result.stdout, result.stderr), (3, b"one two", b"e"))
        self.assertEqual((result.job.state, result.succeeded, result.output_error), ("failed", False, None))
        self.assertEqual(world.requests[0].body, {"command": "a", "args": ["b"], "worker": "w1"})

    def test_check(self) -> None:
        """With ``check`` any end but success is an error, which has the result."""
        end = ended("failed", exit_code=3, reason="exit status 3")
        world = World(answer(job(), 201), events(text("stderr", 0, "why"), end))
        error = self.assertRaises(JobFailed, self.run_, world, True)
        self.assertEqual((error.exit_code, error.stdout, error.stderr), (3, b"", b"why"))
        self.assertEqual((error.started, error.job_id, str(error)), (True, "j1", "job j1 failed: exit status 3"))
        world = World(answer(job(), 201), events(ended(exit_code=0)))
        self.assertEqual(self.run_(world, True).exit_code, 0)

    def test_output_error(self) -> None:
        """Output that was not kept is reported, and is an error with ``check``."""
        replies = answer(job(), 201), events(ended(exit_code=0, output_error="disk full"))
        self.assertEqual(self.run_(World(*replies)).output_error, "disk full")
        error = self.assertRaises(OutputLost, self.run_, World(*replies), True)
        self.assertEqual((error.started, error.result.exit_code), (True, 0))

    def test_retried(self) -> None:
        """The result is that of the last attempt."""
        world = World(
            answer(job(), 201),
            events(text("stdout", 0, "first"), ended("failed", retried_by="j2")),
            events(text("stdout", 0, "second"), event("end", job("j2", "succeeded"))),
        )
        result = self.run_(world, True)
        self.assertEqual((result.job.id, result.stdout), ("j2", b"second"))
        self.assertEqual(world.sent()[2], "GET /v1/jobs/j2/output")

    def test_fails_after_start(self) -> None:
        """An error after the job was accepted says that it was started, and names the job."""
        for reply, kind in ((REFUSED, ConnectionFailed), (problem(501), ApiProblem), (problem(410), OutputLost)):
            error = self.assertRaises(kind, self.run_, World(answer(job("j7"), 201), reply))
            self.assertEqual((error.started, error.job_id), (True, "j7"))

    def test_on_start(self) -> None:
        """``on_start`` gets the job before its output is awaited. The caller's key and fields are sent."""
        seen = []
        world = World(answer(job(), 201), events(ended()))
        fields = {"selector": {}, "stdin": b"\0\xff", "timeout": "5m", "cwd": None}

        def started(found: Job) -> None:
            seen.append((found.id, len(world.requests)))

        world.run(world.operations.run(None, False, started, "k", fields))
        self.assertEqual(seen, [("j1", 1)])
        self.assertEqual(world.requests[0].headers["Idempotency-Key"], "k")
        self.assertEqual(world.requests[0].body, {"selector": {}, "stdin_base64": "AP8=", "timeout": "5m"})

    def test_command(self) -> None:
        """Arguments are given in one place only."""
        operations = World(answer(job(), 201)).operations
        for command, fields in (([], {}), (["a", "b"], {"args": ["c"]}), (["a", "b"], {"path": "p"})):
            self.assertRaises(ValueError, next, operations.submit(command, **fields))
        world = World(answer(job(), 201))
        world.run(world.operations.submit("a", args=("b",), shell=None))
        self.assertEqual(world.requests[0].body, {"command": "a", "args": ["b"]})


class WaitTests(SynchronousTestCase):
    def test_wait(self) -> None:
        """``wait`` uses several short requests, so that a dead connection is noticed."""
        world = World(answer(job()), answer(job(state="failed", exit_code=1)))
        self.assertEqual(world.run(world.operations.wait("j1", None)).exit_code, 1)
        self.assertEqual({request.query for request in world.requests}, {(("wait", f"{WAIT_REQUEST_SECONDS:g}"),)})
        self.assertEqual({request.silence for request in world.requests}, {WAIT_REQUEST_SECONDS + TIMEOUT})
        self.assertEqual(len(world.pauses), 1)  # the answer came early, so the next request does not follow at once

    def test_timeout(self) -> None:
        """A wait that times out raises a TimeoutError with the present job."""
        world = World(answer(job()))
        error = self.assertRaises(WaitTimedOut, world.run, world.operations.wait("j1", 0.5))
        self.assertIsInstance(error, TimeoutError)
        self.assertIsInstance(error, ClientError)
        self.assertEqual(error.job.state, "running")
        self.assertEqual(world.requests[0].query, (("wait", "0.5"),))
        self.assertRaises(WaitTimedOut, world.run, world.operations.wait("j1", 0))

    def test_job(self) -> None:
        """``job`` returns at once, or after a wait."""
        world = World(answer(job()))
        self.assertEqual(world.run(world.operations.job("j1", None)).state, "running")
        world.run(world.operations.job("j1", 5))
        self.assertEqual([request.query for request in world.requests], [(), (("wait", "5"),)])


class ListTests(SynchronousTestCase):
    def test_pages(self) -> None:
        """Pages are fetched one by one, for no more jobs than wanted."""
        first = answer({"jobs": [job("a"), job("b")], "next": "c1"})
        world = World(first, answer({"jobs": [job("c")], "next": None}))
        self.assertEqual([each.id for each in world.items(world.operations.jobs())], ["a", "b", "c"])
        self.assertEqual(world.requests[1].query, (("limit", str(OBJECTS_PER_PAGE)), ("cursor", "c1")))
        world = World(first)
        self.assertEqual(len(world.items(world.operations.jobs(limit=2))), 2)
        self.assertEqual([request.query for request in world.requests], [(("limit", "2"),)])
        world = World(first)
        self.assertEqual((world.items(world.operations.jobs(limit=0)), world.requests), ([], []))

    def test_an_empty_page(self) -> None:
        """A page may be empty or short and still have a ``next``, which is followed."""
        short = answer({"jobs": [job("a")], "next": "c2"})
        world = World(answer({"jobs": [], "next": "c1"}), short, answer({"jobs": [job("b")], "next": None}))
        self.assertEqual([each.id for each in world.items(world.operations.jobs(limit=2))], ["a", "b"])
        self.assertEqual([dict(request.query).get("limit") for request in world.requests], ["2", "2", "1"])

    def test_filters(self) -> None:
        """Filters may have Python types."""
        world = World(answer({"jobs": []}))
        filters = {
            "state": ["failed", "lost"],
            "label": {"a": "1", "b": "2"},
            "orphan": True,
            "worker": None,
            "created_after": datetime(2024, 5, 1, tzinfo=UTC),
            "group_id": "g",
        }
        world.run(world.operations.stop_matching(**filters))
        pairs = (("state", "failed,lost"), ("label", "a=1"), ("label", "b=2"), ("orphan", "1"))
        self.assertEqual(world.requests[0].query[:4], pairs)
        when = dict(world.requests[0].query)["created_after"]
        self.assertEqual(datetime.fromisoformat(when), filters["created_after"])
        self.assertEqual(len(world.requests[0].query), 6)
        world.run(world.operations.stop_matching(label=["x=1", "y=2"]))
        self.assertEqual(world.requests[1].query, (("label", "x=1"), ("label", "y=2")))


class OtherTests(SynchronousTestCase):
    def test_requests(self) -> None:
        """Each operation has its method, path and result."""
        for make, reply, sent, result in (
            (lambda on: on.stop("j1"), answer(job(state="stopped")), "POST /v1/jobs/j1/stop", "stopped"),
            (lambda on: on.signal("j1", "SIGHUP", "main"), answer(job()), "POST /v1/jobs/j1/signal", "running"),
            (lambda on: on.worker("w1"), answer(WORKER), "GET /v1/workers/w1", "online"),
            (lambda on: on.drain("w1"), answer(WORKER), "POST /v1/workers/w1/drain", "online"),
            (lambda on: on.resume("w1"), answer(WORKER), "POST /v1/workers/w1/resume", "online"),
        ):
            world = World(reply)
            self.assertEqual(world.run(make(world.operations)).state, result)
            self.assertEqual(world.sent(), [sent])
        world = World(answer({"workers": [WORKER]}))
        self.assertEqual([each.name for each in world.run(world.operations.workers())], ["w1"])
        world = World(answer(status=204))
        self.assertIs(world.run(world.operations.forget("w1")), None)
        self.assertEqual(world.sent(), ["DELETE /v1/workers/w1"])

    def test_tokens(self) -> None:
        """A token is made once, listed and revoked; its text is in no representation."""
        token = {"id": "abcd2345ef", "name": "ci", "scope": "run", "expires_at": "2030-01-01T00:00:00Z"}
        world = World(answer({**token, "token": "sched_x"}, 201), answer({"tokens": [token]}), answer(status=204))
        expires = datetime(2030, 1, 1, tzinfo=UTC)
        made = world.run(world.operations.create_token("ci", "run", workers={"gpu": "1"}, expires=expires))
        self.assertEqual((made.token, made.expires_at), ("sched_x", expires))
        self.assertNotIn("sched_x", repr(made))
        self.assertFalse(world.requests[0].repeatable)
        body = world.requests[0].body
        assert body is not None
        self.assertEqual(datetime.fromisoformat(body["expires"]), expires)
        self.assertEqual(
            body | {"expires": None}, {"name": "ci", "scope": "run", "workers": {"gpu": "1"}, "expires": None}
        )
        self.assertEqual([each.name for each in world.run(world.operations.tokens())], ["ci"])
        world.run(world.operations.revoke_token("abcd2345ef"))
        self.assertEqual(world.sent(), ["POST /v1/tokens", "GET /v1/tokens", "DELETE /v1/tokens/abcd2345ef"])

    def test_remove(self) -> None:
        """``remove`` returns whether the job is removed already."""
        for status, removed in ((204, True), (202, False)):
            world = World(answer(job() if status == 202 else None, status))
            self.assertIs(world.run(world.operations.remove("j1")), removed)
            self.assertEqual(world.sent(), ["DELETE /v1/jobs/j1"])

    def test_ready(self) -> None:
        """A scheduler that is not ready gives an answer, not an error."""
        world = World(answer({"ready": True, "workers_online": 2}))
        self.assertEqual(world.run(world.operations.ready()), Readiness(True, 2))
        world = World(problem(503, "not-ready", {"reasons": ["no store"], "workers_online": 1}))
        self.assertEqual(world.run(world.operations.ready()), Readiness(False, 1, ("no store",)))

    def test_version(self) -> None:
        """``version`` returns the scheduler's version."""
        world = World(answer({"version": "1.2", "api": "v1"}))
        self.assertEqual(world.run(world.operations.version()), Version("1.2", "v1"))

    def test_not_a_scheduler(self) -> None:
        """An answer of another program is an error."""
        for script in ("workers", "version", "ready"):
            for reply in (answer([1]), answer()):
                world = World(reply)
                self.assertRaises(ClientError, world.run, getattr(world.operations, script)())
