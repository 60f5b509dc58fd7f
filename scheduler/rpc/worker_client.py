"""Calls to workers: blocking stubs on pools of their own, bridged to the reactor.

Theory of operation. Each worker id has one channel. It is made at the first call, and replaced when the address, the
worker's name or the certificates of this process change. Calls in flight end on the channel on which they began, unless
the worker is elsewhere now.

A worker gets few unary calls at once, so a stuck worker holds some threads but never all. When many threads are held,
each worker gets one, so others are delayed only if dozens are stuck. Calls, reads of output and probes
(``scheduler.rpc.probes``) have separate threads. The deadline of a call counts from when it was requested: a call that
waited too long for its turn is never made.

Simultaneous queries of one worker go together in one call, if the worker supports that. If its answer leaves out a job,
this proves nothing: the job is then queried alone, as only ``QueryJob`` reports a missing job, or seals its id.

An output stream has a thread, which receives the next message only when the receiver is done with the previous one.

A core worker gives its id of a job only in the answer to the start. So an answer that misses its deadline is still
awaited, without a thread.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar, cast

import grpc
from attrs import field, frozen
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from scheduler.daemon.servers import TlsFiles
from scheduler.errors import Busy, Misdirected, ShuttingDown, Unreachable
from scheduler.interfaces import Deliver, IOutputStream, IWorkerClient
from scheduler.messages import Chunk, JobStatus
from scheduler.model import Job, Stream, Worker
from scheduler.pb import worker_pb2
from scheduler.rpc import convert, worker_calls
from scheduler.rpc.addressing import Addressee
from scheduler.rpc.batches import Batches
from scheduler.rpc.channel import CALL_DEADLINE_SECONDS, MAX_QUERIED_AT_ONCE, Dialler
from scheduler.rpc.probes import Probes
from scheduler.rpc.worker_calls import Stubs, ask_thd
from scheduler.threads import Hop, Limiter, Pool

T = TypeVar("T")

#: Unary calls in flight per worker, and calls that wait.
CALLS_PER_WORKER, WAITING_CALLS_PER_WORKER = 4, 64
#: Queries of one worker without an answer: as many as its calls in flight can carry.
QUERIES_PER_WORKER = CALLS_PER_WORKER * MAX_QUERIED_AT_ONCE
#: Threads for calls and for reading output.
MAX_CALL_THREADS, MAX_READ_THREADS = 64, 32
#: Output streams at once, each with a thread.
MAX_OUTPUT_STREAMS = 256
#: Late answers to starts that are awaited from one core worker.
LATE_ANSWERS_PER_WORKER = 64
#: Seconds after which a stream is cut; the caller resumes it at the same offset.
STREAM_DEADLINE_SECONDS = 3600.0
#: Seconds for which a receiver may delay the next message.
HELD_UP_MAX_SECONDS = 30.0


@frozen
class _Query:
    worker: Worker
    job_id: str
    seal: bool
    asked: float = field(factory=time.monotonic)


@implementer(IWorkerClient)
class WorkerClient(MultiService):
    """Calls workers. Usable while it runs as a service."""

    def __init__(
        self, reactor: IReactorFromThreads, tls: TlsFiles | None, nonce: str, deadline: float = CALL_DEADLINE_SECONDS
    ) -> None:
        """``nonce`` is that of this scheduler process. ``deadline``: seconds, for every call except streams."""
        super().__init__()
        self._nonce = nonce
        self._tls = tls
        self._deadline = deadline
        self._dialler: Dialler | None = None
        self._hop = Hop(reactor)
        self._calls = Pool(reactor, "worker-calls", MAX_CALL_THREADS)
        self._reads = Pool(reactor, "worker-reads", MAX_READ_THREADS)
        self._probes = Probes(reactor, deadline)
        self._streams = Pool(reactor, "worker-streams", MAX_OUTPUT_STREAMS)
        for threads in (self._calls, self._reads, self._probes, self._streams):
            threads.setServiceParent(self)
        self._call_limit = Limiter("worker calls", CALLS_PER_WORKER, WAITING_CALLS_PER_WORKER, MAX_CALL_THREADS)
        self._read_limit = Limiter("output reads", CALLS_PER_WORKER, WAITING_CALLS_PER_WORKER, MAX_READ_THREADS)
        clock = cast(IReactorTime, reactor)
        self._queries: Batches[_Query, JobStatus | None] = Batches(
            clock, "queries", self._query_together, MAX_QUERIED_AT_ONCE, QUERIES_PER_WORKER
        )
        self.stubs: dict[str, Stubs] = {}
        # those with earlier certificates, whose calls have not ended
        self._retired: set[Stubs] = set()
        # worker id -> number of late answers that are awaited
        self._late: Counter[str] = Counter()
        self._open: set[_Stream] = set()

    def startService(self) -> None:
        """Raises ``OSError`` if the certificates can't be read."""
        self._dialler = Dialler(self._tls)
        super().startService()

    def stopService(self) -> Deferred[Any]:
        """End the calls in flight. Fires when no thread is left."""
        self._hop.close()
        stopped: Deferred[Any] = super().stopService()  # first, so that no failure of a call below can make another one
        for stream in tuple(self._open):
            stream.cancel()
        for worker_id in tuple(self.stubs):
            self.forget(worker_id)
        for stubs in tuple(self._retired):
            stubs.channel.close()
        return stopped

    def forget(self, worker_id: str) -> None:
        self._hang_up(worker_id)
        self._queries.drop(worker_id, lambda query: Unreachable(query.worker.name))

    def _hang_up(self, worker_id: str) -> None:
        if (stubs := self.stubs.pop(worker_id, None)) is not None:
            stubs.channel.close()

    def probe(self, worker: Worker) -> Deferred[None]:
        to = Addressee.of(worker, self._nonce)
        return self._on_channel(worker, lambda stubs: self._probes.probe(stubs, to))

    def answers(self, worker: Worker) -> Deferred[bool | None]:
        if self._dialler is None or not self.running:
            return fail(ShuttingDown())
        stubs = Stubs(self._dialler.dial_worker(worker.address, worker.name))

        def over(result: T) -> T:
            stubs.channel.close()
            return result

        return self._probes.answers(stubs, Addressee.of(worker, self._nonce)).addBoth(over)

    def start_job(
        self, worker: Worker, job: Job, late: Callable[[Deferred[JobStatus]], None] | None = None
    ) -> Deferred[JobStatus]:
        late_thd = None
        if worker.is_core:
            if late is not None and self._late[worker.id] < LATE_ANSWERS_PER_WORKER:
                late_thd = self._listener(worker.id, late)
            request = convert.core_start_to_pb(job.spec)
        else:
            request = convert.start_to_pb(job.id, job.spec, job.created_at, job.key)
        return self._call(worker, partial(worker_calls.start_thd, late_thd), request)

    def _listener(
        self, worker_id: str, late: Callable[[Deferred[JobStatus]], None]
    ) -> Callable[[worker_calls.Listen], None]:
        """Make a function that a thread calls with an unanswered start. Awaiting the answer then holds no thread."""
        answer: Deferred[JobStatus] = Deferred()
        tell_thd = partial(self._hop.tell_thd, copy_context().run)

        def begin() -> None:
            self._late[worker_id] += 1
            late(answer)

        def over(result: JobStatus | Failure) -> None:
            self._late[worker_id] -= 1
            if not self._late[worker_id]:
                del self._late[worker_id]
            answer.callback(result)  # a Failure starts the errbacks

        def late_thd(listen_thd: worker_calls.Listen) -> None:
            tell_thd(begin)
            listen_thd(lambda result: tell_thd(over, result))

        return late_thd

    def stop_job(self, worker: Worker, job_id: str) -> Deferred[JobStatus | None]:
        def read(answer: worker_pb2.StopJobRes) -> JobStatus | None:
            return convert.status_of_from_pb(job_id, answer.status) if answer.HasField("status") else None

        return self._call(worker, partial(ask_thd, "StopJob", read), worker_pb2.StopJobReq(jobID=job_id, wait=False))

    def signal_job(self, worker: Worker, job_id: str, signal: str, to: str) -> Deferred[None]:
        request = worker_pb2.SignalJobReq(jobID=job_id, signal=signal, to=to)
        return self._call(worker, worker_calls.signal_thd, request)

    def remove_job(self, worker: Worker, job_id: str) -> Deferred[None]:
        return self._call(worker, partial(ask_thd, "RemoveJob", lambda _: None), worker_pb2.RemoveJobReq(jobID=job_id))

    def query_job(self, worker: Worker, job_id: str, seal: bool = False) -> Deferred[JobStatus]:
        query = _Query(worker, job_id, seal)
        stubs = self.stubs.get(worker.id)
        if worker.is_core or (stubs is not None and not stubs.answers_many):
            return self._query(query)

        def told(status: JobStatus | None) -> JobStatus | Deferred[JobStatus]:
            return self._query(query) if status is None else status

        return self._queries.ask(worker.id, query).addCallback(told)

    def _query(self, query: _Query) -> Deferred[JobStatus]:
        request = worker_pb2.QueryJobReq(jobID=query.job_id, seal=query.seal)
        read = partial(convert.query_from_pb, query.job_id)
        return self._call(query.worker, partial(ask_thd, "QueryJob", read), request, asked=query.asked)

    def _query_together(self, queries: list[_Query]) -> Deferred[list[JobStatus | Failure | None]]:
        """Query several jobs; ``None`` for those that must be queried alone, as the answer does not contain them."""
        if len(queries) == 1:
            return self._query(queries[0]).addBoth(lambda result: [result])
        request = worker_pb2.QueryJobsReq(jobID=[query.job_id for query in queries])
        # The deadline of the first query ends the call. The other queries were asked hardly later.
        return self._call(queries[-1].worker, worker_calls.query_together_thd, request, asked=queries[0].asked)

    def read_output(self, worker: Worker, job_id: str, stream: Stream, offset: int, size: int) -> Deferred[Chunk]:
        request = worker_pb2.ReadOutputReq(jobID=job_id, stream=stream.name, offset=offset, max=size)
        read = partial(convert.chunk_from_read, offset=offset, most=size)
        return self._call(worker, partial(ask_thd, "ReadOutput", read), request, output=True)

    def stream_output(
        self, worker: Worker, job_id: str, stream: Stream, offset: int, deliver: Deliver, starting: bool = False
    ) -> IOutputStream:
        if len(self._open) >= MAX_OUTPUT_STREAMS:
            raise Busy("output streams", MAX_OUTPUT_STREAMS)
        request = worker_pb2.StreamJobReq(jobID=job_id, stream=stream.name, offset=offset, starting=starting)
        to = Addressee.of(worker, self._nonce)
        opened = _Stream(self._hop, deliver)
        self._open.add(opened)

        def closed(result: T) -> T:
            self._open.discard(opened)
            return result

        pumping = self._on_channel(worker, lambda stubs: self._streams.run(opened.pump_thd, stubs, to, request))
        opened.follow(pumping.addBoth(closed))
        return opened

    def _on_channel(self, worker: Worker, call: Callable[[Stubs], Deferred[T]]) -> Deferred[T]:
        """Make a call on the worker's channel. The channel is made now if there is none for the worker as it is."""
        if self._dialler is None or not self.running:
            return fail(ShuttingDown())
        stubs = self.stubs.get(worker.id)
        meant = worker.address, self._dialler.worker_dns_name(worker.name)
        if stubs is not None and (stubs.channel.address, stubs.channel.dns_name) != meant:
            self._hang_up(worker.id)
            stubs = None
        if stubs is not None and stubs.channel.is_outdated:
            self._retire(self.stubs.pop(worker.id))
            stubs = None
        if stubs is None:
            stubs = self.stubs[worker.id] = Stubs(self._dialler.dial_worker(worker.address, worker.name))
        stubs.calls += 1
        return call(stubs).addBoth(self._over, stubs)

    def _over(self, result: T, stubs: Stubs) -> T:
        stubs.calls -= 1
        if stubs in self._retired:
            self._retire(stubs)
        return result

    def _retire(self, stubs: Stubs) -> None:
        """Close a channel that gets no further calls, now or when its calls have ended."""
        if stubs.calls:
            self._retired.add(stubs)
        else:
            self._retired.discard(stubs)
            stubs.channel.close()

    def _call(
        self, worker: Worker, call_thd: Callable[..., T], request: Any, output: bool = False, asked: float | None = None
    ) -> Deferred[T]:
        asked = time.monotonic() if asked is None else asked
        pool, limit = (self._reads, self._read_limit) if output else (self._calls, self._call_limit)
        to = Addressee.of(worker, self._nonce)

        def timed_thd(stubs: Stubs) -> T:
            seconds = asked + self._deadline - time.monotonic()
            if seconds <= 0:
                raise Busy(f"places for calls to worker {worker.name!r}", CALLS_PER_WORKER)
            return call_thd(stubs, to, request, seconds)

        return limit.run(worker.id, lambda: self._on_channel(worker, lambda stubs: pool.run(timed_thd, stubs)))


@implementer(IOutputStream)
class _Stream:
    """A call of StreamJob, and the thread that receives its messages."""

    def __init__(self, hop: Hop, deliver: Deliver) -> None:
        self.finished: Deferred[None] = Deferred()
        self._hop = hop
        self._deliver = deliver
        self._lock = threading.Lock()
        self._call: grpc.Call | None = None
        self._cancelled = False
        self._held: Deferred[None] | None = None

    def follow(self, pumping: Deferred[None]) -> None:
        """Report the end of ``pumping``, unless the stream was cancelled."""

        def report(result: Any) -> None:
            if not self._cancelled:
                self.finished.callback(result)  # a Failure starts the errbacks

        pumping.addBoth(report)

    def cancel(self) -> None:
        with self._lock:
            self._cancelled = True
            call = self._call
        if call is not None:
            call.cancel()
        held, self._held = self._held, None
        if held is not None:
            held.callback(None)

    def pump_thd(self, stubs: Stubs, to: Addressee, request: worker_pb2.StreamJobReq) -> None:
        """Deliver messages until the stream ends or is cut."""
        try:
            messages: Any = stubs.worker.StreamJob(request, timeout=STREAM_DEADLINE_SECONDS, metadata=to.metadata)
            with self._lock:
                self._call = messages
                cancelled = self._cancelled
            if cancelled:
                messages.cancel()
            for message in self._believed_thd(messages, to):
                chunk = convert.chunk_from_stream(message)
                self._hop.call_thd("receiver of output", HELD_UP_MAX_SECONDS, self._deliver_one, chunk)
        except grpc.RpcError as failure:
            raise worker_calls.understood(
                failure, stubs.channel, to, "StreamJob", request.jobID, STREAM_DEADLINE_SECONDS
            ) from failure
        except ValueError:  # the channel was closed
            raise Unreachable(to.name) from None
        finally:
            if self._call is not None:
                self._call.cancel()

    @staticmethod
    def _believed_thd(messages: Any, to: Addressee) -> Iterator[Any]:
        """The messages of the addressee. Raises ``Misdirected`` if another process sends them."""
        for message in messages:
            if not to.gave(messages.initial_metadata()):
                raise Misdirected(to.name)
            yield message
        if not to.gave(messages.trailing_metadata()):
            raise Misdirected(to.name)

    def _deliver_one(self, chunk: Chunk) -> Deferred[None] | None:
        if self._cancelled:
            return None
        done = self._deliver(chunk)
        if done is None or self._cancelled:
            return None
        held: Deferred[None] = Deferred()
        self._held = held

        def go_on(_: object) -> None:
            if self._held is held:
                self._held = None
                held.callback(None)

        done.addBoth(go_on)
        return held
