"""The output of jobs, for all who read it: live from any offset, or what is there now.

A live reader (``scheduler.cluster.output.follower``) shares one stream to the worker with
all others of the same output (``scheduler.cluster.output.live``). A snapshot is one call
to the worker. No output is kept here: the worker's spool is the only truth.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from scheduler.cluster.output.bounds import judged, length, nothing, without_record, without_worker
from scheduler.cluster.output.follower import Reader
from scheduler.cluster.output.live import Tail
from scheduler.cluster.output.window import Window
from scheduler.cluster.reach import Reach
from scheduler.errors import NotFound, ShuttingDown, Unsupported
from scheduler.interfaces import IOutputReader, IWorkerClient
from scheduler.messages import Chunk
from scheduler.model import Job, JobState, Stream

#: Bytes of a followed stream that are kept at its live end.
WINDOW_BYTES = 4 * 1024 * 1024

#: What a core worker lacks.
CAPABILITY = "reading the output of jobs"


class Outputs:
    """One for each scheduler. ``clock`` measures patience, ``window`` is in bytes."""

    def __init__(self, clock: IReactorTime, client: IWorkerClient, reach: Reach, window: int = WINDOW_BYTES) -> None:
        self._clock = clock
        self._client = client
        self._reach = reach
        self._registry = reach.registry
        self._window = window
        # job id -> what is followed of it
        self._tails: dict[str, dict[Stream, Tail]] = {}
        # of each of these jobs its worker, and the other way round
        self._worker_of: dict[str, str | None] = {}
        self._jobs_of: dict[str | None, dict[str, None]] = {}
        self._stopping = False

    @property
    def idle(self) -> bool:
        """Whether no output is followed."""
        return not (self._tails or self._worker_of or self._jobs_of)

    @property
    def tails(self) -> list[Tail]:
        """The live ends that are followed."""
        return [tail for tails in self._tails.values() for tail in tails.values()]

    def open(self, job_id: str, stream: Stream, offset: int) -> IOutputReader:
        """Follow a stream from ``offset`` on; ``NotFound``, ``Unsupported``, ``Busy``, ``ShuttingDown`` are raised."""
        job = self._job(job_id)
        tail = self._tails.get(job_id, {}).get(stream)
        if tail is None:
            window = Window(self._window)
            window.reset(offset)
            tail = Tail(self._clock, self._client, self._reach, job, stream, window, self._drop)
            self._tails.setdefault(job_id, {})[stream] = tail
            self._file(job)
        reader = Reader(tail, offset)
        if reader.error is not None:
            raise reader.error
        return reader

    def read(self, job_id: str, stream: Stream, offset: int, size: int) -> Deferred[Chunk]:
        """What ``IScheduler.read_output`` promises."""
        return Deferred.fromCoroutine(self._read(job_id, stream, offset, size))

    def job_changed(self, job: Job) -> None:
        """It is new in the registry, or another than before, or was removed."""
        if job.id not in self._tails:
            return
        if job.over and self._registry.find_job(job.id) is None:  # a client removed it
            for tail in list(self._tails[job.id].values()):
                tail.fail(NotFound("job", job.id))
            return
        self._file(job)
        for tail in list(self._tails[job.id].values()):
            tail.job_changed()

    def worker_changed(self, worker_id: str) -> None:
        """It gave a sign of life, is another than before, or is gone."""
        for job_id in list(self._jobs_of.get(worker_id, ())):
            for tail in list(self._tails.get(job_id, {}).values()):
                if tail.held:
                    tail.wake()

    def shut_down(self) -> None:
        """Every reader fails with ``ShuttingDown``, now or when it reads; no stream is left."""
        self._stopping = True
        for tail in self.tails:
            tail.fail(ShuttingDown())

    def _job(self, job_id: str) -> Job:
        """One whose output can be asked for."""
        if self._stopping:
            raise ShuttingDown()
        job = self._registry.job(job_id)
        worker = self._registry.find_worker(job.worker_id)
        if worker is not None and not worker.has_output:
            raise Unsupported(worker.name, CAPABILITY)
        return job

    async def _read(self, job_id: str, stream: Stream, offset: int, size: int) -> Chunk:
        job = self._job(job_id)
        whole = 0 if job.state is JobState.QUEUED else length(job, stream)
        if whole is not None and offset >= whole:
            return judged(nothing(offset, whole, end=job.over), job, stream)
        worker = self._registry.find_worker(job.worker_id)
        if worker is None:
            raise without_worker(job)
        self._reach.check(worker)
        try:
            chunk = await self._client.read_output(worker, job.id_on_worker, stream, offset, size)
        except NotFound:
            now = self._registry.find_job(job_id)
            if not job.over and now is not None and now.over:
                return await self._read(job_id, stream, offset, size)  # the answer may be from before it began
            return without_record(job, offset)
        return judged(chunk, self._registry.find_job(job_id) or job, stream)

    def _file(self, job: Job) -> None:
        """Find it under its worker, which it gets when it leaves the queue."""
        self._unfile(job.id)
        self._worker_of[job.id] = job.worker_id
        self._jobs_of.setdefault(job.worker_id, {})[job.id] = None

    def _unfile(self, job_id: str) -> None:
        if job_id not in self._worker_of:
            return
        worker_id = self._worker_of.pop(job_id)
        self._jobs_of[worker_id].pop(job_id, None)
        if not self._jobs_of[worker_id]:
            del self._jobs_of[worker_id]

    def _drop(self, tail: Tail) -> None:
        tails = self._tails[tail.job.id]
        del tails[tail.stream]
        if not tails:
            del self._tails[tail.job.id]
            self._unfile(tail.job.id)
