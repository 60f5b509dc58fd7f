"""Log lines of calls at level debug."""

import io

import grpc
from attrs import evolve
from twisted.logger import globalLogPublisher

from scheduler.daemon.logs import from_level, observer
from scheduler.errors import WorkerFault
from scheduler.model import JobSpec
from tests.doubles.runner import FakeJobRunner
from tests.integration.rpc import RpcCase, a_job, a_worker

SECRET = "s3cret"


class LogTests(RpcCase):
    """Calls, as both sides log them."""

    def logged(self, log_level: str) -> io.StringIO:
        """The log at that level, from now on."""
        out = io.StringIO()
        ours = from_level(observer(out, False), log_level)
        globalLogPublisher.addObserver(ours)
        self.addCleanup(globalLogPublisher.removeObserver, ours)
        return out

    async def test_calls(self) -> None:
        """Each call is a line on both sides, only at debug, without its content."""
        debug, info = self.logged("debug"), self.logged("info")
        server = self.worker_server(FakeJobRunner())
        client = self.worker_client()
        spec = JobSpec(command="true", args=(SECRET,), env={"TOKEN": SECRET}, stdin=SECRET.encode(), script=None)
        await client.start_job(a_worker(str(server.bound)), evolve(a_job(), spec=spec))
        self.assertRegex(debug.getvalue(), r"debug .*worker_calls: StartJob on \S+: answered in [0-9.]+ ms")
        self.assertRegex(debug.getvalue(), r"debug .*: StartJob from ipv4:127.0.0.1:[0-9]+")
        self.assertNotIn(SECRET, debug.getvalue())
        self.assertNotIn("StartJob", info.getvalue())

    async def test_refused(self) -> None:
        """A call that fails is a line with its status."""
        debug = self.logged("debug")
        worker = self.stand_in(QueryJob=lambda request, context: context.abort(grpc.StatusCode.INTERNAL, SECRET))
        await self.assertFailure(self.worker_client().query_job(worker, "j"), WorkerFault)
        self.assertRegex(debug.getvalue(), r"QueryJob on stand-in: INTERNAL")
