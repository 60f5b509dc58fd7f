"""Repetitions: which requests are repeated, for how long, and the error at the end."""

from twisted.trial.unittest import SynchronousTestCase

from scheduler.client.errors import ApiProblem, ClientError, ConnectionFailed
from scheduler.client.exchange import Answer, Head, Loss, NoAnswer, Request
from scheduler.client.repeating import DECISIONS, PAUSE_MAX_SECONDS, may_repeat
from tests.unit.client.world import CUT, PATIENCE, REFUSED, UNTRUSTED, Reply, World, answer, job, problem

READ = Request("GET", "/v1/jobs/j1")
START = Request("POST", "/v1/jobs", submits=True)
SIGNAL = Request("POST", "/v1/jobs/j1/signal", repeatable=False)

#: The first request with this key is in progress.
IN_USE = problem(409, "key-in-use", retry_after="1")

JSON = {"content-type": "application/json"}


def refusal(status: int, kind: str = "", **headers: str) -> Answer:
    """A refusal by the scheduler."""
    return Answer(status, headers, b'{"type": "/problems/%s"}' % kind.encode())


class MayRepeatTests(SynchronousTestCase):
    """``may_repeat`` decides about repetitions."""

    def assertRepeats(self, outcome: Answer | NoAnswer, read: bool, start: bool, signal: bool) -> None:
        found = [may_repeat(request, outcome, reached=True) for request in (READ, START, SIGNAL)]
        self.assertEqual(found, [read, start, signal], outcome)

    def test_no_answer(self) -> None:
        """A request that certainly never arrived may be repeated. One that may have arrived needs to be repeatable."""
        self.assertRepeats(REFUSED, True, True, True)
        self.assertRepeats(CUT, True, True, False)
        self.assertRepeats(UNTRUSTED, False, False, False)

    def test_never_reached(self) -> None:
        """An address that never answered is not waited for."""
        for request in (READ, START, SIGNAL):
            self.assertFalse(may_repeat(request, REFUSED, reached=False))
        self.assertTrue(may_repeat(READ, CUT, reached=False))

    def test_answers(self) -> None:
        """Temporary refusals are tried again; a scheduler's decision about a job is not."""
        for status, kind in ((503, "busy"), (503, "store-failing"), (503, "shutting-down"), (503, ""), (429, "busy")):
            self.assertRepeats(refusal(status, kind), True, True, False)
        for status, kind in ((504, "start-unanswered"), (504, "timeout"), (429, "queue-full")):
            self.assertRepeats(refusal(status, kind), True, True, False)
        for kind in DECISIONS:
            self.assertRepeats(refusal(503, kind), True, False, False)
        for status in (400, 401, 403, 404, 405, 409, 410, 413, 415, 416, 422, 424, 500, 501, 502):
            self.assertRepeats(refusal(status), False, False, False)
        self.assertRepeats(refusal(504, "job-not-ended"), False, False, False)

    def test_key_in_use(self) -> None:
        """409 with Retry-After means that the first request with the key is in progress."""
        self.assertRepeats(refusal(409, "key-in-use", **{"retry-after": "1"}), True, True, False)

    def test_proxy(self) -> None:
        """Answers of a proxy whose scheduler restarts are temporary, HTML or JSON. Those of a wrong server are not."""
        for body in (b"<html>", b"", b'{"message": "Service Unavailable"}', b'{"type": 5, "started": false}'):
            for status in (408, 425, 429, 500, 502, 503, 504, 520, 524):
                self.assertRepeats(Answer(status, {}, body), True, True, False)
            for status in (301, 307, 400, 401, 403, 404, 405, 409, 413, 501, 505):
                self.assertRepeats(Answer(status, {"retry-after": "1"}, body), False, False, False)

    def test_garbled(self) -> None:
        """After an answer that is not HTTP, the request is repeated only if a scheduler answered before."""
        garbled = NoAnswer(Loss.GARBLED, "what answers there does not speak HTTP")
        self.assertRepeats(garbled, True, True, False)
        self.assertFalse(may_repeat(START, garbled, reached=False))
        self.assertRepeats(NoAnswer(Loss.FOREIGN, ""), False, False, False)


class RepeatingTests(SynchronousTestCase):
    """A request is repeated until it is answered."""

    def test_same_key(self) -> None:
        """A repeated start has the same key, another start has another."""
        world = World(CUT, REFUSED, problem(503, "shutting-down"), IN_USE, answer(job(), 201))
        self.assertEqual(world.run(world.operations.submit("true", worker="w1")).id, "j1")
        world.run(world.operations.submit("true", worker="w1"))
        keys = [request.headers["Idempotency-Key"] for request in world.requests]
        self.assertEqual(keys, ["key 1"] * 5 + ["key 2"])
        self.assertEqual({str(request.body) for request in world.requests}, {"{'worker': 'w1', 'command': 'true'}"})

    def test_patience(self) -> None:
        """Pauses grow up to a limit, and all attempts together take no longer than ``patience``."""
        world = World(REFUSED).met()
        error = self.assertRaises(ConnectionFailed, world.run, world.operations.job("j1", None))
        self.assertIn("connection refused", str(error))
        self.assertIs(error.started, None)
        self.assertAlmostEqual(sum(world.pauses), PATIENCE)
        self.assertEqual(world.pauses[:3], [0.1, 0.2, 0.4])
        self.assertEqual(max(world.pauses), PAUSE_MAX_SECONDS)

    def test_retry_after(self) -> None:
        world = World(problem(503, "busy", retry_after="7"), answer(job()))
        world.run(world.operations.job("j1", None))
        self.assertEqual(world.pauses, [7.0])

    def test_cut_json(self) -> None:
        """Incomplete JSON in a complete body was cut before a proxy, so the request is repeated."""
        for rest in (b'{"id": "j1", "sta', b"", b"[" * 100_000):
            world = World(Reply(Head(200, JSON), [rest]), answer(job()))
            self.assertEqual(world.run(world.operations.job("j1", None)).id, "j1")
        world = World(Reply(Head(200, JSON), [b'{"id": "j']))
        self.assertRaises(ConnectionFailed, world.run, world.operations.signal("j1", "SIGUSR1", "main"))
        self.assertEqual(len(world.requests), 1)

    def test_removed_before(self) -> None:
        """A removal whose answer was lost counts as done if the repetition finds no job."""
        world = World(CUT, problem(404, "job-unknown"))
        self.assertIs(world.run(world.operations.remove("j1")), True)
        world = World(CUT, Reply(Head(404), [b"<html>"]))
        self.assertRaises(ApiProblem, world.run, world.operations.remove("j1"))
        world = World(problem(404, "job-unknown"))
        self.assertRaises(ApiProblem, world.run, world.operations.remove("j1"))

    def test_signal_once(self) -> None:
        """A signal whose answer is lost is not repeated; one that was never sent is."""
        world = World(CUT)
        self.assertRaises(ConnectionFailed, world.run, world.operations.signal("j1", "SIGUSR1", "main"))
        self.assertEqual(len(world.requests), 1)
        world = World(REFUSED, answer(job())).met()
        self.assertEqual(world.run(world.operations.signal("j1", "SIGUSR1", "tree")).id, "j1")
        self.assertEqual(world.requests[1].body, {"signal": "SIGUSR1", "to": "tree"})


class StartedTests(SynchronousTestCase):
    """The error of a submission says whether a job was started."""

    def test_started(self) -> None:
        """``started`` is ``False`` only if certainly nothing was started."""
        told = {"started": "unknown"}
        for replies, started in (
            ((REFUSED,), False),
            ((UNTRUSTED,), False),
            ((CUT, REFUSED), "unknown"),
            ((CUT,), "unknown"),
            ((problem(400, "invalid-request"),), False),
            ((problem(404, "worker-unknown"),), False),
            ((problem(503, "no-free-slot"),), False),
            ((problem(429, "queue-full"),), False),
            ((CUT, problem(401, "unauthorized")), "unknown"),
            ((problem(504, "start-unanswered"),), "unknown"),
            ((IN_USE,), "unknown"),
            ((problem(500, "internal"),), "unknown"),
            ((problem(502, "worker-fault"),), "unknown"),
            ((problem(502, "worker-fault", {"started": False}),), False),
            ((problem(409, "no-match", told),), "unknown"),
            ((problem(424, "job-failed", {"started": True, "job_id": "j1"}),), True),
            ((Reply(Head(503), [b"<html>"]),), "unknown"),
            ((Reply(Head(408), [b"<html>"]),), "unknown"),
            ((answer({"message": "Service Unavailable"}, 503),), "unknown"),
            ((answer({"type": 5, "started": False}, 503),), "unknown"),
            ((answer({"started": True}, 500),), "unknown"),
            ((Reply(Head(501), [b"<html>"]),), False),
            ((Reply(Head(301), [b"<html>"]),), False),
            ((NoAnswer(Loss.GARBLED, "garbage"),), "unknown"),
            ((NoAnswer(Loss.FOREIGN, "another protocol"),), False),
            ((Reply(Head(201, JSON), [b"[" * 100_000]),), "unknown"),
            ((answer({"nonsense": 1}, 201),), "unknown"),
            ((answer([], 201),), "unknown"),
        ):
            world = World(*replies)
            error = self.assertRaises(ClientError, world.run, world.operations.submit("true", worker="w1"))
            self.assertEqual(error.started, started, replies)

    def test_key(self) -> None:
        """An empty key is refused, and so is one that no header can contain, before anything is sent."""
        world = World(answer(job(), 201))
        for key in ("", "a\nb", "\u20ac", "\ud800"):
            self.assertRaises(ValueError, world.run, world.operations.submit("true", key=key, worker="w1"))
        self.assertEqual(world.requests, [])

    def test_job_id(self) -> None:
        """A job that an earlier answer named is in the error."""
        world = World(problem(504, "start-unanswered", {"job_id": "j9"}), CUT)
        error = self.assertRaises(ConnectionFailed, world.run, world.operations.submit("true", worker="w1"))
        self.assertEqual((error.job_id, error.started), ("j9", "unknown"))

    def test_problem(self) -> None:
        """The error contains the document's data."""
        world = World(problem(503, "no-free-slot", {"job_id": "j1", "more": 1}))
        error = self.assertRaises(ApiProblem, world.run, world.operations.submit("true", worker="w1"))
        self.assertEqual((error.status, error.type, error.detail), (503, "no-free-slot", "detail of 503"))
        self.assertEqual((error.job_id, error.document["more"], str(error)), ("j1", 1, "detail of 503"))
        blank = ApiProblem(404, {"type": "about:blank", "title": "Not Found"})
        self.assertEqual((blank.type, blank.detail), ("", "Not Found"))
        self.assertEqual(Loss.LOST, CUT.loss)
