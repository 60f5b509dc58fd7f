"""Queries of one worker that go together in one call, with any answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import grpc
from attrs import evolve
from twisted.internet.defer import CancelledError, Deferred

from scheduler.daemon.logs import REQUEST_ID
from scheduler.errors import Busy, DeadlineExceeded, NotFound, SchedulerError, ShuttingDown, Unreachable, WorkerFault
from scheduler.messages import JobStatus
from scheduler.model import JobState, Worker
from scheduler.pb import worker_pb2
from scheduler.rpc import status
from scheduler.rpc.worker_client import CALLS_PER_WORKER, QUERIES_PER_WORKER
from tests.integration.rpc import RpcCase, a_worker, later

RUNNING = JobState.RUNNING


class Asked(RpcCase):
    """A worker that records the ids of each call, and delays it if the test says so."""

    def setUp(self) -> None:
        super().setUp()
        self.client = self.worker_client()
        self.calls: list[str] = []
        self.sealed: list[str] = []
        self.requests: list[object] = []
        self.go_on = threading.Event()
        self.addCleanup(self.go_on.set)
        self.hangs: set[str] = set()
        self.worker = self.stand_in(QueryJob=self.one, QueryJobs=self.many)

    def note(self, ids: list[str], context: grpc.ServicerContext) -> None:
        self.calls.append(" ".join(ids))
        self.requests.append(dict(context.invocation_metadata()).get("x-request-id"))
        if self.hangs.intersection(ids):
            self.go_on.wait()

    def one(self, request: worker_pb2.QueryJobReq, context: grpc.ServicerContext) -> worker_pb2.QueryJobRes:
        self.note([request.jobID], context)
        if request.seal:
            self.sealed.append(request.jobID)
        if request.jobID.startswith("no"):
            context.abort(grpc.StatusCode.NOT_FOUND, "")
        return worker_pb2.QueryJobRes(status=self.told(request.jobID))

    def many(self, request: worker_pb2.QueryJobsReq, context: grpc.ServicerContext) -> worker_pb2.QueryJobsRes:
        self.note(list(request.jobID), context)
        return worker_pb2.QueryJobsRes(status=map(self.told, request.jobID))

    def told(self, job_id: str, **more: Any) -> worker_pb2.JobStatus:
        return worker_pb2.JobStatus(jobID=job_id, reason=f"of {job_id}", **more)

    def ask(self, *ids: str, worker: Worker | None = None, seal: bool = False) -> list[Deferred[JobStatus]]:
        return [self.client.query_job(worker or self.worker, job_id, seal) for job_id in ids]

    async def answered(self, *ids: str, **how: Any) -> None:
        """Each query gets its own answer."""
        for job_id, answer in zip(ids, self.ask(*ids, **how), strict=True):
            self.assertEqual(await answer, JobStatus(job_id, RUNNING, f"of {job_id}"))

    async def until(self, calls: list[str]) -> None:
        while self.calls != calls:
            await later(0.01)


class BatchTests(Asked):
    async def test_together(self) -> None:
        """The first query goes alone, and those that come meanwhile in one call; a known job needs no seal."""
        await self.answered("a", "b", "c", "b", seal=True)
        self.assertEqual(self.calls, ["a", "b c b"])
        await self.answered("d")
        self.assertEqual(self.calls[2:], ["d"])
        self.assertEqual(self.sealed, ["a"])

    async def test_core_protocol(self) -> None:
        """A core worker gets single queries."""
        await self.answered("a", "b", "c", worker=evolve(self.worker, boot_id=""))
        self.assertEqual(sorted(self.calls), ["a", "b", "c"])

    async def test_lacks_it(self) -> None:
        """A worker without QueryJobs gets single queries; with a new channel it is tried again."""
        tried: list[str] = []

        def lacking(request: worker_pb2.QueryJobsReq, context: grpc.ServicerContext) -> None:
            tried.extend(request.jobID)
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "")

        self.worker = self.stand_in(QueryJob=self.one, QueryJobs=lacking)
        await self.answered("a", "b", "c", seal=True)
        self.assertEqual(sorted(self.calls), ["a", "b", "c"])
        self.assertEqual(sorted(self.sealed), ["a", "b", "c"])
        self.hangs = {"d"}
        (hanging,) = self.ask("d")
        await self.answered("e", "f")
        self.assertFalse(hanging.called)
        self.assertEqual(tried, ["b", "c"])
        self.client.forget(self.worker.id)
        await self.assertFailure(hanging, Unreachable)
        self.worker = self.stand_in(QueryJob=self.one, QueryJobs=self.many)
        await self.answered("g", "h", "i")
        self.assertEqual(self.calls[-2:], ["g", "h i"])

    async def test_without_it(self) -> None:
        """So does a worker that does not know the method at all."""
        self.worker = self.stand_in(QueryJob=self.one)
        await self.answered("a", "b", "c", "d")
        self.assertEqual(sorted(self.calls), ["a", "b", "c", "d"])

    async def test_request_ids(self) -> None:
        """A single query carries its request's id; a call for several belongs to no request."""
        asked = []
        for name in "abc":
            token = REQUEST_ID.set(f"r-{name}")
            asked += self.ask(name)
            REQUEST_ID.reset(token)
        for answer in asked:
            await answer
        self.assertEqual(self.requests, ["r-a", None])


class AnswerTests(Asked):
    def answers(self, *statuses: worker_pb2.JobStatus) -> None:
        self.does(lambda request, context: worker_pb2.QueryJobsRes(status=statuses))

    def does(self, method: Callable[[Any, grpc.ServicerContext], Any]) -> None:
        self.worker = self.stand_in(QueryJob=self.one, QueryJobs=method)

    async def outcomes(self, *ids: str, **how: Any) -> list[JobStatus | SchedulerError]:
        """The results of queries that go together."""
        found: list[JobStatus | SchedulerError] = []
        for answer in self.ask("first", *ids, **how)[1:]:
            try:
                found.append(await answer)
            except SchedulerError as error:
                found.append(error)
        return found

    async def test_left_out(self) -> None:
        """A job that is left out is queried alone: it may exist, and if not, this seals its id."""
        self.answers(self.told("b"))
        a, b, none = await self.outcomes("a", "b", "none", seal=True)
        self.assertEqual((a.job_id, b.job_id), ("a", "b"))
        self.assertIsInstance(none, NotFound)
        self.assertEqual((none.kind, none.name), ("job", "none"))
        self.assertEqual(sorted(self.calls), ["a", "first", "none"])
        self.assertEqual(sorted(self.sealed), ["a", "first", "none"])

    async def test_others(self) -> None:
        """Statuses of jobs that were not queried are ignored, however often they come."""
        self.answers(self.told("x"), self.told("b"), self.told("../x"), self.told("a"), self.told("x"), self.told("b"))
        a, b = await self.outcomes("a", "b")
        self.assertEqual((a.job_id, a.reason, b.job_id, b.reason), ("a", "of a", "b", "of b"))
        self.assertEqual(self.calls, ["first"])

    async def test_malformed(self) -> None:
        """An impossible status is the worker's fault, for its job alone."""
        self.answers(self.told("a", startedAt=float("nan")), self.told("b"), self.told("c", outcome=77))
        a, b, c = await self.outcomes("a", "b", "c")
        for fault, field in ((a, "startedAt"), (c, "outcome")):
            self.assertIsInstance(fault, WorkerFault)
            self.assertIn(field, fault.detail)
        self.assertEqual(b.reason, "of b")

    async def test_refused(self) -> None:
        """A refusal counts for each query; none means that a job is unknown."""
        for code, expected in (
            (grpc.StatusCode.INTERNAL, WorkerFault),
            (grpc.StatusCode.INVALID_ARGUMENT, WorkerFault),
            (grpc.StatusCode.NOT_FOUND, WorkerFault),
            (grpc.StatusCode.UNAVAILABLE, Unreachable),
            (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        ):
            self.does(lambda request, context, code=code: context.abort(code, "details"))
            self.assertEqual([type(error) for error in await self.outcomes("a", "b")], [expected] * 2)
            self.client.forget(self.worker.id)
        self.does(lambda request, context: status.abort(context, NotFound("job", "a")))
        self.assertEqual([type(error) for error in await self.outcomes("a", "b")], [WorkerFault] * 2)


class StuckTests(Asked):
    """A worker that answers some queries late or never."""

    async def test_hung_call(self) -> None:
        """A query that hangs delays those of other jobs only for a moment; a cancelled one delays none."""
        self.hangs = {"a"}
        hanging, given_up, *others = self.ask("a", "b", "c", "d")
        given_up.addErrback(lambda reason: reason.trap(CancelledError))
        given_up.cancel()
        for answer in others:
            await answer
        self.assertEqual(self.calls, ["a", "c d"])
        await self.answered("e", "f", "g")
        self.assertFalse(hanging.called)
        self.go_on.set()
        self.assertEqual((await hanging).job_id, "a")

    async def test_limit(self) -> None:
        """Unanswered queries hold few places. They wait up to a limit, then fail with Busy; all end in time."""
        self.client = self.worker_client(deadline=1.0)
        ids = [f"j{number}" for number in range(QUERIES_PER_WORKER)]
        self.hangs = set(ids)
        asked = self.ask(*ids)
        error = await self.assertFailure(self.ask("beyond")[0], Busy)
        self.assertEqual(error.limit, QUERIES_PER_WORKER)
        held = [ids[0], *(" ".join(ids[first : first + 64]) for first in (1, 65, 129))]
        await self.until(held)
        errors = [await self.assertFailure(answer, DeadlineExceeded) for answer in asked[:193]]
        self.assertLessEqual(errors[0].seconds, 1.0)  # less if the machine was busy before it was sent
        self.assertLess(max(error.seconds for error in errors[1:]), 1.0)  # they had waited for a part of it
        for answer in asked[193:]:  # their time was over before they had a place
            await self.assertFailure(answer, Busy, DeadlineExceeded)
        self.assertEqual(self.calls[:4], held)
        self.go_on.set()
        await self.answered("after")

    async def test_deadline(self) -> None:
        """A query whose time is over while it waits is never sent."""
        self.client = self.worker_client(deadline=0.5)
        self.hangs = set("abcdef")
        asked = []
        for number in range(5):  # the fifth finds all places taken
            asked += self.ask("abcdef"[number])
            await self.until(list("abcdef"[: min(number + 1, CALLS_PER_WORKER)]))
        for answer in asked[:4]:
            await self.assertFailure(answer, DeadlineExceeded)
        await self.assertFailure(asked[4], Busy, DeadlineExceeded)
        self.assertLessEqual(len(self.calls), 5)

    async def test_forgotten(self) -> None:
        """Queries of a forgotten worker fail, sent and waiting ones; it can be queried again."""
        self.hangs = {"a"}
        asked = self.ask("a", "b", "c")
        await self.until(["a"])
        self.client.forget(self.worker.id)
        for answer in asked:
            self.assertEqual((await self.assertFailure(answer, Unreachable)).name, self.worker.name)
        await self.answered("d", "e")
        self.assertEqual(self.calls, ["a", "d", "e"])

    async def test_moved(self) -> None:
        """Queries that wait when a worker moves go to its new address."""
        self.hangs = {"a"}
        asked = self.ask("a", "b")
        await self.until(["a"])
        there = a_worker(self.stand_in(QueryJob=self.one, QueryJobs=self.many).address, self.worker.id)
        asked += self.ask("c", worker=there)
        self.assertEqual([(await answer).job_id for answer in asked[1:]], ["b", "c"])
        await self.assertFailure(asked[0], Unreachable)

    async def test_stopped(self) -> None:
        """When the client stops, all sent and waiting queries fail."""
        self.hangs = {"a"}
        asked = self.ask("a", "b", "c")
        await self.until(["a"])
        await self.client.stopService()
        for answer in asked:
            await self.assertFailure(answer, Unreachable, ShuttingDown)

    async def test_stopped_for_good(self) -> None:
        """Their failures make no new call."""
        self.hangs = {"a"}
        asked = self.ask("a", "b")
        asked[1].addErrback(lambda _: self.client.probe(self.worker))
        await self.until(["a"])
        await self.client.stopService()
        await self.assertFailure(asked[0], Unreachable, ShuttingDown)
        await self.assertFailure(asked[1], ShuttingDown)
